output "channels" {
  value = [for channel in google_monitoring_notification_channel.email : channel.id]
}

output "dashboard" {
  value = google_monitoring_dashboard.this.id
}

output "policies" {
  description = "The whole resources, for tests."
  value       = merge(google_monitoring_alert_policy.this, { no_tick = google_monitoring_alert_policy.no_tick })
}

output "metrics" {
  description = "The whole resources, for tests."
  value       = google_logging_metric.this
}
