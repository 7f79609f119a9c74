# The wiring is read from the file that the local cloud reads, too.
locals {
  topology = yamldecode(file("${path.module}/../schemas/topology.yaml"))

  buckets   = { for kind in ["drops", "artifacts", "models"] : kind => "${coalesce(var.bucket_prefix, var.project_id)}-${kind}" }
  functions = keys(local.topology.functions)
  by_http   = [for name, source in local.topology.functions : name if try(source.http, false)]

  # A topic of a tenant's own → whose it is and of which kind (schemas/topology.py names them).
  own_topics = {
    for pair in setproduct(sort([for tenant, people in var.tenants : tenant if length(people.publishers) > 0]), local.topology.tenant_topics) :
    "${pair[1]}.${pair[0]}" => { tenant = pair[0], kind = pair[1] }
  }

  # Topic → the schema of its messages, or null.
  topics = merge(
    { for name, topic in local.topology.topics : name => topic.schema_name },
    { for name, own in local.own_topics : name => local.topology.topics[own.kind].schema_name },
  )

  # Dead-letter topic → the topic whose messages end there.
  dead_letters = merge(
    { for topic in concat(keys(local.topology.topics), [local.topology.storage_topic]) : "${topic}-dead" => topic },
    { for name, own in local.own_topics : "${own.kind}-dead.${own.tenant}" => name },
  )

  # What calls a function: each topic or event that topology.yaml names, and each dead-letter topic.
  triggers = merge(
    {
      for name, source in local.topology.functions : name => {
        function    = name
        event       = try(source.event, null)
        topic       = try(source.topic, null)
        dead_letter = "${try(source.topic, local.topology.storage_topic)}-dead"
      } if !try(source.dead_letters, false) && !try(source.http, false)
    },
    merge([
      for name, source in local.topology.functions : {
        for topic, own in local.own_topics : "${name}-${own.tenant}" => {
          function    = name
          event       = null
          topic       = topic
          dead_letter = "${own.kind}-dead.${own.tenant}"
        } if own.kind == try(source.topic, null)
      }
    ]...),
    merge([
      for name, source in local.topology.functions : {
        for dead in keys(local.dead_letters) : "${name}-${dead}" => {
          function    = name
          event       = null
          topic       = dead
          dead_letter = null
        }
      } if try(source.dead_letters, false)
    ]...),
  )

  # Names of triggers are short and know no dots.
  trigger_names = {
    for key in keys(local.triggers) : key => length(key) <= 63 ? replace(key, ".", "-") : "${substr(replace(key, ".", "-"), 0, 54)}-${substr(sha256(key), 0, 8)}"
  }
}

data "google_project" "this" {}

# Asking for Cloud Storage's agent makes it. Those of Pub/Sub and Scheduler come with their services.
data "google_storage_project_service_account" "this" {}

resource "google_project_service" "used" {
  for_each = toset(concat(var.dashboard == null ? [] : ["iap"], [
    "artifactregistry", "billingbudgets", "cloudbuild", "cloudfunctions", "cloudscheduler", "eventarc", "firestore", "iam",
    "logging", "monitoring", "pubsub", "run", "secretmanager", "storage", "cloudtrace", "telemetry",
    "iamcredentials",
  ]))

  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}

module "buckets" {
  source   = "./modules/bucket"
  for_each = local.buckets

  name                = each.value
  location            = var.region
  overwritten_days    = var.retention["overwritten_${each.key}_days"]
  kms_key             = var.kms_key
  deletion_protection = var.deletion_protection

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

module "database" {
  source = "./modules/database"

  location            = var.region
  kms_key             = var.kms_key
  deletion_protection = var.deletion_protection

  depends_on = [google_project_service.used, google_kms_crypto_key_iam_member.agents]
}

module "topics" {
  source = "./modules/topics"

  project_id   = var.project_id
  topics       = local.topics
  schemas      = { for topic in values(local.topology.topics) : topic.schema_name => file("${path.module}/avro/${topic.schema_name}.avsc") if topic.schema_name != null }
  dead_letters = keys(local.dead_letters)
  listeners    = var.listeners
  delivery     = local.topology.delivery
  region       = var.region
  kms_key      = var.kms_key
  agent        = local.agents.pubsub

  depends_on = [google_project_service.used, google_kms_crypto_key_iam_member.agents]
}

module "tenants" {
  source   = "./modules/tenants"
  for_each = var.tenants

  tenant           = each.key
  drops_bucket     = module.buckets["drops"].name
  artifacts_bucket = module.buckets["artifacts"].name
  writers          = each.value.writers
  readers          = each.value.readers
}
