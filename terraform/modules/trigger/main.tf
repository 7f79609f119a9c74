# Calls a function for each event of a bucket or message of a topic, as an account that may.
resource "google_eventarc_trigger" "this" {
  name            = var.name
  location        = var.location
  service_account = var.service_account

  matching_criteria {
    attribute = "type"
    value     = var.topic == null ? var.event : "google.cloud.pubsub.topic.v1.messagePublished"
  }

  dynamic "matching_criteria" {
    for_each = var.bucket == null ? [] : [var.bucket]
    content {
      attribute = "bucket"
      value     = matching_criteria.value
    }
  }

  dynamic "transport" {
    for_each = var.topic == null ? [] : [var.topic]
    content {
      pubsub {
        topic = transport.value
      }
    }
  }

  destination {
    cloud_run_service {
      service = var.service
      region  = var.location
    }
  }
}

locals {
  # Eventarc names what it makes. A mocked provider makes nothing up for the bucket's events: the tests see the fallback.
  made = {
    subscription = try(google_eventarc_trigger.this.transport[0].pubsub[0].subscription, "projects/${var.project_id}/subscriptions/eventarc-${var.location}-${var.name}")
    topic        = try(google_eventarc_trigger.this.transport[0].pubsub[0].topic, "projects/${var.project_id}/topics/eventarc-${var.location}-${var.name}")
  }
}

# Pub/Sub gives a message up for the function, so it must be able to acknowledge it here.
resource "google_pubsub_subscription_iam_member" "agent" {
  count = var.dead_letter == null ? 0 : 1

  subscription = local.made.subscription
  role         = "roles/pubsub.subscriber"
  member       = var.agent
}

# Eventarc makes its subscription itself, with ten seconds' back-off, a day's retention and no dead letters, and offers no
# setting for them: Google's way is to update the subscription (docs/decisions.md).
locals {
  delivery = {
    subscription          = local.made.subscription
    ack_deadline_s        = var.delivery.ack_deadline_s
    minimum_backoff_s     = var.delivery.minimum_backoff_s
    maximum_backoff_s     = var.delivery.maximum_backoff_s
    retention_s           = 604800
    dead_letter_topic     = var.dead_letter
    max_delivery_attempts = var.dead_letter == null ? null : var.delivery.max_delivery_attempts
  }

  command = join(" ", concat(
    [
      "gcloud pubsub subscriptions update '${local.delivery.subscription}' --project='${var.project_id}' --quiet",
      "--ack-deadline=${local.delivery.ack_deadline_s}",
      "--min-retry-delay=${local.delivery.minimum_backoff_s}s --max-retry-delay=${local.delivery.maximum_backoff_s}s",
      "--message-retention-duration=${local.delivery.retention_s}s --expiration-period=never",
    ],
    var.dead_letter == null ? [] : [
      "--dead-letter-topic='${local.delivery.dead_letter_topic}' --max-delivery-attempts=${local.delivery.max_delivery_attempts}",
    ],
  ))
}

# Done again when one of the settings changes.
resource "terraform_data" "delivery" {
  count = var.calls_gcloud ? 1 : 0

  input            = local.command
  triggers_replace = local.delivery

  provisioner "local-exec" {
    command = "command -v gcloud >/dev/null || { echo 'gcloud is missing: set calls_gcloud = false, and run output delivery afterwards'; exit 1; }; ${self.input}"
  }

  depends_on = [google_pubsub_subscription_iam_member.agent]
}
