# All functions are one archive; each has its own entry point, account and limits.
locals {
  # Whoever takes in drops reads data whole, with two processes beside it for large files (docs/decisions.md).
  sizes = {
    intake      = { cpu = 2, memory = "2Gi", instances = 20, requests_at_once = 4 }
    requests    = { cpu = 2, memory = "2Gi", instances = 10, requests_at_once = 4 }
    commands    = { cpu = 2, memory = "2Gi", instances = 5, requests_at_once = 4 }
    dispatch    = { cpu = 1, memory = "512Mi", instances = 3, requests_at_once = 4 }
    reconcile   = { cpu = 2, memory = "2Gi", instances = 1, requests_at_once = 1 }
    undelivered = { cpu = 1, memory = "512Mi", instances = 3, requests_at_once = 4 }
    api         = { cpu = 1, memory = "1Gi", instances = 5, requests_at_once = 8 } # files of 30 MB are held whole
  }

  # What adaptml/settings.py reads, in all parts alike.
  settings = {
    GOOGLE_CLOUD_PROJECT     = var.project_id
    ADAPTML_REGION           = var.region
    ADAPTML_DROPS_BUCKET     = local.buckets.drops
    ADAPTML_ARTIFACTS_BUCKET = local.buckets.artifacts
    ADAPTML_MODELS_BUCKET    = local.buckets.models
    ADAPTML_TRAINER_JOB      = "adaptml-trainer"
    ADAPTML_GPU_QUOTA        = tostring(var.gpu_quota)

    # Every part must say the same: who takes up a RESUME, and who deletes checkpoints.
    ADAPTML_CHECKPOINTS_KEPT_S = tostring(var.retention.checkpoints_days * 86400)
  }

  # Functions and job are traced, too.
  environment = merge(local.tracing, local.settings)

  # What adaptml/tracing.py reads, and OpenTelemetry. A trace that others began is kept or not as they say.
  tracing = var.trace_ratio == 0 ? {} : {
    ADAPTML_TRACES          = "google"
    OTEL_TRACES_SAMPLER     = "parentbased_traceidratio"
    OTEL_TRACES_SAMPLER_ARG = tostring(var.trace_ratio)
  }
}

# Who may call the API, and what it takes them for. Of a group nobody can say who is in it: its members are named.
locals {
  api_url = "https://${var.region}-${var.project_id}.cloudfunctions.net/api"

  api_rights = flatten([
    for tenant, people in var.tenants : [
      for role, members in { reader = people.readers, writer = people.writers } : [
        for member in members : { member = member, address = lower(split(":", member)[1]), tenant = tenant, role = role }
      ]
    ]
  ])

  # Who is a writer is one, also where the same is named as a reader: w comes after r.
  api_members = {
    for address in distinct([for right in local.api_rights : right.address if !startswith(right.member, "group:")]) :
    address => merge([for right in local.api_rights : { (right.tenant) = right.role } if right.address == address]...)
  }

  api_environment = {
    ADAPTML_API_AUDIENCES = jsonencode(concat([local.api_url, "https://api-${data.google_project.this.number}.${var.region}.run.app"], var.api_audiences))
    ADAPTML_API_MEMBERS   = jsonencode(local.api_members)
  }

  invokers = {
    for name in local.functions : name => contains(local.by_http, name) ? distinct([for right in local.api_rights : right.member if !startswith(right.member, "group:")]) : ["serviceAccount:${local.accounts["events"]}"]
  }
}

resource "google_storage_bucket_object" "functions" {
  # A new archive has a new name, so that functions are built anew when, and only when, their source has changed.
  name   = "functions-${filesha256("${path.module}/${var.functions_archive}")}.zip"
  bucket = module.source.name
  source = "${path.module}/${var.functions_archive}"
}

module "source" {
  source = "./modules/bucket"

  name                = "${coalesce(var.bucket_prefix, var.project_id)}-functions"
  location            = var.region
  overwritten_days    = 30
  kms_key             = var.kms_key
  deletion_protection = false

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "adaptml"
  location      = var.region
  format        = "DOCKER"
  description   = "The images of trainer and dashboard, and those that Cloud Build makes of the functions"
  kms_key_name  = var.kms_key

  # Images of the functions are built over the same tags.
  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "7776000s"
    }
  }

  cleanup_policies {
    id     = "last"
    action = "KEEP"
    most_recent_versions {
      keep_count = 10
    }
  }

  depends_on = [google_project_service.used, google_kms_crypto_key_iam_member.agents]
}

module "functions" {
  source   = "./modules/function"
  for_each = local.topology.functions

  name             = each.key
  location         = var.region
  archive_bucket   = module.source.name
  archive_object   = google_storage_bucket_object.functions.name
  repository       = google_artifact_registry_repository.images.id
  builder          = "projects/${var.project_id}/serviceAccounts/${local.accounts["packer"]}"
  service_account  = local.accounts[each.key]
  invokers         = local.invokers[each.key]
  ingress          = contains(local.by_http, each.key) ? "ALLOW_ALL" : "ALLOW_INTERNAL_ONLY"
  environment      = merge(local.environment, contains(local.by_http, each.key) ? local.api_environment : {})
  cpu              = local.sizes[each.key].cpu
  memory           = local.sizes[each.key].memory
  max_instances    = try(each.value.serial, false) ? 1 : local.sizes[each.key].instances
  requests_at_once = try(each.value.serial, false) ? 1 : local.sizes[each.key].requests_at_once
  kms_key          = var.kms_key

  # The first build needs the packer's rights.
  depends_on = [google_project_iam_member.granted, google_artifact_registry_repository_iam_member.granted, google_storage_bucket_iam_member.granted]
}

module "triggers" {
  source   = "./modules/trigger"
  for_each = local.triggers

  name            = local.trigger_names[each.key]
  project_id      = var.project_id
  location        = var.region
  service         = module.functions[each.value.function].name
  service_account = local.accounts["events"]
  event           = each.value.event
  bucket          = each.value.event == null ? null : module.buckets["drops"].name
  topic           = each.value.topic == null ? null : module.topics.ids[each.value.topic]
  dead_letter     = each.value.dead_letter == null ? null : module.topics.ids[each.value.dead_letter]
  delivery        = local.topology.delivery
  agent           = local.agents.pubsub
  calls_gcloud    = var.calls_gcloud

  depends_on = [google_project_iam_member.granted, google_project_iam_member.agents, google_pubsub_topic_iam_member.granted]
}
