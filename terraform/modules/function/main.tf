# One function of the archive. What calls it is beside it (modules/trigger): a function may have several triggers, and the
# decorator in functions/main.py says that it takes CloudEvents.
resource "google_cloudfunctions2_function" "this" {
  name         = var.name
  location     = var.location
  description  = "AdaptML: ${var.name}"
  kms_key_name = var.kms_key

  build_config {
    runtime           = "python311"
    entry_point       = var.name
    service_account   = var.builder
    docker_repository = var.repository

    # Security updates of the runtime come without a build.
    automatic_update_policy {}

    source {
      storage_source {
        bucket = var.archive_bucket
        object = var.archive_object
      }
    }
  }

  service_config {
    service_account_email            = var.service_account
    ingress_settings                 = var.ingress
    all_traffic_on_latest_revision   = true
    environment_variables            = var.environment
    available_cpu                    = tostring(var.cpu)
    available_memory                 = var.memory
    timeout_seconds                  = 540 # shorter than the acknowledgement deadline: who is late is not called twice at once
    min_instance_count               = 0
    max_instance_count               = var.max_instances
    max_instance_request_concurrency = var.requests_at_once
  }
}

# Nobody calls it but its triggers, or the members of tenants, and they by name: no allUsers.
resource "google_cloud_run_service_iam_member" "invoker" {
  for_each = toset(var.invokers)

  location = var.location
  service  = google_cloudfunctions2_function.this.name
  role     = "roles/run.invoker"
  member   = each.value
}
