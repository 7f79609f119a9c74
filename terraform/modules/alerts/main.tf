resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.emails)

  display_name = "AdaptML: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
}

# What only the logs say (adaptml/logs.py). A test holds each pattern to the line of code that it is made for.
locals {
  of_job       = "resource.type=\"cloud_run_job\" AND resource.labels.job_name=\"${var.job}\""
  of_functions = "resource.type=\"cloud_run_revision\" AND (${join(" OR ", [for name in var.functions : "resource.labels.service_name=\"${name}\""])})"

  metrics = {
    # Trainer, dispatcher and reconciler end runs; an end is told by whoever announces it, once more where
    # that one died meanwhile.
    failed_runs = {
      description = "Runs that ended FAILED, by the code of their error"
      filter      = "((${local.of_job}) OR (${local.of_functions})) AND severity=WARNING AND jsonPayload.message=~\"^run .* is FAILED( [(][a-z_]+[)])?$\""
      label       = { code = "REGEXP_EXTRACT(jsonPayload.message, \"[(]([a-z_]+)[)]$\")" }
    }
    failed_attempts = {
      description = "Attempts at a run that ended with an error"
      filter      = "${local.of_job} AND severity=ERROR AND jsonPayload.message=~\"^attempt [0-9]+ of .* ended: \""
    }
    dead_letters = {
      description = "Messages that no function took"
      filter      = "${local.of_functions} AND severity=ERROR AND jsonPayload.message=~\"^dead letter \""
    }
    not_reconciled = {
      description = "Runs that the reconciler could not help, drops that it could not take in, folders that it could not empty, documents that it could not read"
      filter      = "${local.of_functions} AND severity=ERROR AND jsonPayload.message=~\"(could not be reconciled|could not be taken in|could not be deleted|cannot be read: )\""
    }
    unannounced = {
      description = "Changes whose announcement failed and is left to the reconciler"
      filter      = "${local.of_functions} AND severity=WARNING AND jsonPayload.message=~\"^announcement of .* failed: \""
    }
    unknown_starts = {
      description = "Starts of the job whose outcome is not known"
      filter      = "${local.of_functions} AND severity=WARNING AND jsonPayload.message=~\"^outcome of starting \""
    }
  }
}

resource "google_logging_metric" "this" {
  for_each = local.metrics

  name        = "adaptml/${each.key}"
  description = each.value.description
  filter      = each.value.filter

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    dynamic "labels" {
      for_each = try(each.value.label, {})
      content {
        key        = labels.key
        value_type = "STRING"
      }
    }
  }

  label_extractors = try(each.value.label, {})
}

