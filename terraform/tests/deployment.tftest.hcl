# What the provider's schema does not know: values, and what belongs together. Nothing is asked of Google: a mocked
# provider makes up what Google would.
mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }

  mock_data "google_storage_project_service_account" {
    defaults = { member = "serviceAccount:service-123456789012@gs-project-accounts.iam.gserviceaccount.com" }
  }
}

variables {
  project_id        = "adaptml-test"
  trainer_image     = "us-central1-docker.pkg.dev/adaptml-test/adaptml/trainer@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  functions_archive = "tests/empty.zip"
}

run "defaults" {
  command = plan

  # The job.
  assert {
    condition     = module.trainer.job.template[0].template[0].gpu_zonal_redundancy_disabled == true
    error_message = "Zonal redundancy costs a third more and is not needed."
  }
  assert {
    condition     = one(module.trainer.job.template[0].template[0].node_selector).accelerator == "nvidia-l4" && module.trainer.job.template[0].template[0].containers[0].resources[0].limits["nvidia.com/gpu"] == "1"
    error_message = "The trainer runs on one NVIDIA L4."
  }
  assert {
    condition     = contains(["4", "6", "8"], module.trainer.job.template[0].template[0].containers[0].resources[0].limits["cpu"]) && contains([for gib in range(16, 33) : "${gib}Gi"], module.trainer.job.template[0].template[0].containers[0].resources[0].limits["memory"])
    error_message = "An L4 goes with 4 to 8 vCPU and 16 to 32 GiB."
  }
  assert {
    condition     = module.trainer.job.template[0].template[0].timeout == "3600s"
    error_message = "A task with a GPU runs an hour at most, and ten minutes if nothing is said."
  }
  assert {
    condition     = module.trainer.job.template[0].template[0].max_retries == 0 && module.prepare.job.template[0].template[0].max_retries == 0
    error_message = "The reconciler decides on retries."
  }
  assert {
    condition     = module.trainer.job.template[0].task_count == 1 && module.trainer.job.template[0].parallelism == 1
    error_message = "An execution is one task."
  }
  assert {
    condition     = module.trainer.job.deletion_protection
    error_message = "The job must not be destroyed by a slip."
  }
  assert {
    condition     = one(one(module.trainer.job.template[0].template[0].volumes).gcs).read_only && one(module.trainer.job.template[0].template[0].containers[0].volume_mounts).mount_path == "/models"
    error_message = "The base models are mounted where the trainer looks, and cannot be written there."
  }
  assert {
    condition     = length(module.prepare.job.template[0].template[0].node_selector) == 0 && !can(module.prepare.job.template[0].template[0].containers[0].resources[0].limits["nvidia.com/gpu"])
    error_message = "Preparing models needs no GPU."
  }

  # The functions.
  assert {
    condition     = { for name, function in module.functions : name => function.function.service_config[0].ingress_settings if function.function.service_config[0].ingress_settings != "ALLOW_INTERNAL_ONLY" } == { api = "ALLOW_ALL" }
    error_message = "Nobody outside may reach a function but the API."
  }
  assert {
    condition     = !anytrue([for function in values(module.functions) : contains(keys(function.function.service_config[0].environment_variables), "ADAPTML_API_TOKENS")])
    error_message = "Tokens of development are for the local cloud."
  }
  assert {
    condition     = jsondecode(module.functions["api"].function.service_config[0].environment_variables["ADAPTML_API_MEMBERS"]) == {}
    error_message = "Without tenants nobody is let in by the API."
  }
  assert {
    condition     = alltrue([for function in values(module.functions) : function.function.service_config[0].timeout_seconds < local.topology.delivery.ack_deadline_s])
    error_message = "A function must end before its message is delivered again."
  }
  assert {
    condition     = module.functions["reconcile"].function.service_config[0].max_instance_count == 1 && module.functions["reconcile"].function.service_config[0].max_instance_request_concurrency == 1
    error_message = "The reconciler is serial."
  }
  assert {
    condition     = alltrue([for name, function in module.functions : function.function.build_config[0].entry_point == name && function.function.build_config[0].runtime == "python311"])
    error_message = "A function is built for the Python that its requirements were resolved for."
  }

  # What calls them.
  assert {
    condition     = toset([for criterion in module.triggers["intake"].trigger.matching_criteria : "${criterion.attribute}=${criterion.value}"]) == toset(["type=google.cloud.storage.object.v1.finalized", "bucket=adaptml-test-drops"])
    error_message = "Intake is called for each finalized object of the drops bucket."
  }
  assert {
    condition = {
      for name, trigger in module.triggers : name => basename(trigger.trigger.transport[0].pubsub[0].topic) if length(trigger.trigger.transport) > 0
      } == merge(
      { requests = "run-requests", commands = "run-commands", dispatch = "run-ready", reconcile = "reconcile" },
      { for topic in ["run-requests", "run-commands", "run-ready", "run-events", "reconcile", "storage-notifications"] : "undelivered-${topic}-dead" => "${topic}-dead" },
    )
    error_message = "Each topic that calls a function has a trigger, and so has each dead-letter topic."
  }
  assert {
    condition = alltrue([
      for name, trigger in module.triggers :
      trigger.delivery.ack_deadline_s == 600 && trigger.delivery.minimum_backoff_s == 1 && trigger.delivery.maximum_backoff_s == 60
    ])
    error_message = "Each subscription delivers as schemas/topology.yaml says."
  }
  assert {
    condition = { for name, trigger in module.triggers : name => basename(trigger.delivery.dead_letter_topic) if trigger.delivery.dead_letter_topic != null } == {
      intake    = "storage-notifications-dead"
      requests  = "run-requests-dead"
      commands  = "run-commands-dead"
      dispatch  = "run-ready-dead"
      reconcile = "reconcile-dead"
    }
    error_message = "What a function refuses goes to the dead-letter topic of what called it; what is there is delivered until it is taken."
  }
  assert {
    condition     = alltrue([for trigger in values(module.triggers) : trigger.delivery.max_delivery_attempts == 10 if trigger.delivery.dead_letter_topic != null])
    error_message = "A message is given up after ten deliveries."
  }
  assert {
    condition = module.triggers["intake"].command == join(" ", [
      "gcloud pubsub subscriptions update 'projects/adaptml-test/subscriptions/eventarc-us-central1-intake' --project='adaptml-test' --quiet",
      "--ack-deadline=600 --min-retry-delay=1s --max-retry-delay=60s --message-retention-duration=604800s --expiration-period=never",
      "--dead-letter-topic='projects/adaptml-test/topics/storage-notifications-dead' --max-delivery-attempts=10",
    ])
    error_message = "The command says of a subscription what is said of its delivery."
  }
  assert {
    condition     = { for name, job in google_cloud_scheduler_job.tick : name => "${job.schedule} ${base64decode(job.pubsub_target[0].data)}" } == { tick = "* * * * * {}", sweep = "*/10 * * * * {\"sweep_drops\":true}" }
    error_message = "The reconciler is woken each minute, and looks through the bucket every ten."
  }
  assert {
    condition     = strcontains(google_logging_project_sink.ended_executions.filter, "resource.labels.job_name=\"adaptml-trainer\"") && endswith(google_logging_project_sink.ended_executions.destination, "/topics/reconcile")
    error_message = "The end of an execution wakes the reconciler."
  }

  # Topics.
  assert {
    condition     = toset([for name, topic in module.topics.topics : name if try(topic.schema_settings[0].encoding == "JSON", false)]) == toset(["run-requests", "run-commands", "run-ready", "run-events"])
    error_message = "Pub/Sub enforces the schema of every topic but the reconciler's."
  }

  # Buckets.
  assert {
    condition     = alltrue([for bucket in values(module.buckets) : bucket.bucket.uniform_bucket_level_access && bucket.bucket.public_access_prevention == "enforced" && bucket.bucket.versioning[0].enabled])
    error_message = "Buckets are versioned, and never public."
  }
  assert {
    condition = alltrue([
      for rule in flatten([for bucket in values(module.buckets) : bucket.bucket.lifecycle_rule]) :
      one(rule.action).type == "AbortIncompleteMultipartUpload" ? true : one(rule.action).type == "Delete" && one(rule.condition).with_state == "ARCHIVED" && one(rule.condition).days_since_noncurrent_time >= 3
    ])
    error_message = "No lifecycle rule deletes a live object: the audit trail is one of them."
  }
  assert {
    condition     = one([for rule in module.buckets["drops"].bucket.lifecycle_rule : one(rule.condition).days_since_noncurrent_time if one(rule.action).type == "Delete"]) >= 7
    error_message = "What a waiting run has pinned must stay when it is overwritten."
  }
  assert {
    condition     = !anytrue([for bucket in values(module.buckets) : bucket.bucket.force_destroy])
    error_message = "A bucket with objects must not be destroyed."
  }

  # Firestore.
  assert {
    condition     = module.database.database.database.type == "FIRESTORE_NATIVE" && module.database.database.database.name == "(default)"
    error_message = "The clients open the default database, in native mode."
  }
  assert {
    condition     = module.database.database.database.point_in_time_recovery_enablement == "POINT_IN_TIME_RECOVERY_ENABLED" && module.database.database.database.delete_protection_state == "DELETE_PROTECTION_ENABLED"
    error_message = "A slip can be taken back for a week, and the database cannot be deleted."
  }
  assert {
    condition     = module.database.database.ttl.collection == "events" && module.database.database.ttl.field == "expire_at" && length(module.database.database.ttl.ttl_config) == 1
    error_message = "Audit events go when their time is past."
  }

  # Rights.
  assert {
    condition     = alltrue([for right in output.rights : right.why != "" && !contains(["roles/owner", "roles/editor", "roles/viewer"], right.role)])
    error_message = "Each right has a reason, and none is a basic role."
  }
  assert {
    condition     = alltrue([for member in values(google_project_iam_member.granted) : length(member.condition) == 1 || contains(["roles/eventarc.eventReceiver", "roles/logging.logWriter", "roles/telemetry.tracesWriter"], member.role)])
    error_message = "What can only be given on the project is narrowed by a condition, or does nothing but what its reason says."
  }
  assert {
    condition     = toset([for member in values(google_cloud_run_v2_job_iam_member.granted) : "${member.name} ${basename(member.role)}"]) == toset(["adaptml-trainer adaptmlJobStarter", "adaptml-trainer adaptmlExecutionKeeper"])
    error_message = "Only executions of the trainer's job are started, read and cancelled."
  }
  assert {
    condition     = google_project_iam_custom_role.job_starter.permissions == toset(["run.jobs.run", "run.jobs.runWithOverrides"])
    error_message = "Who starts the job may do nothing else with it."
  }
  assert {
    condition     = length(google_service_account.part) == length(local.functions) + 4
    error_message = "Each part has an account of its own."
  }
  assert {
    condition     = length(module.dashboard) == 0 && length(module.playground) == 0 && output.dashboard_url == null && output.playground_url == null && !contains(keys(google_project_service.used), "iap")
    error_message = "Nobody has a page or a playground who did not ask for one."
  }

  # Somebody hears of it.
  assert {
    condition     = toset(keys(module.alerts.policies)) == toset(["dead_letters", "failed_runs", "failed_executions", "stuck_queue", "not_reconciled", "spend", "no_tick"])
    error_message = "There is an alert for dead letters, failed runs, a stuck queue and spending."
  }
  assert {
    condition     = length(module.alerts.policies["failed_runs"].conditions) == 2 && module.alerts.policies["failed_runs"].combiner == "OR"
    error_message = "A run that fails is told of by functions or by the job."
  }
  assert {
    condition     = alltrue([for policy in values(module.alerts.policies) : length(one(policy.documentation).content) > 40])
    error_message = "An alert says what to do."
  }
  assert {
    condition     = length(google_billing_budget.month) == 0
    error_message = "Without a billing account there is no budget."
  }
}

