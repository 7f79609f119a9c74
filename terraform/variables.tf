variable "project_id" {
  description = "The Google Cloud project, of AdaptML alone: some rights of Google's agents hold in all of it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "A project's id has 6 to 30 lower-case letters, digits and hyphens and begins with a letter."
  }
}

variable "region" {
  description = "Where everything is; Cloud Run must have NVIDIA L4 there."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region is a name like us-central1: a zone or a multi-region will not do."
  }
}

variable "bucket_prefix" {
  description = "Begins the buckets' names, which all of Google Cloud shares; the project's id where it is null."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_prefix == null || can(regex("^[a-z][a-z0-9-]{2,40}$", var.bucket_prefix))
    error_message = "A prefix has 3 to 41 lower-case letters, digits and hyphens and begins with a letter."
  }
}

variable "trainer_image" {
  description = "The trainer's image, by digest: what was tested is what runs."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9.-]+/.+@sha256:[0-9a-f]{64}$", var.trainer_image))
    error_message = "Name the image by its digest: REGION-docker.pkg.dev/PROJECT/REPOSITORY/trainer@sha256:…"
  }
}

variable "dashboard_image" {
  description = "The web page's image, by digest; it may be given where there is no page."
  type        = string
  default     = null

  validation {
    condition     = var.dashboard_image == null || can(regex("^[a-z0-9.-]+/.+@sha256:[0-9a-f]{64}$", var.dashboard_image))
    error_message = "Name the image by its digest: REGION-docker.pkg.dev/PROJECT/REPOSITORY/dashboard@sha256:…"
  }
}

variable "dashboard" {
  description = "The web page behind Identity-Aware Proxy, for the users that tenants name: {} for one as it is by default; null: none."
  type = object({
    cpu           = optional(number, 2)
    memory_gib    = optional(number, 4)
    max_instances = optional(number, 3)
  })
  default = null

  validation {
    condition     = var.dashboard == null || var.dashboard_image != null
    error_message = "The page needs its image: dashboard_image."
  }

  validation {
    condition     = var.dashboard == null ? true : contains([1, 2, 4, 8], var.dashboard.cpu) && var.dashboard.memory_gib >= 1 && var.dashboard.memory_gib <= 4 * var.dashboard.cpu
    error_message = "1, 2, 4 or 8 vCPU, and from 1 to 4 GiB for each."
  }

  validation {
    condition     = var.dashboard == null ? true : var.dashboard.max_instances >= 1 && var.dashboard.max_instances <= 20
    error_message = "From 1 to 20 instances: each holds 80 open pages."
  }
}

variable "playground" {
  description = "The service that the page's playground asks, on an L4 of its own: {} for one as it is by default; null: none. Its GPU is one of the region's quota: gpu_quota is one less then."
  type = object({
    cpu        = optional(number, 4)
    memory_gib = optional(number, 16)
  })
  default = null

  validation {
    condition     = var.playground == null || var.dashboard != null
    error_message = "The page alone may ask the playground: without one it is of no use."
  }

  validation {
    condition     = var.playground == null ? true : contains([4, 6, 8], var.playground.cpu)
    error_message = "An L4 goes with 4 to 8 vCPU: 4, 6 or 8."
  }

  validation {
    condition     = var.playground == null ? true : var.playground.memory_gib >= 16 && var.playground.memory_gib <= min(32, 4 * var.playground.cpu)
    error_message = "An L4 goes with 16 to 32 GiB, 4 for each vCPU at most."
  }
}

variable "functions_archive" {
  description = "What `make archive` builds; a path from this folder."
  type        = string
  default     = "../build/functions.zip"

  validation {
    condition     = endswith(var.functions_archive, ".zip")
    error_message = "The archive is a .zip file."
  }
}

