output "environment" {
  description = "What commands of docs/operations.md read: `terraform output -json environment`."
  value = {
    GOOGLE_CLOUD_PROJECT     = var.project_id
    ADAPTML_REGION           = var.region
    ADAPTML_DROPS_BUCKET     = module.buckets["drops"].name
    ADAPTML_ARTIFACTS_BUCKET = module.buckets["artifacts"].name
    ADAPTML_MODELS_BUCKET    = module.buckets["models"].name
    ADAPTML_TRAINER_JOB      = module.trainer.name
    ADAPTML_STORAGE_TOPIC    = basename(module.triggers["intake"].topic)
  }
}

output "drops" {
  description = "Where drops are copied to."
  value       = "gs://${module.buckets["drops"].name}"
}

output "api" {
  description = "The REST API's address."
  value       = local.api_url
}

output "artifacts" {
  description = "Where adapters are."
  value       = "gs://${module.buckets["artifacts"].name}"
}

output "models" {
  description = "Where prepared base models are."
  value       = "gs://${module.buckets["models"].name}"
}

output "images" {
  description = "Where the images are pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "hub_token" {
  description = "The secret that the hub's token is put into."
  value       = google_secret_manager_secret.hub_token.id
}

output "delivery" {
  description = "Where calls_gcloud is false, to be run after each apply: `terraform output -raw delivery | sh -e`."
  value       = join("", [for made in concat(values(module.triggers), module.dashboard) : "${made.command}\n"])
}

output "dashboard_url" {
  description = "The web page's address; null where there is none."
  value       = lookup(local.face_urls, "dashboard", null)
}

output "playground_url" {
  description = "The playground's address, which the page asks; null where there is none."
  value       = lookup(local.face_urls, "playground", null)
}

output "dashboard" {
  description = "The monitoring dashboard's id."
  value       = module.alerts.dashboard
}

output "service_accounts" {
  description = "Part → the account that it runs as."
  value       = local.accounts
}

output "rights" {
  description = "Who may do what, and why: docs/security.md is written from it."
  value = [for right in concat(local.rights, [for right in local.agent_rights : merge(right, { part = "Google: ${right.agent}" })]) : {
    part     = right.part
    kind     = right.kind
    on       = right.on
    role     = right.role
    prefixes = try(right.prefixes, [])
    suffixes = try(right.suffixes, [])
    within   = try(right.within, [])
    except   = try(right.except, [])
    # Of these an exception is made wherever they lie.
    except_files = try(right.except_files, [])
    why          = right.why
  }]
}
