# The default database: the clients open no other.
resource "google_firestore_database" "this" {
  name                              = "(default)"
  location_id                       = var.location
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.deletion_protection ? "ABANDON" : "DELETE"

  dynamic "cmek_config" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      kms_key_name = cmek_config.value
    }
  }
}

# Recovery to any second goes a week back; these go further.
resource "google_firestore_backup_schedule" "daily" {
  database  = google_firestore_database.this.name
  retention = "2419200s" # 28 days

  daily_recurrence {}
}

# The queries that ask for more than one field (adaptml/runs/queries.py). A test asks each query what it needs.
resource "google_firestore_index" "runs" {
  for_each = {
    waiting        = [["state", "ASCENDING"], ["tenant", "ASCENDING"], ["created_at", "ASCENDING"]]
    of_folder      = [["tenant", "ASCENDING"], ["folder", "ASCENDING"], ["state", "ASCENDING"]]
    last_of_folder = [["tenant", "ASCENDING"], ["folder", "ASCENDING"], ["created_at", "DESCENDING"]]
    of_tenant      = [["tenant", "ASCENDING"], ["created_at", "DESCENDING"]]
    in_state       = [["tenant", "ASCENDING"], ["state", "ASCENDING"], ["created_at", "DESCENDING"]]
    of_name        = [["tenant", "ASCENDING"], ["name", "ASCENDING"], ["created_at", "DESCENDING"]]
    in_state_named = [["tenant", "ASCENDING"], ["state", "ASCENDING"], ["name", "ASCENDING"], ["created_at", "DESCENDING"]]
  }

  database   = google_firestore_database.this.name
  collection = "runs"

  dynamic "fields" {
    for_each = each.value
    content {
      field_path = fields.value[0]
      order      = fields.value[1]
    }
  }
}

# An audit event that has `expire_at` goes once that time is past: the whole trail stays in the artifacts bucket. An
# event without the field stays. Nobody searches by it, and an index over times that only grow would slow all writes.
resource "google_firestore_field" "events_expire" {
  database   = google_firestore_database.this.name
  collection = "events"
  field      = "expire_at"

  ttl_config {}

  index_config {}
}

# A batch of the loss curve is read whole; an index entry for each of a thousand points would only cost.
resource "google_firestore_field" "curve" {
  database   = google_firestore_database.this.name
  collection = "metrics"
  field      = "points"

  index_config {}
}