run "everything_that_can_be_chosen" {
  command = plan

  variables {
    tenants             = { acme = { writers = ["group:ml@example.com"], readers = ["serviceAccount:serving@example.iam.gserviceaccount.com"] } }
    requesters          = ["serviceAccount:nightly@example.iam.gserviceaccount.com"]
    listeners           = { serving = "serviceAccount:serving@example.iam.gserviceaccount.com" }
    notification_emails = ["ml@example.com"]
    budget              = { billing_account = "012345-6789AB-CDEF01", monthly_usd = 250 }
    kms_key             = "projects/keys/locations/us-central1/keyRings/ring/cryptoKeys/key"
    trainer             = { cpu = 8, memory_gib = 32, timeout_s = 1800, mount_models = false }
    calls_gcloud        = false
    bucket_prefix       = "acme-adaptml"
    deletion_protection = false
  }

  assert {
    condition     = jsondecode(module.functions["api"].function.service_config[0].environment_variables["ADAPTML_API_MEMBERS"]) == { "serving@example.iam.gserviceaccount.com" = { acme = "reader" } }
    error_message = "The API knows the tenants' members by name, and what they may."
  }
  assert {
    condition     = output.drops == "gs://acme-adaptml-drops" && output.environment.ADAPTML_MODELS_BUCKET == "acme-adaptml-models"
    error_message = "The buckets have the prefix that was asked for."
  }
  assert {
    condition     = module.trainer.job.template[0].template[0].containers[0].resources[0].limits["memory"] == "32Gi" && module.trainer.job.template[0].template[0].timeout == "1800s"
    error_message = "The machine is the one that was asked for."
  }
  assert {
    condition     = length(module.trainer.job.template[0].template[0].volumes) == 0 && length(module.trainer.job.template[0].template[0].containers[0].volume_mounts) == 0
    error_message = "Nothing hides the models of the image."
  }
  assert {
    condition     = one(module.topics.listeners["serving"].dead_letter_policy).max_delivery_attempts == 10 && endswith(one(module.topics.listeners["serving"].dead_letter_policy).dead_letter_topic, "/run-events-dead")
    error_message = "What a listener refuses is a dead letter of run-events."
  }
  assert {
    condition     = one(module.topics.listeners["serving"].retry_policy).minimum_backoff == "1s" && one(module.topics.listeners["serving"].retry_policy).maximum_backoff == "60s" && one(module.topics.listeners["serving"].expiration_policy).ttl == ""
    error_message = "A listener is waited for as a function is, and its subscription does not expire."
  }
  assert {
    condition     = google_billing_budget.month[0].amount[0].specified_amount[0].units == "250" && length(google_billing_budget.month[0].threshold_rules) == 4
    error_message = "The budget is the one that was asked for."
  }
  assert {
    condition     = alltrue([for bucket in values(module.buckets) : one(bucket.bucket.encryption).default_kms_key_name == var.kms_key]) && alltrue([for topic in values(module.topics.topics) : topic.kms_key_name == var.kms_key]) && one(module.database.database.database.cmek_config).kms_key_name == var.kms_key && module.trainer.job.template[0].template[0].encryption_key == var.kms_key
    error_message = "With a key of one's own everything is kept under it."
  }
  assert {
    condition     = alltrue([for bucket in values(module.buckets) : bucket.bucket.force_destroy])
    error_message = "A deployment for a test can be destroyed."
  }
}

