variable "project_id" {
  type = string
}

variable "emails" {
  description = "Who hears of alerts."
  type        = list(string)
}

variable "job" {
  description = "The trainer's job."
  type        = string
}

variable "functions" {
  type = list(string)
}

variable "subscriptions" {
  description = "Trigger → id of the subscription by which it is called."
  type        = map(string)
}

variable "dead_letters" {
  description = "Dead-letter topics."
  type        = list(string)
}

variable "stuck_s" {
  description = "A message that waits longer is worth an alert. Longer than what delivers it again takes at most."
  type        = number

  validation {
    condition     = var.stuck_s >= 600
    error_message = "A function may take its whole acknowledgement deadline."
  }
}

variable "gpu_hours_a_day" {
  type = number
}
