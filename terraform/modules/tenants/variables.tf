variable "tenant" {
  type = string
}

variable "drops_bucket" {
  type = string
}

variable "artifacts_bucket" {
  type = string
}

variable "writers" {
  description = "Drop data, and read adapters."
  type        = list(string)
}

variable "readers" {
  description = "Read adapters."
  type        = list(string)
}
