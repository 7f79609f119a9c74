# Makes rights.tf so. What is bound in a module (the invokers of functions and services, Pub/Sub's agent) is listed there as well; a
# test holds the list against all that is bound.
locals {
  granted = {
    for kind in ["bucket", "topic", "job", "secret", "repository", "account", "view", "project"] : kind => {
      for right in local.rights :
      join(" ", compact([right.part, right.on, basename(right.role), join(",", concat(try(right.prefixes, []), try(right.suffixes, []), try(right.within, []), try(right.except, []), try(right.except_files, [])))])) => right
      if right.kind == kind
    }
  }

  all_buckets = merge({ for kind, bucket in module.buckets : kind => bucket.name }, { functions = module.source.name })

  # A condition on names of objects, in CEL. A right to list is one on the bucket and has none.
  conditions = {
    for key, right in local.granted.bucket : key => join(" || ", concat(
      [for prefix in try(right.prefixes, []) : "resource.name.startsWith(\"projects/_/buckets/${local.all_buckets[right.on]}/objects/${prefix}\")"],
      [for suffix in try(right.suffixes, []) : "resource.name.endsWith(\"/${suffix}\")"],
      [for folder in try(right.within, []) : "resource.name.extract(\"projects/_/buckets/${local.all_buckets[right.on]}/objects/{path}/${folder}/\") != \"\""],
      compact([join(" && ", concat(
        [for prefix in try(right.except, []) : "!resource.name.startsWith(\"projects/_/buckets/${local.all_buckets[right.on]}/objects/${prefix}\")"],
        [for file in try(right.except_files, []) : "!resource.name.endsWith(\"/${file}\")"],
      ))]),
    ))
  }

  project_conditions = {
    database      = "resource.name == \"projects/${var.project_id}/databases/${module.database.name}\""
    build_sources = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-\")"
    project       = null
  }
}

resource "google_storage_bucket_iam_member" "granted" {
  for_each = local.granted.bucket

  bucket = local.all_buckets[each.value.on]
  role   = each.value.role
  member = "serviceAccount:${local.accounts[each.value.part]}"

  dynamic "condition" {
    for_each = local.conditions[each.key] == "" ? [] : [local.conditions[each.key]]
    content {
      title       = "Only what it writes"
      description = each.value.why
      expression  = condition.value
    }
  }
}

resource "google_pubsub_topic_iam_member" "granted" {
  for_each = local.granted.topic

  topic  = module.topics.ids[each.value.on]
  role   = each.value.role
  member = "serviceAccount:${local.accounts[each.value.part]}"
}

resource "google_cloud_run_v2_job_iam_member" "granted" {
  for_each = local.granted.job

  name     = module.trainer.name
  location = var.region
  role     = each.value.role
  member   = "serviceAccount:${local.accounts[each.value.part]}"
}

resource "google_secret_manager_secret_iam_member" "granted" {
  for_each = local.granted.secret

  secret_id = google_secret_manager_secret.hub_token.secret_id
  role      = each.value.role
  member    = "serviceAccount:${local.accounts[each.value.part]}"
}

resource "google_artifact_registry_repository_iam_member" "granted" {
  for_each = local.granted.repository

  repository = google_artifact_registry_repository.images.repository_id
  location   = var.region
  role       = each.value.role
  member     = "serviceAccount:${local.accounts[each.value.part]}"
}

resource "google_service_account_iam_member" "granted" {
  for_each = local.granted.account

  service_account_id = "projects/${var.project_id}/serviceAccounts/${local.accounts[each.value.on]}"
  role               = each.value.role
  member             = "serviceAccount:${local.accounts[each.value.part]}"
}

resource "google_logging_log_view_iam_member" "granted" {
  for_each = local.granted.view

  parent   = google_logging_log_view.standard_output[0].parent
  location = google_logging_log_view.standard_output[0].location
  bucket   = google_logging_log_view.standard_output[0].bucket
  name     = google_logging_log_view.standard_output[0].name
  role     = each.value.role
  member   = "serviceAccount:${local.accounts[each.value.part]}"
}

resource "google_project_iam_member" "granted" {
  for_each = local.granted.project

  project = var.project_id
  role    = each.value.role
  member  = "serviceAccount:${local.accounts[each.value.part]}"

  dynamic "condition" {
    for_each = local.project_conditions[each.value.on] == null ? [] : [local.project_conditions[each.value.on]]
    content {
      title       = "Only ${each.value.on}"
      description = "Narrows a right that can only be given on a project"
      expression  = condition.value
    }
  }
}

resource "google_project_iam_member" "agents" {
  for_each = { for right in local.agent_rights : right.agent => right if right.kind == "project" }

  project = var.project_id
  role    = each.value.role
  member  = local.agents[each.value.agent]
}

resource "google_pubsub_topic_iam_member" "wakeups" {
  for_each = { scheduler = local.agents.scheduler, sink = google_logging_project_sink.ended_executions.writer_identity }

  topic  = module.topics.ids["reconcile"]
  role   = "roles/pubsub.publisher"
  member = each.value
}

# Systems of a tenant ask for its runs on its own topics: a message that names another tenant is refused there.
resource "google_pubsub_topic_iam_member" "publishers" {
  for_each = merge([
    for name, own in local.own_topics : { for member in var.tenants[own.tenant].publishers : "${name} ${member}" => { topic = name, member = member } }
  ]...)

  topic  = module.topics.ids[each.value.topic]
  role   = "roles/pubsub.publisher"
  member = each.value.member
}

# On the topics of all tenants a message says for whom it is: whoever may publish there may ask for every one.
resource "google_pubsub_topic_iam_member" "requesters" {
  for_each = { for pair in setproduct(["run-requests", "run-commands"], var.requesters) : join(" ", pair) => pair }

  topic  = module.topics.ids[each.value[0]]
  role   = "roles/pubsub.publisher"
  member = each.value[1]
}

# Google's agents that keep something under a key of yours.
resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = var.kms_key == null ? {} : {
    storage  = "gs-project-accounts"
    pubsub   = "gcp-sa-pubsub"
    database = "gcp-sa-firestore"
    images   = "gcp-sa-artifactregistry"
    secrets  = "gcp-sa-secretmanager"
    run      = "serverless-robot-prod"
    build    = "gcf-admin-robot"
    events   = "gcp-sa-eventarc"
  }

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this.number}@${each.value}.iam.gserviceaccount.com"
}