run "a_page_and_a_playground" {
  command = plan

  variables {
    dashboard_image = "us-central1-docker.pkg.dev/adaptml-test/adaptml/dashboard@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    dashboard       = {}
    playground      = {}
  }

  # Who may call what.
  assert {
    condition     = module.dashboard[0].invokers == ["serviceAccount:service-123456789012@gcp-sa-iap.iam.gserviceaccount.com"]
    error_message = "Nobody calls the page but the proxy, which lets nobody in but people of tenants."
  }
  assert {
    condition     = module.playground[0].invokers == ["serviceAccount:adaptml-dashboard@adaptml-test.iam.gserviceaccount.com"]
    error_message = "The page alone calls the playground."
  }
  assert {
    condition     = module.dashboard[0].people == [] && module.playground[0].people == []
    error_message = "Without tenants nobody is let in by the proxy."
  }
  assert {
    condition     = !anytrue([for face in concat(module.dashboard, module.playground) : face.service.invoker_iam_disabled])
    error_message = "Cloud Run looks at who calls."
  }
  assert {
    condition     = module.dashboard[0].service.template[0].service_account == "adaptml-dashboard@adaptml-test.iam.gserviceaccount.com" && module.playground[0].service.template[0].service_account == "adaptml-playground@adaptml-test.iam.gserviceaccount.com"
    error_message = "Each face has an account of its own."
  }
  assert {
    condition     = toset([for right in output.rights : "${right.on} ${basename(right.role)}" if right.part == "playground"]) == toset(["artifacts storage.objectViewer", "models storage.objectViewer"])
    error_message = "The playground reads adapters and base models, and may nothing else."
  }
  assert {
    condition     = toset([for right in output.rights : "${right.kind} ${right.on}" if right.part == "dashboard" && !contains(["roles/storage.objectViewer", "roles/run.invoker"], right.role)]) == toset(["project database", "bucket drops", "bucket artifacts", "topic run-commands", "account dashboard", "view adaptml-output"])
    error_message = "The page writes drops, aliases and runs, publishes commands and signs as itself."
  }

  # What they cost while nobody looks, and at most.
  assert {
    condition     = alltrue([for face in concat(module.dashboard, module.playground) : one(face.service.template[0].scaling).min_instance_count == 0])
    error_message = "What nobody asks costs nothing."
  }
  assert {
    condition     = one(module.playground[0].service.template[0].scaling).max_instance_count == 1 && one(module.dashboard[0].service.template[0].scaling).max_instance_count == 3
    error_message = "There is one playground, and not many pages."
  }
  assert {
    condition     = one(module.playground[0].service.template[0].node_selector).accelerator == "nvidia-l4" && module.playground[0].service.template[0].gpu_zonal_redundancy_disabled == true && module.playground[0].service.template[0].containers[0].resources[0].limits["nvidia.com/gpu"] == "1"
    error_message = "The playground has one NVIDIA L4, without zonal redundancy."
  }
  assert {
    condition     = !module.playground[0].service.template[0].containers[0].resources[0].cpu_idle && module.dashboard[0].service.template[0].containers[0].resources[0].cpu_idle
    error_message = "Cloud Run gives a GPU to nobody whose CPU sleeps between requests; the page is paid for by the request."
  }
  assert {
    condition     = google_logging_log_view.standard_output[0].filter == "LOG_ID(\"run.googleapis.com/stdout\")" && [for right in values(google_logging_log_view_iam_member.granted) : "${right.role} ${right.member}"] == ["roles/logging.viewAccessor serviceAccount:adaptml-dashboard@adaptml-test.iam.gserviceaccount.com"]
    error_message = "Of the project's logs the page reads what is written to standard output, and nobody else reads that view."
  }

  assert {
    condition     = length(module.dashboard[0].service.template[0].node_selector) == 0 && !can(module.dashboard[0].service.template[0].containers[0].resources[0].limits["nvidia.com/gpu"])
    error_message = "The page has no GPU."
  }

  # How they run.
  assert {
    condition     = module.dashboard[0].service.template[0].session_affinity && module.dashboard[0].service.template[0].timeout == "3600s"
    error_message = "A page holds its session by a websocket for as long as Cloud Run lets it, and finds it again."
  }
  assert {
    condition     = module.dashboard[0].service.template[0].containers[0].image == var.dashboard_image && module.playground[0].service.template[0].containers[0].image == var.trainer_image && module.playground[0].service.template[0].containers[0].command == tolist(["python", "-m", "trainer.playground"])
    error_message = "The page has an image of its own, the playground the trainer's."
  }
  assert {
    condition     = one(one(module.playground[0].service.template[0].volumes).gcs).read_only && one(module.playground[0].service.template[0].containers[0].volume_mounts).mount_path == "/models"
    error_message = "The base models are mounted where the playground looks, and cannot be written there."
  }
  assert {
    condition     = { for env in module.dashboard[0].service.template[0].containers[0].env : env.name => env.value if contains(["ADAPTML_IAP_AUDIENCE", "ADAPTML_PLAYGROUND_URL", "ADAPTML_API_MEMBERS"], env.name) } == { ADAPTML_IAP_AUDIENCE = "/projects/123456789012/locations/us-central1/services/adaptml-dashboard", ADAPTML_PLAYGROUND_URL = output.playground_url, ADAPTML_API_MEMBERS = "{}" }
    error_message = "The page takes the proxy's word for itself alone, and asks the playground."
  }
  assert {
    condition     = !contains([for env in module.dashboard[0].service.template[0].containers[0].env : env.name], "ADAPTML_DASHBOARD_TENANTS")
    error_message = "Open to whoever comes is the local cloud alone."
  }
  assert {
    condition     = module.dashboard[0].command == "gcloud beta run services update 'adaptml-dashboard' --project='adaptml-test' --region='us-central1' --iap --quiet" && module.playground[0].command == ""
    error_message = "The proxy is put before the page, and not before the playground."
  }
  assert {
    condition     = contains(keys(google_project_service.used), "iap") && output.dashboard_url == "https://adaptml-dashboard-123456789012.us-central1.run.app"
    error_message = "The proxy can be used, and the page's address is known."
  }
}

