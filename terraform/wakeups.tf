# What wakes the reconciler: a tick, and sooner the end of an execution. Both go through its topic, so that one trigger,
# serial, takes them all.
resource "google_cloud_scheduler_job" "tick" {
  for_each = {
    tick  = { schedule = "* * * * *", body = {}, description = "Looks after runs that are under way" }
    sweep = { schedule = "*/10 * * * *", body = { sweep_drops = true }, description = "Looks for drops whose event was lost, too" }
  }

  name        = "adaptml-${each.key}"
  region      = var.region
  schedule    = each.value.schedule
  description = each.value.description
  time_zone   = "Etc/UTC"

  pubsub_target {
    topic_name = module.topics.ids["reconcile"]
    data       = base64encode(jsonencode(each.value.body))
  }

  depends_on = [google_project_service.used, google_pubsub_topic_iam_member.wakeups]
}

# No Eventarc event says that an execution has ended; Cloud Run's own entry in the audit log does. Should it ever change
# its form, the tick does the same a minute later.
resource "google_logging_project_sink" "ended_executions" {
  name                   = "adaptml-ended-executions"
  destination            = "pubsub.googleapis.com/${module.topics.ids["reconcile"]}"
  unique_writer_identity = true
  filter                 = <<-EOT
    resource.type="cloud_run_job"
    resource.labels.job_name="${local.environment.ADAPTML_TRAINER_JOB}"
    logName="projects/${var.project_id}/logs/cloudaudit.googleapis.com%2Fsystem_event"
    protoPayload.methodName="/Jobs.RunJob"
  EOT
}
