# One Cloud Run service of an image of ours. It costs nothing while nobody asks it, and nobody may call it but who is
# named: Cloud Run's own check of callers is never switched off.
resource "google_cloud_run_v2_service" "this" {
  name     = var.name
  location = var.location
  # Who calls is outside: a browser, or another service, which without a network of yours counts as outside, too.
  ingress = "INGRESS_TRAFFIC_ALL"
  # It holds nothing that would be lost with it.
  deletion_protection  = false
  invoker_iam_disabled = false

  template {
    service_account                  = var.service_account
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    encryption_key                   = var.kms_key
    timeout                          = "${var.timeout_s}s"
    session_affinity                 = var.session_affinity
    max_instance_request_concurrency = var.requests_at_once
    gpu_zonal_redundancy_disabled    = var.gpu == null ? null : true

    scaling {
      min_instance_count = 0
      max_instance_count = var.max_instances
    }

    dynamic "node_selector" {
      for_each = var.gpu == null ? [] : [var.gpu]
      content {
        accelerator = node_selector.value
      }
    }

    containers {
      image   = var.image
      command = var.command

      resources {
        limits = merge(
          { cpu = tostring(var.cpu), memory = "${var.memory_gib}Gi" },
          var.gpu == null ? {} : { "nvidia.com/gpu" = "1" },
        )
        # Paid for by the request; an instance with a GPU is paid for as long as it is there.
        cpu_idle          = var.gpu == null
        startup_cpu_boost = var.gpu == null
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

  lifecycle {
    # What gcloud leaves of itself when it switches the proxy on.
    ignore_changes = [client, client_version, annotations, launch_stage, template[0].annotations, template[0].labels]
  }
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = toset(var.invokers)

  name     = google_cloud_run_v2_service.this.name
  location = var.location
  role     = "roles/run.invoker"
  member   = each.value
}

# Whom Identity-Aware Proxy lets in front of it.
resource "google_iap_web_cloud_run_service_iam_member" "people" {
  for_each = toset(var.people == null ? [] : var.people)

  cloud_run_service_name = google_cloud_run_v2_service.this.name
  location               = var.location
  role                   = "roles/iap.httpsResourceAccessor"
  member                 = each.value
}

# This provider's service has no setting for the proxy (`iap_enabled` is google-beta's), and with each change it sends the
# whole service, without it: gcloud switches the proxy on after each. Until then nobody comes in, as only the proxy may call.
locals {
  command = var.people == null ? "" : "gcloud beta run services update '${var.name}' --project='${var.project_id}' --region='${var.location}' --iap --quiet"
}

resource "terraform_data" "proxy" {
  count = var.people != null && var.calls_gcloud ? 1 : 0

  input            = local.command
  triggers_replace = local.command

  provisioner "local-exec" {
    command = "command -v gcloud >/dev/null || { echo 'gcloud is missing: set calls_gcloud = false, and run output delivery afterwards'; exit 1; }; ${self.input}"
  }

  lifecycle {
    replace_triggered_by = [google_cloud_run_v2_service.this]
  }

  depends_on = [google_cloud_run_v2_service_iam_member.invoker]
}
