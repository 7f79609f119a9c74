# What people look at, and only where it was asked for: the page (docs/dashboard.md), and the playground that it asks.
locals {
  faces = compact([var.dashboard == null ? "" : "dashboard", var.playground == null ? "" : "playground"])

  # Known before the services are: Cloud Run makes both of the same name, project and region.
  face_urls = { for face in local.faces : face => "https://adaptml-${face}-${data.google_project.this.number}.${var.region}.run.app" }

  # Of a group the page cannot say who is in it, as the API cannot: people are named.
  viewers = distinct([for right in local.api_rights : right.member if startswith(right.member, "user:")])
}

module "dashboard" {
  source = "./modules/service"
  count  = var.dashboard == null ? 0 : 1

  name            = "adaptml-dashboard"
  project_id      = var.project_id
  location        = var.region
  image           = var.dashboard_image
  service_account = local.accounts["dashboard"]
  invokers        = [local.agents.iap]
  people          = local.viewers
  environment = merge(
    local.settings,
    {
      ADAPTML_IAP_AUDIENCE      = "/projects/${data.google_project.this.number}/locations/${var.region}/services/adaptml-dashboard"
      ADAPTML_API_MEMBERS       = jsonencode(local.api_members)
      ADAPTML_DASHBOARD_ADDRESS = "0.0.0.0"
      ADAPTML_LOG_VIEW          = "projects/${var.project_id}/locations/global/buckets/_Default/views/adaptml-output"
    },
    var.playground == null ? {} : { ADAPTML_PLAYGROUND_URL = local.face_urls["playground"] },
  )
  cpu        = var.dashboard.cpu
  memory_gib = var.dashboard.memory_gib
  # A page that is open is one request, a websocket: the longest that there is. After it the browser connects anew, to the
  # instance that has its session and its uploads.
  timeout_s        = 3600
  session_affinity = true
  max_instances    = var.dashboard.max_instances
  requests_at_once = 80
  kms_key          = var.kms_key
  calls_gcloud     = var.calls_gcloud

  depends_on = [google_project_service.used, google_kms_crypto_key_iam_member.agents]
}

module "playground" {
  source = "./modules/service"
  count  = var.playground == null ? 0 : 1

  name            = "adaptml-playground"
  project_id      = var.project_id
  location        = var.region
  image           = var.trainer_image
  command         = ["python", "-m", "trainer.playground"]
  service_account = local.accounts["playground"]
  invokers        = ["serviceAccount:${local.accounts["dashboard"]}"]
  environment = merge(local.settings, {
    ADAPTML_MODELS_DIR         = "/models"
    ADAPTML_PLAYGROUND_ADDRESS = "0.0.0.0"
  })
  cpu        = var.playground.cpu
  memory_gib = var.playground.memory_gib
  gpu        = "nvidia-l4"
  # As long as adaptml/playground.py waits. It answers one question at a time; others wait in it, not before a closed door.
  timeout_s        = 300
  max_instances    = 1
  requests_at_once = 8
  models_bucket    = var.trainer.mount_models ? module.buckets["models"].name : null
  kms_key          = var.kms_key
  calls_gcloud     = var.calls_gcloud

  depends_on = [google_project_service.used, google_kms_crypto_key_iam_member.agents, google_storage_bucket_iam_member.granted]
}

# What the page shows of a run's log. A view may be narrowed to a log, not to a service: it holds what the project's functions,
# jobs and services write to standard output. The page asks for lines of a run that its viewer may see.
resource "google_logging_log_view" "standard_output" {
  count = var.dashboard == null ? 0 : 1

  name        = "adaptml-output"
  parent      = "projects/${var.project_id}"
  location    = "global"
  bucket      = "_Default"
  description = "Standard output of functions, jobs and services, for AdaptML's page"
  filter      = "LOG_ID(\"run.googleapis.com/stdout\")"

  depends_on = [google_project_service.used]
}
