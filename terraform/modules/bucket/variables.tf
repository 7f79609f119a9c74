variable "name" {
  type = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "location" {
  type = string
}

variable "overwritten_days" {
  description = "How long a generation stays that was overwritten or deleted."
  type        = number

  validation {
    condition     = var.overwritten_days >= 1
    error_message = "A day at least."
  }
}

variable "kms_key" {
  type    = string
  default = null
}

variable "deletion_protection" {
  type = bool
}