run "a_page_for_people" {
  command = plan

  variables {
    dashboard_image = "us-central1-docker.pkg.dev/adaptml-test/adaptml/dashboard@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    dashboard       = { cpu = 1, memory_gib = 2, max_instances = 1 }
    kms_key         = "projects/keys/locations/us-central1/keyRings/ring/cryptoKeys/key"
    calls_gcloud    = false
    tenants = {
      acme   = { writers = ["user:ann@example.com", "group:ml@example.com"], readers = ["serviceAccount:serving@example.iam.gserviceaccount.com"] }
      globex = { readers = ["user:ann@example.com", "user:bob@example.com"] }
    }
  }

  assert {
    condition     = toset(module.dashboard[0].people) == toset(["user:ann@example.com", "user:bob@example.com"])
    error_message = "The proxy lets in people whom tenants name."
  }
  assert {
    condition     = length(module.playground) == 0 && !contains([for env in module.dashboard[0].service.template[0].containers[0].env : env.name], "ADAPTML_PLAYGROUND_URL") && !contains([for right in output.rights : right.on if right.part == "dashboard"], "playground")
    error_message = "There is a page without a playground."
  }
  assert {
    condition     = module.dashboard[0].service.template[0].encryption_key == var.kms_key && module.dashboard[0].service.template[0].containers[0].resources[0].limits == tomap({ cpu = "1", memory = "2Gi" }) && one(module.dashboard[0].service.template[0].scaling).max_instance_count == 1
    error_message = "The page is as it was asked for."
  }
}

