# Who may do what, and why: all of it is said here, once. grants.tf makes it so, docs/security.md is written from it.
# Full names are put together here, so that a plan knows them, and can be looked through, before anything is made.
locals {
  parts = merge(
    { for name in local.functions : name => "Function ${name}" },
    {
      trainer = "Job adaptml-trainer: one attempt at one run"
      prepare = "Job adaptml-prepare: downloads and quantises base models"
      events  = "Calls the functions, on behalf of Eventarc"
      packer  = "Builds the functions from their archive"
    },
    { for face, what in {
      dashboard  = "Service adaptml-dashboard: the web page"
      playground = "Service adaptml-playground: asks base models and adapters the same"
    } : face => what if contains(local.faces, face) },
  )

  accounts = { for part, account in google_service_account.part : part => "${account.account_id}@${var.project_id}.iam.gserviceaccount.com" }

  # Google's own accounts in this project.
  agents = {
    pubsub    = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    storage   = data.google_storage_project_service_account.this.member
    scheduler = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-cloudscheduler.iam.gserviceaccount.com"
    iap       = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-iap.iam.gserviceaccount.com"
  }

  writer  = "projects/${var.project_id}/roles/${google_project_iam_custom_role.object_writer.role_id}"
  lister  = "projects/${var.project_id}/roles/${google_project_iam_custom_role.object_lister.role_id}"
  starter = "projects/${var.project_id}/roles/${google_project_iam_custom_role.job_starter.role_id}"
  signer  = "projects/${var.project_id}/roles/${google_project_iam_custom_role.url_signer.role_id}"
  keeper  = "projects/${var.project_id}/roles/${google_project_iam_custom_role.execution_keeper.role_id}"

  # Files that AdaptML writes beside a drop (schemas/layout.py): of a drop's folder, only they may be written.
  status_files = ["STATUS.json", "REJECTED.md"]
  our_files    = concat(local.status_files, ["validation-report.json", "preview.jsonl"])

  announcing = setsubtract(concat(local.functions, ["trainer"]), ["undelivered"])
  taking_in  = ["intake", "requests", "commands", "reconcile"]
  promoting  = ["intake", "reconcile"]
  noting     = ["requests", "commands", "undelivered"]
  starting   = ["dispatch", "reconcile"]

  # What the faces need, those of them that there are. A signed URL can do what its signer may.
  of_faces = [for right in flatten([
    { part = "dashboard", kind = "project", on = "database", role = "roles/datastore.user", why = "reads runs, adapters and spending, and moves aliases; Firestore knows rights of a project only, a condition narrows it to the one database" },
    { part = "dashboard", kind = "bucket", on = "drops", role = "roles/storage.objectViewer", why = "reads defaults, and data that lies in folders, to check a drop" },
    { part = "dashboard", kind = "bucket", on = "drops", except_files = concat(local.our_files, ["ALIASES.json"]), role = local.writer, why = "copies drops: their data, then their manifest; what AdaptML says of them it does not write" },
    { part = "dashboard", kind = "bucket", on = "artifacts", except = ["_"], role = "roles/storage.objectViewer", why = "reads versions, which its signed URLs lead to, and their answers" },
    { part = "dashboard", kind = "bucket", on = "artifacts", suffixes = ["ALIASES.json"], role = local.writer, why = "says what the aliases of an adapter point at" },
    { part = "dashboard", kind = "bucket", on = "models", role = "roles/storage.objectViewer", why = "reads tokenizers, to count tokens" },
    { part = "dashboard", kind = "topic", on = "run-commands", role = "roles/pubsub.publisher", why = "asks for runs to be cancelled and taken up again" },
    { part = "dashboard", kind = "view", on = "adaptml-output", role = "roles/logging.viewAccessor", why = "reads what functions and trainer logged of a run; the view holds standard output of Cloud Run, no other log" },
    { part = "dashboard", kind = "account", on = "dashboard", role = local.signer, why = "signs URLs as itself (iam.serviceAccounts.signBlob): there is no key" },
    [for face in local.faces :
      { part = "dashboard", kind = "service", on = face, role = "roles/run.invoker", why = "asks it what people ask; nobody else may" } if face == "playground"
    ],

    { part = "playground", kind = "bucket", on = "artifacts", except = ["_"], role = "roles/storage.objectViewer", why = "reads the adapters that it is asked about" },
    { part = "playground", kind = "bucket", on = "models", role = "roles/storage.objectViewer", why = "reads base models, mounted" },
  ]) : right if contains(local.faces, right.part)]

  # `on` is a bucket, a topic, … by the name that it has here. `prefixes`, `suffixes`, `within`, `except` and `except_files`
  # narrow a right on a bucket to objects whose names begin, end, have such a folder, or do not begin or end so.
  rights = flatten([
    local.of_faces,

    [for part in concat(local.functions, ["trainer"]) :
      { part = part, kind = "project", on = "database", role = "roles/datastore.user", why = "reads and writes runs; Firestore knows rights of a project only, a condition narrows it to the one database" }
    ],

    [for part in concat(local.functions, ["trainer"]) :
      { part = part, kind = "project", on = "project", role = "roles/telemetry.tracesWriter", why = "sends spans (telemetry.traces.write), reads none; the Telemetry API knows this right of a project only" } if var.trace_ratio > 0
    ],

    [for part in local.announcing : [
      { part = part, kind = "topic", on = "run-events", role = "roles/pubsub.publisher", why = "announces each change of state that it makes" },
      { part = part, kind = "topic", on = "run-ready", role = "roles/pubsub.publisher", why = "wakes the dispatcher when a run waits or leaves a GPU" },
      { part = part, kind = "bucket", on = "artifacts", prefixes = ["_audit/"], role = local.writer, why = "writes the audit trail of each change of state, once more if it is called again" },
      {
        part     = part, kind = "bucket", on = "drops", role = local.writer
        suffixes = contains(local.taking_in, part) ? local.our_files : local.status_files
        why      = contains(local.taking_in, part) ? "writes status, report and preview beside a drop" : "renews the status beside a drop, takes back a refusal"
      },
    ]],

    [for part in local.taking_in : [
      { part = part, kind = "bucket", on = "drops", role = "roles/storage.objectViewer", why = "reads manifests, defaults and data of every tenant, and looks for what arrived" },
      { part = part, kind = "bucket", on = "artifacts", role = local.lister, why = "asks whether there is an audit trail before it creates a run" },
      { part = part, kind = "bucket", on = "models", role = "roles/storage.objectViewer", why = "reads tokenizers, to count tokens" },
    ]],

    [for part in local.promoting :
      { part = part, kind = "bucket", on = "drops", suffixes = ["ALIASES.json"], role = local.writer, why = "answers to PROMOTE and ROLLBACK beside a drop" }
    ],

    [for part in local.noting :
      { part = part, kind = "bucket", on = "artifacts", prefixes = ["_dead-letters/"], role = local.writer, why = "keeps a message that can never be done, once more if it is called again" }
    ],

    [for part in local.starting :
      { part = part, kind = "job", on = "trainer", role = local.starter, why = "starts the job with a run's id and epoch (run.jobs.runWithOverrides), that one job" }
    ],

    # The reconciler, which finds a PROMOTE whose event was lost, may write there anyway.
    { part = "intake", kind = "bucket", on = "artifacts", suffixes = ["ALIASES.json"], role = local.writer, why = "says what the aliases of an adapter point at" },

    # Who may not list is told of a missing object that it may not be read, not that it is missing.
    { part = "dispatch", kind = "bucket", on = "drops", role = local.lister, why = "finds out that no status lies beside a drop yet" },

    # The reconciler finishes what a trainer left after its commit.
    { part = "reconcile", kind = "job", on = "trainer", role = local.keeper, why = "looks up executions and cancels those that hang" },
    { part = "reconcile", kind = "bucket", on = "artifacts", except = ["_"], role = local.writer, why = "copies a committed version to its place where the trainer died; deletes what attempts left of runs that have ended" },

    { part = "trainer", kind = "bucket", on = "drops", role = "roles/storage.objectViewer", why = "reads the pinned data of its run" },
    { part = "trainer", kind = "bucket", on = "models", role = "roles/storage.objectViewer", why = "reads the base model, mounted" },
    { part = "trainer", kind = "bucket", on = "artifacts", role = local.lister, why = "lists checkpoints, and what it staged" },
    { part = "trainer", kind = "bucket", on = "artifacts", except = ["_"], role = local.writer, why = "writes checkpoints and versions, and deletes what it staged" },

    { part = "prepare", kind = "secret", on = "hub_token", role = "roles/secretmanager.secretAccessor", why = "reads the hub's token, for gated models" },
    { part = "prepare", kind = "bucket", on = "models", role = local.lister, why = "sees what is prepared already" },
    { part = "prepare", kind = "bucket", on = "models", role = local.writer, why = "lays prepared models there, and deletes what another revision left" },

    # The API. A signed URL can do what its signer may: it reads versions and files, and writes files.
    { part = "api", kind = "bucket", on = "drops", role = "roles/storage.objectViewer", why = "reads defaults and manifests, and lists files of tenants" },
    { part = "api", kind = "bucket", on = "drops", within = ["_files"], role = local.writer, why = "keeps and deletes files that tenants send" },
    { part = "api", kind = "bucket", on = "artifacts", role = local.lister, why = "asks whether there is an audit trail before it creates a run" },
    { part = "api", kind = "bucket", on = "artifacts", except = ["_"], role = "roles/storage.objectViewer", why = "reads versions, which its signed URLs lead to" },
    { part = "api", kind = "bucket", on = "artifacts", suffixes = ["ALIASES.json"], role = local.writer, why = "says what the aliases of an adapter point at" },
    { part = "api", kind = "topic", on = "run-requests", role = "roles/pubsub.publisher", why = "passes on what tenants ask for" },
    { part = "api", kind = "topic", on = "run-commands", role = "roles/pubsub.publisher", why = "passes on which run tenants take up again" },
    { part = "api", kind = "account", on = "api", role = local.signer, why = "signs URLs as itself (iam.serviceAccounts.signBlob): there is no key" },

    [for function in setsubtract(local.functions, local.by_http) :
      { part = "events", kind = "function", on = function, role = "roles/run.invoker", why = "calls it; nobody else may" }
    ],
    { part = "events", kind = "project", on = "project", role = "roles/eventarc.eventReceiver", why = "receives events of the drops bucket; Eventarc knows this right of a project only, and it is to receive, nothing else" },

    { part = "packer", kind = "project", on = "project", role = "roles/logging.logWriter", why = "writes the build's log; Cloud Logging knows rights of a project only" },
    { part = "packer", kind = "project", on = "build_sources", role = "roles/storage.objectViewer", why = "reads the archive where Cloud Functions lays it for the build; that bucket is made by Google, so a condition on its name narrows it" },
    { part = "packer", kind = "bucket", on = "functions", role = "roles/storage.objectViewer", why = "reads the archive" },
    { part = "packer", kind = "repository", on = "images", role = "roles/artifactregistry.writer", why = "stores the images that it builds" },
  ])

  agent_rights = flatten([
    { agent = "storage", kind = "project", on = "project", role = "roles/pubsub.publisher", why = "publishes the drops bucket's events; Eventarc makes the topic and its name, so no topic can be named" },
    [for face in local.faces :
      { agent = "iap", kind = "service", on = face, role = "roles/run.invoker", why = "passes on whom it let in; nobody else may call the page" } if face == "dashboard"
    ],
    { agent = "scheduler", kind = "topic", on = "reconcile", role = "roles/pubsub.publisher", why = "publishes the tick" },
    { agent = "sink", kind = "topic", on = "reconcile", role = "roles/pubsub.publisher", why = "publishes the log entries of ended executions" },
    [for topic in keys(local.dead_letters) :
      { agent = "pubsub", kind = "topic", on = topic, role = "roles/pubsub.publisher", why = "publishes what it gives up" }
    ],
    [for name, trigger in local.triggers :
      { agent = "pubsub", kind = "subscription", on = name, role = "roles/pubsub.subscriber", why = "acknowledges what it gives up" } if trigger.dead_letter != null
    ],
  ])
}

