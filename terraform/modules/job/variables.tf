variable "name" {
  type = string
}

variable "location" {
  type = string
}

variable "image" {
  type = string
}

variable "command" {
  type = list(string)
}

variable "args" {
  type    = list(string)
  default = []
}

variable "service_account" {
  type = string
}

variable "environment" {
  type = map(string)

  validation {
    condition     = alltrue([for name in keys(var.environment) : !can(regex("(?i)(token|password|secret|key)$", name))])
    error_message = "Secrets are read from Secret Manager, not from the environment."
  }
}

variable "cpu" {
  type = number
}

variable "memory_gib" {
  type = number

  validation {
    condition     = var.memory_gib >= 1 && var.memory_gib <= 4 * var.cpu
    error_message = "Cloud Run gives 4 GiB for each vCPU at most."
  }
}

variable "timeout_s" {
  type = number
}

variable "launch_stage" {
  type = string
}

variable "gpu" {
  description = "Which GPU; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.gpu == null || var.gpu == "nvidia-l4"
    error_message = "Memory and time are planned for nvidia-l4 only (schemas/catalogue, adaptml/planning)."
  }
}

variable "models_bucket" {
  description = "A bucket to be mounted, read-only."
  type        = string
  default     = null
}

variable "models_path" {
  type    = string
  default = "/models"
}

variable "kms_key" {
  type    = string
  default = null
}

variable "deletion_protection" {
  type = bool
}