locals {
  of_subscriptions = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = one_of(${join(", ", [for id in values(var.subscriptions) : "\"${id}\""])})"

  # A metric of logs is of the resource that logged. Cloud Monitoring wants one kind of resource in a filter, so what
  # both functions and job log is asked for twice.
  counted = {
    for name, metric in google_logging_metric.this : name => {
      for resource, told in { cloud_run_job = "job", cloud_run_revision = "functions" } :
      told => "metric.type = \"logging.googleapis.com/user/${metric.name}\" AND resource.type = \"${resource}\""
      if strcontains(metric.filter, "\"${resource}\"")
    }
  }

  # `filters` are conditions, of which any one suffices; `by` is what each has an incident of its own for.
  # docs/operations.md has an entry for each: a test holds it.
  alerts = {
    dead_letters = {
      name     = "Messages that no function took"
      severity = "ERROR"
      filters  = local.counted.dead_letters
      by       = []
      aligner  = "ALIGN_DELTA"
      period   = 300
      above    = 0
      duration = 0
      to_do    = "`adaptml dead-letters` lists them with their reasons. Remove the cause, then `adaptml dead-letters replay --all`."
    }
    failed_runs = {
      name     = "A run FAILED"
      severity = "WARNING"
      filters  = local.counted.failed_runs
      by       = ["metric.label.code"]
      aligner  = "ALIGN_DELTA"
      period   = 300
      above    = 0
      duration = 0
      to_do    = "The code is in the incident's labels, which run it was in the log (`jsonPayload.run_id`), the whole error in Firestore, `runs/{run_id}`. docs/errors.md says what each code asks for, and of whom."
    }
    failed_executions = {
      name     = "Executions fail one after the other"
      severity = "ERROR"
      filters  = { job = "metric.type = \"run.googleapis.com/job/completed_execution_count\" AND resource.type = \"cloud_run_job\" AND resource.labels.job_name = \"${var.job}\" AND metric.labels.result = \"failed\"" }
      by       = []
      aligner  = "ALIGN_DELTA"
      period   = 3600
      above    = 2
      duration = 0
      to_do    = "Three executions of the job failed within an hour: more than one bad run. Their runs are tried again until `max_attempts`, and each try is paid for. The job's log says why: image, driver, models bucket, or rights."
    }
    stuck_queue = {
      name     = "Messages wait for their function"
      severity = "ERROR"
      filters  = { subscriptions = "metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.of_subscriptions}" }
      by       = []
      aligner  = "ALIGN_MAX"
      period   = 60
      above    = var.stuck_s
      duration = 300
      to_do    = "The function named like the subscription does not take its messages: look at its errors in the log."
    }
    not_reconciled = {
      name     = "The reconciler cannot help"
      severity = "ERROR"
      filters  = local.counted.not_reconciled
      by       = []
      aligner  = "ALIGN_DELTA"
      period   = 600
      above    = 2
      duration = 0
      to_do    = "The log says which run and why. A document that cannot be read was changed by hand."
    }
    spend = {
      name     = "More GPU time than expected"
      severity = "WARNING"
      filters  = { job = "metric.type = \"run.googleapis.com/container/billable_instance_time\" AND resource.type = \"cloud_run_job\" AND resource.labels.job_name = \"${var.job}\"" }
      by       = []
      aligner  = "ALIGN_DELTA"
      period   = 86400
      above    = var.gpu_hours_a_day * 3600
      duration = 0
      to_do    = "`runs` by `cost_usd` in Firestore say whose. Limits of tenants end it: docs/operations.md, \"Limits and quota\"."
    }
  }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.alerts

  display_name          = "AdaptML: ${each.value.name}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]

  dynamic "conditions" {
    for_each = each.value.filters
    content {
      display_name = length(each.value.filters) == 1 ? each.value.name : "${each.value.name}, says the log of the ${conditions.key}"

      condition_threshold {
        filter          = conditions.value
        comparison      = "COMPARISON_GT"
        threshold_value = each.value.above
        duration        = "${each.value.duration}s"

        aggregations {
          alignment_period     = "${each.value.period}s"
          per_series_aligner   = each.value.aligner
          cross_series_reducer = each.value.aligner == "ALIGN_MAX" ? "REDUCE_NONE" : "REDUCE_SUM"
          group_by_fields      = each.value.by
        }

        trigger {
          count = 1
        }
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "${each.value.to_do}\n\ndocs/operations.md, \"${each.value.name}\", says more."
  }

  alert_strategy {
    auto_close = "86400s"
  }
}

# The watchman's own alert: without its tick nobody notices what died.
resource "google_monitoring_alert_policy" "no_tick" {
  display_name          = "AdaptML: The reconciler is not called"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]

  conditions {
    display_name = "No call in 15 minutes"

    condition_absent {
      filter   = "metric.type = \"run.googleapis.com/request_count\" AND resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"reconcile\" AND metric.labels.response_code_class = \"2xx\""
      duration = "900s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }

      trigger {
        count = 1
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Runs that are under way go on, but what dies stays dead. Look at the jobs adaptml-tick and adaptml-sweep of Cloud Scheduler, and at the function's log.\n\ndocs/operations.md, \"The reconciler is not called\", says more."
  }

  alert_strategy {
    auto_close = "86400s"
  }
}
