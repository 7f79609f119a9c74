output "name" {
  description = "Of the function and of the Cloud Run service that it is."
  value       = google_cloudfunctions2_function.this.name
}

output "function" {
  description = "The whole resource, for tests."
  value       = google_cloudfunctions2_function.this
}
