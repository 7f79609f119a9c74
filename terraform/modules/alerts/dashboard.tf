locals {
  charts = [
    {
      title   = "Executions that ended, by result"
      lines   = { "" = "metric.type=\"run.googleapis.com/job/completed_execution_count\" resource.type=\"cloud_run_job\" resource.label.job_name=\"${var.job}\"" }
      aligner = "ALIGN_DELTA"
      by      = ["metric.label.result"]
    },
    {
      title   = "Executions under way"
      lines   = { "" = "metric.type=\"run.googleapis.com/job/running_executions\" resource.type=\"cloud_run_job\" resource.label.job_name=\"${var.job}\"" }
      aligner = "ALIGN_MAX"
      by      = []
    },
    {
      title   = "GPU seconds that are paid for"
      lines   = { "" = "metric.type=\"run.googleapis.com/container/billable_instance_time\" resource.type=\"cloud_run_job\" resource.label.job_name=\"${var.job}\"" }
      aligner = "ALIGN_DELTA"
      by      = []
    },
    {
      title   = "Oldest message that waits for its function, seconds"
      lines   = { "" = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" resource.type=\"pubsub_subscription\"" }
      aligner = "ALIGN_MAX"
      by      = ["resource.label.subscription_id"]
    },
    {
      title   = "Calls of functions, by answer"
      lines   = { "" = "metric.type=\"run.googleapis.com/request_count\" resource.type=\"cloud_run_revision\"" }
      aligner = "ALIGN_DELTA"
      by      = ["resource.label.service_name", "metric.label.response_code_class"]
    },
    {
      title   = "Time of calls, 95 %"
      lines   = { "" = "metric.type=\"run.googleapis.com/request_latencies\" resource.type=\"cloud_run_revision\"" }
      aligner = "ALIGN_PERCENTILE_95"
      by      = ["resource.label.service_name"]
    },
    {
      title   = "Messages published to dead-letter topics"
      lines   = { "" = "metric.type=\"pubsub.googleapis.com/topic/send_message_operation_count\" resource.type=\"pubsub_topic\" resource.label.topic_id=one_of(${join(",", [for topic in var.dead_letters : "\"${topic}\""])})" }
      aligner = "ALIGN_DELTA"
      by      = ["resource.label.topic_id"]
    },
    {
      title   = "Runs that FAILED, by code"
      lines   = { for told, filter in local.counted.failed_runs : "$${metric.labels.code} (${told})" => filter }
      aligner = "ALIGN_DELTA"
      by      = ["metric.label.code"]
    },
    {
      title   = "What else the logs say"
      lines   = { for name, filters in local.counted : name => one(values(filters)) if name != "failed_runs" }
      aligner = "ALIGN_DELTA"
      by      = []
    },
  ]
}

resource "google_monitoring_dashboard" "this" {
  project = var.project_id

  dashboard_json = jsonencode({
    displayName = "AdaptML"
    mosaicLayout = {
      columns = 12
      tiles = [for index, chart in local.charts : {
        xPos   = index % 2 * 6
        yPos   = floor(index / 2) * 4
        width  = 6
        height = 4
        widget = {
          title = chart.title
          xyChart = {
            dataSets = [for name, filter in chart.lines : {
              plotType       = "LINE"
              legendTemplate = name
              timeSeriesQuery = {
                timeSeriesFilter = {
                  filter = filter
                  aggregation = {
                    alignmentPeriod    = "300s"
                    perSeriesAligner   = chart.aligner
                    crossSeriesReducer = contains(["ALIGN_MAX", "ALIGN_PERCENTILE_95"], chart.aligner) ? "REDUCE_MAX" : "REDUCE_SUM"
                    groupByFields      = chart.by
                  }
                }
              }
            }]
          }
        }
      }]
    }
  })
}