run "nothing_is_traced" {
  command = plan

  variables {
    trace_ratio = 0
  }

  assert {
    condition     = !contains([for member in values(google_project_iam_member.granted) : member.role], "roles/telemetry.tracesWriter") && !contains(keys(local.environment), "ADAPTML_TRACES")
    error_message = "Who sends no traces may not."
  }
}

run "a_tenant_that_publishes" {
  command = plan

  variables {
    tenants = {
      acme  = { publishers = ["serviceAccount:nightly@example.iam.gserviceaccount.com"] }
      quiet = { writers = ["group:ml@example.com"] }
    }
  }

  assert {
    condition     = toset([for right in values(google_pubsub_topic_iam_member.publishers) : "${basename(right.topic)} ${right.role} ${right.member}"]) == toset([for topic in ["run-requests.acme", "run-commands.acme"] : "${topic} roles/pubsub.publisher serviceAccount:nightly@example.iam.gserviceaccount.com"])
    error_message = "A tenant's system publishes to the tenant's own topics, and to no other."
  }
  assert {
    condition     = module.topics.topics["run-requests.acme"].schema_settings == module.topics.topics["run-requests"].schema_settings
    error_message = "They are held to the same schema."
  }
  assert {
    condition     = !contains(keys(module.topics.topics), "run-requests.quiet")
    error_message = "Whose systems publish nothing has no topics."
  }
}

