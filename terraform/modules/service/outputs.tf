output "service" {
  description = "The whole resource, for tests."
  value       = google_cloud_run_v2_service.this
}

output "invokers" {
  description = "Who may call it, for tests."
  value       = [for member in values(google_cloud_run_v2_service_iam_member.invoker) : member.member]
}

output "people" {
  description = "Whom the proxy lets in, for tests."
  value       = [for member in values(google_iap_web_cloud_run_service_iam_member.people) : member.member]
}

output "command" {
  description = "Puts Identity-Aware Proxy in front of it; empty where there is none."
  value       = local.command
}
