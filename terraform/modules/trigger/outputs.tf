output "topic" {
  description = "Which topic carries the events: Eventarc's own for those of a bucket."
  value       = local.made.topic
}

output "subscription" {
  value = local.made.subscription
}

output "trigger" {
  description = "The whole resource, for tests."
  value       = google_eventarc_trigger.this
}

output "delivery" {
  description = "How its subscription delivers."
  value       = local.delivery
}

output "command" {
  description = "Makes the subscription deliver so."
  value       = local.command
}
