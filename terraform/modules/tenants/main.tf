# A tenant's people reach its folder and no other: rights on managed folders are rights on a prefix, listing included.
resource "google_storage_managed_folder" "this" {
  for_each = { drops = var.drops_bucket, artifacts = var.artifacts_bucket }

  bucket = each.value
  name   = "${var.tenant}/"
}

resource "google_storage_managed_folder_iam_member" "writer" {
  for_each = toset(var.writers)

  bucket         = google_storage_managed_folder.this["drops"].bucket
  managed_folder = google_storage_managed_folder.this["drops"].name
  role           = "roles/storage.objectUser"
  member         = each.value
}

# Reading only: a version is whole or not at all, and stays as it was measured.
resource "google_storage_managed_folder_iam_member" "reader" {
  for_each = toset(concat(var.writers, var.readers))

  bucket         = google_storage_managed_folder.this["artifacts"].bucket
  managed_folder = google_storage_managed_folder.this["artifacts"].name
  role           = "roles/storage.objectViewer"
  member         = each.value
}
