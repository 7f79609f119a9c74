variable "name" {
  description = "The function's name, which is its entry point's, too."
  type        = string
}

variable "location" {
  type = string
}

variable "archive_bucket" {
  type = string
}

variable "archive_object" {
  type = string
}

variable "repository" {
  description = "Where the built image goes."
  type        = string
}

variable "builder" {
  description = "The account that builds, by its full name."
  type        = string
}

variable "service_account" {
  description = "The account that the function runs as."
  type        = string
}

variable "invokers" {
  description = "Who may call it, and nobody else."
  type        = list(string)

  validation {
    condition     = alltrue([for member in var.invokers : can(regex("^(user|serviceAccount):[^@ ]+@[^@ ]+$", member))])
    error_message = "An invoker is user: or serviceAccount: with an address; the public is none."
  }
}

variable "ingress" {
  description = "From where it can be reached."
  type        = string

  validation {
    condition     = contains(["ALLOW_INTERNAL_ONLY", "ALLOW_ALL"], var.ingress)
    error_message = "ALLOW_INTERNAL_ONLY or ALLOW_ALL."
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

  validation {
    condition     = contains([1, 2, 4, 8], var.cpu)
    error_message = "1, 2, 4 or 8; with less, only one request at a time would be possible."
  }
}

variable "memory" {
  type = string

  validation {
    condition     = can(regex("^[0-9]+(Mi|Gi)$", var.memory))
    error_message = "Memory is given in Mi or Gi."
  }
}

variable "max_instances" {
  type = number

  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 100
    error_message = "From 1 to 100: a function without a limit is a bill without one."
  }
}

variable "requests_at_once" {
  type = number

  validation {
    condition     = var.requests_at_once >= 1 && var.requests_at_once <= 80
    error_message = "From 1 to 80."
  }
}

variable "kms_key" {
  type    = string
  default = null
}