resource "google_service_account" "part" {
  for_each = local.parts

  account_id   = "adaptml-${each.key}"
  display_name = each.value

  depends_on = [google_project_service.used]
}

# Roles of our own where each of Google's holds more than is needed.
resource "google_project_iam_custom_role" "object_writer" {
  role_id     = "adaptmlObjectWriter"
  title       = "AdaptML: writes objects"
  description = "Reads, writes and replaces single objects; changes no policy, lists nothing"
  permissions = ["storage.objects.create", "storage.objects.delete", "storage.objects.get"]

  depends_on = [google_project_service.used]
}

resource "google_project_iam_custom_role" "object_lister" {
  role_id     = "adaptmlObjectLister"
  title       = "AdaptML: lists objects"
  description = "Sees names; a right on names cannot be narrowed to a prefix"
  permissions = ["storage.objects.list"]

  depends_on = [google_project_service.used]
}

resource "google_project_iam_custom_role" "job_starter" {
  role_id     = "adaptmlJobStarter"
  title       = "AdaptML: starts the job"
  description = "Starts executions with an environment; changes no job"
  permissions = ["run.jobs.run", "run.jobs.runWithOverrides"]

  depends_on = [google_project_service.used]
}

resource "google_project_iam_custom_role" "execution_keeper" {
  role_id     = "adaptmlExecutionKeeper"
  title       = "AdaptML: looks after executions"
  description = "Reads and cancels executions"
  permissions = ["run.executions.cancel", "run.executions.get", "run.executions.list"]

  depends_on = [google_project_service.used]
}

resource "google_project_iam_custom_role" "url_signer" {
  role_id     = "adaptmlUrlSigner"
  title       = "AdaptML: signs URLs"
  description = "Signs as the account that it is given on; makes no tokens"
  permissions = ["iam.serviceAccounts.signBlob"]

  depends_on = [google_project_service.used]
}
