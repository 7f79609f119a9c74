variable "project_id" {
  type = string
}

variable "topics" {
  description = "Topic → name of the schema of its messages, or null."
  type        = map(string)
}

variable "schemas" {
  description = "Name → Avro definition."
  type        = map(string)

  validation {
    condition     = alltrue([for definition in values(var.schemas) : can(jsondecode(definition).fields)])
    error_message = "A schema is an Avro record as JSON."
  }
}

variable "dead_letters" {
  description = "Dead-letter topics."
  type        = set(string)
}

variable "listeners" {
  description = "Subscription to run-events → who reads it."
  type        = map(string)
}

variable "delivery" {
  type = object({
    ack_deadline_s        = number
    max_delivery_attempts = number
    minimum_backoff_s     = number
    maximum_backoff_s     = number
  })

  validation {
    condition     = var.delivery.ack_deadline_s >= 10 && var.delivery.ack_deadline_s <= 600
    error_message = "Pub/Sub waits for an acknowledgement from 10 to 600 seconds."
  }

  validation {
    condition     = var.delivery.max_delivery_attempts >= 5 && var.delivery.max_delivery_attempts <= 100
    error_message = "Pub/Sub gives a message up after 5 to 100 deliveries."
  }

  validation {
    condition     = var.delivery.minimum_backoff_s <= var.delivery.maximum_backoff_s && var.delivery.maximum_backoff_s <= 600
    error_message = "Pub/Sub waits 600 seconds at most between deliveries."
  }
}

variable "region" {
  type = string
}

variable "kms_key" {
  type    = string
  default = null
}

variable "agent" {
  description = "Pub/Sub's service agent, as a member."
  type        = string
}