run "what_is_refused" {
  command = plan

  variables {
    project_id          = "No"
    region              = "US"
    bucket_prefix       = "-"
    trainer_image       = "trainer:latest"
    dashboard_image     = "dashboard:latest"
    functions_archive   = "functions.tar"
    trainer             = { cpu = 2, memory_gib = 8, timeout_s = 86400, launch_stage = "ALPHA" }
    gpu_quota           = 0
    trace_ratio         = 2
    tenants             = { acme = { publishers = ["allUsers"] } }
    requesters          = ["allAuthenticatedUsers"]
    listeners           = { anybody = "allUsers" }
    notification_emails = ["nobody"]
    budget              = { billing_account = "mine", monthly_usd = 0 }
    gpu_hours_a_day     = 0
    retention           = { overwritten_drops_days = 1 }
    kms_key             = "key"
    base_models         = ["--from-hub"]
  }

  expect_failures = [
    var.project_id, var.region, var.bucket_prefix, var.trainer_image, var.functions_archive, var.trainer, var.gpu_quota,
    var.tenants, var.requesters, var.listeners, var.notification_emails, var.budget, var.gpu_hours_a_day, var.retention,
    var.kms_key, var.base_models, var.trace_ratio, var.dashboard_image,
  ]
}

# What is looked at beside another variable is not looked at where that one is refused.
run "a_page_without_an_image" {
  command = plan

  variables {
    dashboard = {}
  }

  expect_failures = [var.dashboard]
}

run "a_page_of_another_size" {
  command = plan

  variables {
    dashboard_image = "us-central1-docker.pkg.dev/adaptml-test/adaptml/dashboard@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    dashboard       = { cpu = 3, memory_gib = 64, max_instances = 0 }
  }

  expect_failures = [var.dashboard]
}

run "a_playground_without_a_page" {
  command = plan

  variables {
    playground = {}
  }

  expect_failures = [var.playground]
}

run "a_playground_of_another_size" {
  command = plan

  variables {
    dashboard_image = "us-central1-docker.pkg.dev/adaptml-test/adaptml/dashboard@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    dashboard       = {}
    playground      = { cpu = 2, memory_gib = 8 }
  }

  expect_failures = [var.playground]
}
