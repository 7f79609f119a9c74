output "name" {
  value = google_cloud_run_v2_job.this.name
}

output "job" {
  description = "The whole resource, for tests."
  value       = google_cloud_run_v2_job.this
}
