output "name" {
  value = google_storage_bucket.this.name
}

output "bucket" {
  description = "The whole resource, for tests."
  value       = google_storage_bucket.this
}
