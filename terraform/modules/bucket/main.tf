# One bucket: private, versioned, so that a pinned generation stays readable after it was overwritten.
resource "google_storage_bucket" "this" {
  name                        = var.name
  location                    = var.location
  force_destroy               = !var.deletion_protection
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 7 * 86400
  }

  # Only generations that are not live any more: no rule deletes what somebody can see, the audit trail least of all.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      with_state                 = "ARCHIVED"
      days_since_noncurrent_time = var.overwritten_days
    }
  }

  # Parts of uploads that were never finished are paid for and seen by nobody.
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      default_kms_key_name = encryption.value
    }
  }
}
