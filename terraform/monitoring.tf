module "alerts" {
  source = "./modules/alerts"

  project_id      = var.project_id
  emails          = var.notification_emails
  job             = module.trainer.name
  functions       = local.functions
  subscriptions   = { for name, trigger in module.triggers : name => basename(trigger.subscription) }
  dead_letters    = keys(local.dead_letters)
  stuck_s         = 900
  gpu_hours_a_day = var.gpu_hours_a_day

  depends_on = [google_project_service.used]
}

resource "google_billing_budget" "month" {
  count = var.budget == null ? 0 : 1

  billing_account = var.budget.billing_account
  display_name    = "AdaptML"

  budget_filter {
    projects               = ["projects/${data.google_project.this.number}"]
    credit_types_treatment = "INCLUDE_ALL_CREDITS"
  }

  amount {
    specified_amount {
      currency_code = "USD"
      units         = tostring(floor(var.budget.monthly_usd))
    }
  }

  dynamic "threshold_rules" {
    for_each = { half = [0.5, "CURRENT_SPEND"], most = [0.9, "CURRENT_SPEND"], all = [1.0, "CURRENT_SPEND"], will_be_more = [1.0, "FORECASTED_SPEND"] }
    content {
      threshold_percent = threshold_rules.value[0]
      spend_basis       = threshold_rules.value[1]
    }
  }

  # Billing's administrators hear of it in any case.
  dynamic "all_updates_rule" {
    for_each = length(var.notification_emails) == 0 ? [] : [module.alerts.channels]
    content {
      monitoring_notification_channels = all_updates_rule.value
      disable_default_iam_recipients   = false
    }
  }
}
