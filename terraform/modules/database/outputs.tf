output "name" {
  value = google_firestore_database.this.name
}

output "database" {
  description = "The whole resources, for tests."
  value = {
    database = google_firestore_database.this
    indexes  = google_firestore_index.runs
    ttl      = google_firestore_field.events_expire
  }
}
