variable "name" {
  type = string
}

variable "project_id" {
  type = string
}

variable "location" {
  type = string
}

variable "image" {
  type = string
}

variable "command" {
  description = "In place of the image's own; null: the image's own."
  type        = list(string)
  default     = null
}

variable "service_account" {
  description = "The account that it runs as."
  type        = string
}

variable "invokers" {
  description = "Who may call it, and nobody else."
  type        = list(string)

  validation {
    condition     = alltrue([for member in var.invokers : can(regex("^serviceAccount:[^@ ]+@[^@ ]+$", member))])
    error_message = "An invoker is serviceAccount: with an address; people come through the proxy, and the public is none."
  }
}

variable "people" {
  description = "Whom Identity-Aware Proxy lets in; null: there is no proxy."
  type        = list(string)
  default     = null

  validation {
    condition     = var.people == null ? true : alltrue([for member in var.people : can(regex("^user:[^@ ]+@[^@ ]+$", member))])
    error_message = "People are user: with an address; the public is nobody."
  }
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
  description = "How long a request may take; a websocket is one for as long as it is open."
  type        = number

  validation {
    condition     = var.timeout_s >= 1 && var.timeout_s <= 3600
    error_message = "An hour at most."
  }
}

variable "max_instances" {
  type = number

  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 100
    error_message = "From 1 to 100: a service without a limit is a bill without one."
  }
}

variable "requests_at_once" {
  type = number

  validation {
    condition     = var.requests_at_once >= 1 && var.requests_at_once <= 1000
    error_message = "From 1 to 1000."
  }
}

variable "session_affinity" {
  description = "Whether a browser comes back to the instance that it was at."
  type        = bool
  default     = false
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

variable "calls_gcloud" {
  description = "Whether the proxy is switched on while Terraform applies."
  type        = bool
}
