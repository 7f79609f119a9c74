variable "name" {
  type = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,61}[a-z0-9]$", var.name))
    error_message = "A trigger's name has up to 63 lower-case letters, digits and hyphens."
  }
}

variable "project_id" {
  type = string
}

variable "location" {
  description = "The bucket's region, for events of a bucket."
  type        = string
}

variable "service" {
  description = "The Cloud Run service that is called."
  type        = string
}

variable "service_account" {
  description = "Whom it is called as."
  type        = string
}

variable "event" {
  description = "The type of an event of a bucket; null where a topic calls."
  type        = string
  default     = null
}

variable "bucket" {
  type    = string
  default = null

  validation {
    condition     = (var.bucket == null) == (var.event == null)
    error_message = "An event is one of a bucket."
  }
}

variable "topic" {
  type    = string
  default = null

  validation {
    condition     = (var.topic == null) != (var.event == null)
    error_message = "Either an event of a bucket or a topic calls."
  }
}

variable "dead_letter" {
  description = "Where messages go that the function refuses; null: delivered until they are taken."
  type        = string
  default     = null
}

variable "delivery" {
  type = object({
    ack_deadline_s        = number
    max_delivery_attempts = number
    minimum_backoff_s     = number
    maximum_backoff_s     = number
  })
}

variable "agent" {
  description = "Pub/Sub's service agent, as a member."
  type        = string
}

variable "calls_gcloud" {
  description = "Whether the subscription is updated while Terraform applies."
  type        = bool
}
