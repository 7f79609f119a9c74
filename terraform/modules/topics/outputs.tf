output "ids" {
  description = "Topic, dead-letter topics included → its full name."
  value       = local.ids
}

output "topics" {
  description = "The whole resources, for tests."
  value       = google_pubsub_topic.this
}

output "listeners" {
  description = "The whole resources, for tests."
  value       = google_pubsub_subscription.listener
}
