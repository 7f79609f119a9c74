resource "google_cloud_run_v2_job" "this" {
  name                = var.name
  location            = var.location
  launch_stage        = var.launch_stage
  deletion_protection = var.deletion_protection

  template {
    # An execution is one attempt at one run.
    task_count  = 1
    parallelism = 1

    template {
      service_account       = var.service_account
      execution_environment = "EXECUTION_ENVIRONMENT_GEN2"
      encryption_key        = var.kms_key
      timeout               = "${var.timeout_s}s"
      # The reconciler decides on retries: it knows the manifest's max_attempts.
      max_retries = 0

      # A third cheaper; a zone that fails is one more death, and the run goes on from its checkpoint.
      gpu_zonal_redundancy_disabled = var.gpu == null ? null : true

      dynamic "node_selector" {
        for_each = var.gpu == null ? [] : [var.gpu]
        content {
          accelerator = node_selector.value
        }
      }

      containers {
        image   = var.image
        command = var.command
        args    = var.args

        resources {
          limits = merge(
            { cpu = tostring(var.cpu), memory = "${var.memory_gib}Gi" },
            var.gpu == null ? {} : { "nvidia.com/gpu" = "1" },
          )
        }

        dynamic "env" {
          for_each = var.environment
          content {
            name  = env.key
            value = env.value
          }
        }

        dynamic "volume_mounts" {
          for_each = var.models_bucket == null ? [] : [var.models_path]
          content {
            name       = "models"
            mount_path = volume_mounts.value
          }
        }
      }

      dynamic "volumes" {
        for_each = var.models_bucket == null ? [] : [var.models_bucket]
        content {
          name = "models"
          gcs {
            bucket    = volumes.value
            read_only = true
          }
        }
      }
    }
  }
}
