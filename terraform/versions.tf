terraform {
  # 1.9: validations may look at other variables. The tests need 1.11 (values of computed attributes in plans).
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }

  # Where the state lies is given at `terraform init -backend-config=bucket=…`: it differs with each deployment.
  # The state holds no secret: values of secrets never pass through Terraform.
  backend "gcs" {
    prefix = "adaptml"
  }
}

provider "google" {
  project        = var.project_id
  region         = var.region
  default_labels = merge({ app = "adaptml" }, var.labels)

  # Budgets are asked of the billing API on the account of this project.
  billing_project       = var.project_id
  user_project_override = true
}