variable "trainer" {
  description = "The job's machine. An execution may be given less time by its manifest, never more. Base models lie in the image where mount_models is false: a mount would hide them."
  type = object({
    cpu          = optional(number, 4)
    memory_gib   = optional(number, 16)
    timeout_s    = optional(number, 3600)
    launch_stage = optional(string, "BETA")
    mount_models = optional(bool, true)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains([4, 6, 8], var.trainer.cpu)
    error_message = "An L4 goes with 4 to 8 vCPU: 4, 6 or 8."
  }

  validation {
    condition     = var.trainer.memory_gib >= 16 && var.trainer.memory_gib <= 32 && floor(var.trainer.memory_gib) == var.trainer.memory_gib
    error_message = "An L4 goes with 16 to 32 GiB."
  }

  validation {
    condition     = var.trainer.timeout_s >= 600 && var.trainer.timeout_s <= 3600
    error_message = "A task with a GPU runs an hour at most; a longer training is split over attempts."
  }

  validation {
    condition     = contains(["BETA", "GA"], var.trainer.launch_stage)
    error_message = "BETA, which also takes what is generally available, or GA."
  }
}

variable "gpu_quota" {
  description = "Runs on a GPU at a time, of all tenants: not more than the region's quota of Cloud Run."
  type        = number
  default     = 3

  validation {
    condition     = var.gpu_quota >= 1 && var.gpu_quota <= 100 && floor(var.gpu_quota) == var.gpu_quota
    error_message = "From 1 to 100: one document holds all GPUs (docs/decisions.md)."
  }
}

variable "trace_ratio" {
  description = "Of how many runs the trace is kept, from 0 (nothing is traced) to 1. A run has some fifty spans."
  type        = number
  default     = 1

  validation {
    condition     = var.trace_ratio >= 0 && var.trace_ratio <= 1
    error_message = "A ratio is from 0 to 1."
  }
}

variable "tenants" {
  description = "Tenant → who may drop data into its folder and read its adapters (writers), who may only read adapters (readers), and which systems may ask for its runs by messages, on topics of its own (publishers)."
  type = map(object({
    writers    = optional(list(string), [])
    readers    = optional(list(string), [])
    publishers = optional(list(string), [])
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for tenant in keys(var.tenants) : can(regex("^[a-z0-9][a-z0-9-]{0,62}$", tenant))])
    error_message = "A tenant is a folder's name: lower-case letters, digits and hyphens."
  }

  validation {
    condition = alltrue([
      for member in flatten([for tenant in values(var.tenants) : concat(tenant.writers, tenant.readers, tenant.publishers)]) :
      can(regex("^(user|group|serviceAccount):[^@ ]+@[^@ ]+$", member))
    ])
    error_message = "Members are user:, group: or serviceAccount: with an address; the public is no member."
  }
}

variable "api_audiences" {
  description = "Whom ID tokens may have been made for besides the API itself: 32555940559.apps.googleusercontent.com for those of `gcloud auth print-identity-token`, which people have."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for audience in var.api_audiences : can(regex("^[^\\s\"]{8,}$", audience))])
    error_message = "An audience is a URL or a client's id."
  }
}

variable "requesters" {
  description = "Systems that may publish to run-requests and run-commands, for every tenant: yours. Those of a tenant are its publishers."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for member in var.requesters : can(regex("^(group|serviceAccount):[^@ ]+@[^@ ]+$", member))])
    error_message = "Members are group: or serviceAccount: with an address."
  }
}

variable "listeners" {
  description = "Subscriptions to run-events: name → service account that reads it."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for member in values(var.listeners) : can(regex("^serviceAccount:[^@ ]+@[^@ ]+$", member))])
    error_message = "A listener is serviceAccount: with an address."
  }
}

variable "notification_emails" {
  description = "Who hears of alerts and of the budget."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for address in var.notification_emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "These are e-mail addresses."
  }
}

variable "budget" {
  description = "What a month may cost before somebody hears of it; null: no budget, as whoever applies has no right on the billing account."
  type = object({
    billing_account = string
    monthly_usd     = number
  })
  default = null

  validation {
    condition     = var.budget == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.budget.billing_account))
    error_message = "A billing account is XXXXXX-XXXXXX-XXXXXX."
  }

  validation {
    condition     = var.budget == null || try(var.budget.monthly_usd > 0, false)
    error_message = "A budget is more than nothing."
  }
}

variable "gpu_hours_a_day" {
  description = "GPU hours within a day that are worth an alert: a budget is a day late, this is not."
  type        = number
  default     = 24

  validation {
    condition     = var.gpu_hours_a_day > 0
    error_message = "More than nothing."
  }
}

variable "retention" {
  description = "Days: how long a generation stays that was overwritten or deleted, and how long the checkpoints of a run that failed or was cancelled, from which RESUME goes on."
  type = object({
    overwritten_drops_days     = optional(number, 30)
    overwritten_artifacts_days = optional(number, 14)
    overwritten_models_days    = optional(number, 3)
    checkpoints_days           = optional(number, 14)
  })
  default  = {}
  nullable = false

  validation {
    # A run trains on the generations that it pinned, also when it waited for a GPU; the sweep looks two days back.
    condition     = var.retention.overwritten_drops_days >= 7
    error_message = "Data that a waiting run has pinned must stay: 7 days at least."
  }

  validation {
    condition     = var.retention.overwritten_artifacts_days >= 7 && var.retention.overwritten_models_days >= 1
    error_message = "7 days at least for artifacts, 1 for models."
  }

  validation {
    condition     = var.retention.checkpoints_days >= 2
    error_message = "An execution that was cut off is waited for a day; a user needs one to find out: 2 days at least."
  }
}

variable "kms_key" {
  description = "A key of yours in the region for all that is stored (CMEK); null: keys that Google keeps."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "A key is projects/P/locations/L/keyRings/R/cryptoKeys/K."
  }
}

variable "labels" {
  description = "Added to all that can have labels."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "deletion_protection" {
  description = "Whether job, database and buckets with objects in them refuse to be destroyed."
  type        = bool
  default     = true
  nullable    = false
}

variable "calls_gcloud" {
  description = "Whether Terraform sets how Eventarc's subscriptions deliver, with gcloud of the machine that it runs on; false: a later step does, see output delivery."
  type        = bool
  default     = true
  nullable    = false
}

variable "base_models" {
  description = "What the job adaptml-prepare prepares: ids of the catalogue (docs/models.md), of 4 billion parameters at most."
  type        = list(string)
  default     = ["HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-2b-it"]
  nullable    = false

  validation {
    condition     = length(var.base_models) > 0 && alltrue([for model in var.base_models : can(regex("^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", model))])
    error_message = "A base model is ORGANISATION/NAME."
  }
}
