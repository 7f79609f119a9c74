locals {
  # Put together, so that a plan knows them before they are made.
  ids = { for name, topic in merge(google_pubsub_topic.this, google_pubsub_topic.dead) : name => "projects/${var.project_id}/topics/${topic.name}" }
}

resource "google_pubsub_schema" "this" {
  for_each = var.schemas

  name       = each.key
  type       = "AVRO"
  definition = each.value
}

resource "google_pubsub_topic" "this" {
  for_each = var.topics

  name         = each.key
  kms_key_name = var.kms_key

  # A published message can be delivered again for a week, also to a subscription that is made later.
  message_retention_duration = "604800s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  # Pub/Sub itself refuses what is not of the schema.
  dynamic "schema_settings" {
    for_each = each.value == null ? [] : [each.value]
    content {
      schema   = "projects/${var.project_id}/schemas/${google_pubsub_schema.this[schema_settings.value].name}"
      encoding = "JSON"
    }
  }
}

# Without a schema: a dead letter is kept as it is.
resource "google_pubsub_topic" "dead" {
  for_each = var.dead_letters

  name                       = each.key
  kms_key_name               = var.kms_key
  message_retention_duration = "604800s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }
}

# For systems that listen. What they do not take ends as a dead letter, too.
resource "google_pubsub_subscription" "listener" {
  for_each = var.listeners

  name                 = "run-events-${each.key}"
  topic                = local.ids["run-events"]
  ack_deadline_seconds = var.delivery.ack_deadline_s

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "${var.delivery.minimum_backoff_s}s"
    maximum_backoff = "${var.delivery.maximum_backoff_s}s"
  }

  dead_letter_policy {
    dead_letter_topic     = local.ids["run-events-dead"]
    max_delivery_attempts = var.delivery.max_delivery_attempts
  }
}

resource "google_pubsub_subscription_iam_member" "listener" {
  for_each = var.listeners

  subscription = google_pubsub_subscription.listener[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

# Whoever is to give up a message must be able to acknowledge it, and to publish it where it ends.
resource "google_pubsub_subscription_iam_member" "agent" {
  for_each = var.listeners

  subscription = google_pubsub_subscription.listener[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = var.agent
}

resource "google_pubsub_topic_iam_member" "agent" {
  for_each = google_pubsub_topic.dead

  topic  = each.value.name
  role   = "roles/pubsub.publisher"
  member = var.agent
}
