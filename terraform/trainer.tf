module "trainer" {
  source = "./modules/job"

  name            = local.environment.ADAPTML_TRAINER_JOB
  location        = var.region
  image           = var.trainer_image
  command         = ["python", "-m", "trainer"]
  service_account = local.accounts["trainer"]
  environment     = merge(local.environment, { ADAPTML_MODELS_DIR = "/models" })
  cpu             = var.trainer.cpu
  memory_gib      = var.trainer.memory_gib
  timeout_s       = var.trainer.timeout_s
  launch_stage    = var.trainer.launch_stage
  gpu             = "nvidia-l4"
  # Read where it lies: a download to /tmp would be paid for with the job's memory.
  models_bucket       = var.trainer.mount_models ? module.buckets["models"].name : null
  models_path         = "/models"
  kms_key             = var.kms_key
  deletion_protection = var.deletion_protection

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

# Downloads and quantises base models, once each: `gcloud run jobs execute adaptml-prepare`. The only part that has a
# token, and the only one that writes to the models bucket. Its disk is its memory: a model of 4 billion parameters fits,
# one of 7 does not and is prepared on a machine with a disk (docs/operations.md).
module "prepare" {
  source = "./modules/job"

  name     = "adaptml-prepare"
  location = var.region
  image    = var.trainer_image
  command  = ["python", "-m", "trainer.prepare"]
  args = concat(var.base_models, [
    "--to", "gs://${local.buckets.models}",
    "--token-secret", "projects/${var.project_id}/secrets/${google_secret_manager_secret.hub_token.secret_id}/versions/latest",
  ])
  service_account     = local.accounts["prepare"]
  environment         = { GOOGLE_CLOUD_PROJECT = var.project_id }
  cpu                 = 8
  memory_gib          = 32
  timeout_s           = 6 * 3600
  launch_stage        = var.trainer.launch_stage
  kms_key             = var.kms_key
  deletion_protection = false

  depends_on = [google_kms_crypto_key_iam_member.agents]
}

# Its value is put in by hand (docs/operations.md): a value that passed through Terraform would lie in the state.
resource "google_secret_manager_secret" "hub_token" {
  secret_id = "adaptml-hub-token"

  replication {
    user_managed {
      replicas {
        location = var.region

        dynamic "customer_managed_encryption" {
          for_each = var.kms_key == null ? [] : [var.kms_key]
          content {
            kms_key_name = customer_managed_encryption.value
          }
        }
      }
    }
  }

  depends_on = [google_project_service.used, google_kms_crypto_key_iam_member.agents]
}
