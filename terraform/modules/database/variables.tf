variable "location" {
  type = string
}

variable "kms_key" {
  type    = string
  default = null
}

variable "deletion_protection" {
  type = bool
}
