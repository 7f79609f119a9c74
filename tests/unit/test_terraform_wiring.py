"""terraform/ and local/ make the same cloud, and it is the one that the code expects."""

from __future__ import annotations

import base64
import inspect
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from functions_framework._function_registry import ASGI_FUNCTIONS, get_func_signature_type
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore, pubsub_v1, run_v2
from google.cloud.firestore_v1.aggregation import AggregationQuery
from google.cloud.firestore_v1.query import Query
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter

from adaptml import lifecycle, logs, playground, run_log, tracing
from adaptml.clock import utc_now
from adaptml.jobs import EMULATOR_HOST
from adaptml.protocol import to_error
from adaptml.runs.documents import Documents
from adaptml.runs.outbox import audit_event
from adaptml.runs.queries import RunQueries
from adaptml.settings import Settings
from adaptml.trace_export import exporter_of
from dashboard import __main__ as dashboard_main
from dashboard import viewer
from functions import main
from functions.build import MAIN
from functions.reconciler import Wakeup
from local import provision, wiring
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.errors import problem
from schemas.run_states import RunState
from schemas.topology import TOPOLOGY, dead_letter_topic, kind_of, tenant_topic
from tests.terraform.deployment import DEFAULTS, FACES, PEOPLE, PROJECT, PUBLISHING, Resource, deployment
from tests.terraform.sources import ROOT
from tests.unit.test_protocol import run
from trainer import playground as playground_main
from trainer import prepare
from trainer.prepared import MODELS_DIR

LOCAL = wiring.PROJECT


class Recorder:
    """Google's clients, of which local/provision.py asks to create things."""

    def __init__(self, **_: object) -> None:
        self.made: list[Any] = []

    topic_path = subscription_path = staticmethod(lambda project, name: f"projects/{project}/topics/{name}")

    def create_topic(self, request: Any) -> None:
        self.made.append(request)

    create_subscription = create_job = create_topic

    def create_schema(self, schema: Any, **_: object) -> None:
        self.made.append(schema)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.delenv("ADAPTML_LOCAL_DELIVERY_ATTEMPTS", raising=False)
    monkeypatch.delenv("ADAPTML_TRAINER_COMMAND", raising=False)
    monkeypatch.setenv(EMULATOR_HOST, "127.0.0.1:1")
    recorder = Recorder()
    for module, name in (
        (pubsub_v1, "PublisherClient"),
        (pubsub_v1, "SubscriberClient"),
        (provision, "SchemaServiceClient"),
        (run_v2, "JobsClient"),
    ):
        monkeypatch.setattr(module, name, lambda **_: recorder)
    return recorder


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _values(*types: str, run: str = DEFAULTS) -> Iterator[dict[str, Any]]:
    return (resource.values for resource in deployment().resources(*types, run=run))


CLOUDS = pytest.mark.parametrize(("run", "tenants"), [(DEFAULTS, ""), (PUBLISHING, "acme")])
"""A plan, and the tenants of the local cloud that it is held against."""


@CLOUDS
def test_topics_and_their_schemas(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, run: str, tenants: str) -> None:
    monkeypatch.setenv("ADAPTML_LOCAL_TENANTS", tenants)
    provision.topics()
    schemas = {_name(made.name): made for made in recorder.made if hasattr(made, "definition")}
    topics = {_name(made.name): made for made in recorder.made if hasattr(made, "schema_settings")}
    assert {row["name"]: (row["type"], json.loads(row["definition"])) for row in _values("google_pubsub_schema")} == {
        name: (made.type_.name, json.loads(made.definition)) for name, made in schemas.items()
    }
    real = {
        row["name"]: [(_name(settings["schema"]), settings["encoding"]) for settings in row["schema_settings"]]
        for row in _values("google_pubsub_topic", run=run)
    }
    # Eventarc makes the topic of the bucket's notifications itself.
    topics.pop(TOPOLOGY.storage_topic)
    assert real == {
        name: [(_name(made.schema_settings.schema), made.schema_settings.encoding.name)]
        if made.schema_settings.schema
        else []
        for name, made in topics.items()
    }


@CLOUDS
def test_what_calls_functions_and_how_it_delivers(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, run: str, tenants: str
) -> None:
    monkeypatch.setenv("ADAPTML_LOCAL_TENANTS", tenants)
    provision.push_subscriptions(wiring.Ports.free())
    here = {}
    for made in recorder.made:
        policy = made.dead_letter_policy
        here[_name(made.name).removeprefix("eventarc-")] = {
            "topic": _name(made.topic),
            "ack_deadline_s": made.ack_deadline_seconds,
            "minimum_backoff_s": made.retry_policy.minimum_backoff.total_seconds(),
            "maximum_backoff_s": made.retry_policy.maximum_backoff.total_seconds(),
            "dead_letter_topic": _name(policy.dead_letter_topic) or None,
            "max_delivery_attempts": policy.max_delivery_attempts or None,
        }
    here["intake"] = here.pop("storage") | {"topic": None}
    assert _deliveries(run) == here


def _deliveries(run: str = DEFAULTS) -> dict[str, dict[str, Any]]:
    """Trigger → how it delivers."""
    there: dict[str, dict[str, Any]] = {}
    for resource in deployment().resources("google_eventarc_trigger", "terraform_data", run=run):
        row = there.setdefault(_of_module(resource), {})
        if resource.type == "google_eventarc_trigger":
            transports = resource.values["transport"]
            row["topic"] = _name(transports[0]["pubsub"][0]["topic"]) if transports else None
        else:
            settings = resource.values["triggers_replace"]
            dead = settings["dead_letter_topic"]
            row |= {
                key: settings[key]
                for key in ("ack_deadline_s", "minimum_backoff_s", "maximum_backoff_s", "max_delivery_attempts")
            }
            row["dead_letter_topic"] = _name(dead) if dead else None
    return there


def _of_module(resource: Resource) -> str:
    found = re.search(r'\["([\w.-]+)"\]', resource.address)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(("run", "tenants"), [(DEFAULTS, []), (PUBLISHING, ["acme"])])
def test_each_function_is_called_by_what_the_topology_says(run: str, tenants: list[str]) -> None:
    called: dict[str, set[str | None]] = {}
    for resource in deployment().resources("google_eventarc_trigger", run=run):
        [service] = resource.values["destination"][0]["cloud_run_service"]
        row = _deliveries(run)[_of_module(resource)]
        called.setdefault(service["service"], set()).add(row["topic"])
    own = [tenant_topic(topic, tenant) for topic in TOPOLOGY.tenant_topics for tenant in tenants]
    assert called == {
        name: {*TOPOLOGY.dead_letter_topics, *map(dead_letter_topic, own)}
        if trigger.dead_letters
        else {trigger.topic, *(topic for topic in own if kind_of(topic) == trigger.topic)}
        for name, trigger in TOPOLOGY.functions.items()
        if not trigger.http
    }


def test_functions_are_those_of_the_archive() -> None:
    rows = {row["name"]: row for row in _values("google_cloudfunctions2_function")}
    assert set(rows) == set(re.findall(r'"(\w+)"', MAIN.partition("__all__")[2]))
    for name, trigger in TOPOLOGY.functions.items():
        [service] = rows[name]["service_config"]
        serial = (service["max_instance_count"], service["max_instance_request_concurrency"]) == (1, 1)
        assert serial == trigger.serial


@pytest.mark.parametrize("name", [name for name, trigger in TOPOLOGY.functions.items() if not trigger.http])
def test_functions_take_events_though_they_are_deployed_without_a_trigger(name: str) -> None:
    """Cloud Functions then says that they answer HTTP; the decorator has the last word."""
    assert callable(getattr(main, name))
    assert get_func_signature_type(name, "http") == "cloudevent"


def test_the_api_answers_http_and_no_event_calls_it() -> None:
    assert [name for name, trigger in TOPOLOGY.functions.items() if trigger.http] == ["api"]
    assert get_func_signature_type("api", "http") == "http"
    assert "api" in ASGI_FUNCTIONS  # functions-framework serves it by an ASGI server without being told to


def _environments() -> dict[str, dict[str, str]]:
    functions = {
        row["name"]: row["service_config"][0]["environment_variables"]
        for row in _values("google_cloudfunctions2_function")
    }
    jobs = {
        row["name"]: {item["name"]: item["value"] for item in _container(row)["env"]}
        for row in _values("google_cloud_run_v2_job")
    }
    return functions | {"trainer": jobs["adaptml-trainer"]}


def _container(job: dict[str, Any]) -> dict[str, Any]:
    [container] = job["template"][0]["template"][0]["containers"]
    return dict(container)


def test_settings_are_those_that_the_code_reads() -> None:
    known = {f"ADAPTML_{name.upper()}" for name in Settings.model_fields} | {"GOOGLE_CLOUD_PROJECT"}
    for part, environment in _environments().items():
        ours = {MODELS_DIR} if part == "trainer" else set()
        ours |= {tracing.DESTINATION, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG}
        assert environment.keys() <= known | ours, part
        settings = Settings.from_env(environment)
        assert settings.job_path == f"projects/{PROJECT}/locations/us-central1/jobs/adaptml-trainer"
        assert settings.gpu_quota == Settings.model_fields["gpu_quota"].default
    assert _environments()["trainer"][MODELS_DIR] == "/models"


def _faces(run: str) -> dict[str, dict[str, Any]]:
    """The services of a plan, by name."""
    return {row["name"]: row["template"][0]["containers"][0] for row in _values("google_cloud_run_v2_service", run=run)}


def _said_to(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container["env"]}


def test_page_and_playground_are_told_what_they_read() -> None:
    settings = {f"ADAPTML_{name.upper()}" for name in Settings.model_fields} | {"GOOGLE_CLOUD_PROJECT"}
    read = {
        "adaptml-dashboard": {viewer.AUDIENCE, playground.URL, run_log.LOG_VIEW, "ADAPTML_DASHBOARD_ADDRESS"},
        "adaptml-playground": {MODELS_DIR, "ADAPTML_PLAYGROUND_ADDRESS"},
    }
    faces = _faces(FACES)
    assert faces.keys() == read.keys()
    for name, container in faces.items():
        said = _said_to(container)
        assert read[name] <= said.keys() <= settings | read[name]
        assert said.keys() & {"ADAPTML_API_TOKENS", viewer.OPEN_TO} == set()
        assert Settings.from_env(said) == Settings.from_env(_environments()["intake"])
    for module, name in (
        (dashboard_main, "ADAPTML_DASHBOARD_ADDRESS"),
        (playground_main, "ADAPTML_PLAYGROUND_ADDRESS"),
    ):
        assert f'"{name}"' in inspect.getsource(module)
    assert faces["adaptml-playground"]["command"] == ["python", "-m", playground_main.__name__]


def test_the_page_reads_the_view_that_there_is_of_what_the_code_logs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [view] = _values("google_logging_log_view", run=FACES)
    name = f"{view['parent']}/locations/{view['location']}/buckets/{view['bucket']}/views/{view['name']}"
    assert _said_to(_faces(FACES)["adaptml-dashboard"])[run_log.LOG_VIEW] == name
    assert "stdout" in view["filter"]
    monkeypatch.setattr(logging.root, "handlers", [])
    logs.configure()
    logging.getLogger("adaptml").warning("a line")
    assert "a line" in capsys.readouterr().out


def test_the_page_knows_the_people_that_the_proxy_lets_in() -> None:
    members = Settings.from_env(_said_to(_faces(PEOPLE)["adaptml-dashboard"])).api_members
    assert viewer.member("ann@example.com", members).roles == {"acme": "writer", "globex": "reader"}
    assert viewer.member("bob@example.com", members).roles == {"globex": "reader"}


def test_where_traces_go_and_how_many_is_said_as_the_code_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for part, environment in _environments().items():
        assert isinstance(exporter_of(environment[tracing.DESTINATION]), SpanExporter), part
        monkeypatch.setenv(OTEL_TRACES_SAMPLER, environment[OTEL_TRACES_SAMPLER])
        monkeypatch.setenv(OTEL_TRACES_SAMPLER_ARG, environment[OTEL_TRACES_SAMPLER_ARG])
        assert "TraceIdRatioBased{1.0}" in TracerProvider().sampler.get_description()


def test_buckets_are_those_of_the_local_cloud() -> None:
    here = {wiring.DROPS_BUCKET, wiring.ARTIFACTS_BUCKET, wiring.MODELS_BUCKET}
    settings = Settings.from_env(_environments()["intake"])
    there = {settings.drops_bucket, settings.artifacts_bucket, settings.models_bucket}
    assert {str(name).removeprefix(f"{PROJECT}-") for name in there} == {name.removeprefix("adaptml-") for name in here}
    assert there <= {row["name"] for row in _values("google_storage_bucket")}


def test_the_job_is_that_of_the_local_cloud(recorder: Recorder, tmp_path: Any) -> None:
    settings = Settings(project=LOCAL, drops_bucket="drops", artifacts_bucket="artifacts")
    provision.job(settings, tmp_path)
    [made] = recorder.made
    [there] = [row for row in _values("google_cloud_run_v2_job") if row["name"] == made.job_id]
    template = there["template"][0]
    here = made.job.template
    assert template["task_count"] == here.task_count
    assert template["template"][0]["max_retries"] == here.template.max_retries
    assert template["template"][0]["timeout"] == f"{here.template.timeout.total_seconds():.0f}s"
    assert _container(there)["command"][1:] == list(here.template.containers[0].command)[1:] == ["-m", "trainer"]


def test_base_models_are_prepared_by_a_call_that_the_program_takes() -> None:
    [job] = [row for row in _values("google_cloud_run_v2_job") if row["name"] == "adaptml-prepare"]
    assert _container(job)["command"] == ["python", "-m", "trainer.prepare"]
    called = prepare._parser().parse_args(_container(job)["args"])
    assert set(called.model) <= set(CATALOGUE)
    assert called.to == f"{PROJECT}-models"
    assert called.token_secret == f"projects/{PROJECT}/secrets/adaptml-hub-token/versions/latest"


def test_files_beside_a_drop_are_named_as_the_code_names_them() -> None:
    named = {suffix for right in deployment().output("rights") for suffix in right["suffixes"]}
    assert named == set(layout.OUR_FILES)
    prefixes = {prefix for right in deployment().output("rights") for prefix in right["prefixes"]}
    assert prefixes == {layout.AUDIT, layout.DEAD_LETTERS}


def test_ticks_are_what_the_reconciler_understands() -> None:
    bodies = {
        row["name"]: Wakeup.parse(base64.b64decode(row["pubsub_target"][0]["data"]))
        for row in _values("google_cloud_scheduler_job")
    }
    assert bodies == {"adaptml-tick": Wakeup(), "adaptml-sweep": Wakeup(sweep_drops=True)}


# Which composite indexes Firestore would ask for: https://firebase.google.com/docs/firestore/query-data/indexing
Index = tuple[tuple[str, str], ...]


def _needed(query: Query) -> tuple[frozenset[str], Index] | None:
    """The fields that a query compares for equality, and those that it orders by; None where single fields do."""
    structured = query._to_protobuf()
    filters = [structured.where] if structured.where else []
    filters = [f for one in filters for f in (one.composite_filter.filters or [one])]
    operators = type(filters[0].field_filter).Operator if filters else None
    equal = {
        one.field_filter.field.field_path
        for one in filters
        if one.field_filter.op in {operators.EQUAL, operators.IN}  # type: ignore[union-attr]
    }
    ordered = tuple((order.field.field_path, order.direction.name) for order in structured.order_by)
    beyond = list(dict.fromkeys(path for f in filters if (path := f.field_filter.field.field_path) not in equal))
    ordered = ordered or tuple((field, "ASCENDING") for field in beyond)
    if len(ordered) > 1 or (equal and ordered) or len(equal) > 2:
        return frozenset(equal), ordered
    return None


def test_indexes_are_those_that_the_queries_need(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Query] = []

    def stream(query: Query, **_: object) -> Iterator[Any]:
        asked.append(query)
        return iter(())

    def count(counting: Any, **_: object) -> list[list[SimpleNamespace]]:
        asked.append(counting._nested_query)
        return [[SimpleNamespace(value=0)]]

    monkeypatch.setattr(Query, "stream", stream)
    monkeypatch.setattr(AggregationQuery, "get", count)
    queries = RunQueries(Documents(firestore.Client(project=PROJECT, credentials=AnonymousCredentials()), utc_now))
    list(queries.attempts())
    list(queries.in_intake())
    queries.waiting(after="acme")
    queries.count_queued("acme", 10)
    list(queries.asked_to_end())
    list(queries.with_pending_outbox())
    list(queries.awaiting_data("acme", "bot"))
    list(queries.of_folder("acme", "bot", RunState.QUEUED, RunState.TRAINING))
    queries.last_of_folder("acme", "bot", datetime.now(UTC))
    queries.to_sweep(datetime.now(UTC), 10)
    list(queries.to_be_taken_up())
    list(queries.going_on_from("acme/bot/.checkpoints/acme-bot-0123456789/"))
    for states in ((), (RunState.QUEUED, RunState.TRAINING)):
        for name in (None, "bot"):
            queries.of_tenant("acme", states=states, name=name)
    methods = {name for name in vars(RunQueries) if not name.startswith("_")}
    assert methods == {
        "attempts", "in_intake", "waiting", "count_queued", "asked_to_end", "with_pending_outbox", "awaiting_data",
        "of_folder", "last_of_folder", "of_tenant", "to_sweep", "to_be_taken_up", "going_on_from",
    }, "ask the new one above, too"  # fmt: skip
    needed = {need for query in asked if (need := _needed(query)) is not None}
    there = [
        [(field["field_path"], field["order"]) for field in row["fields"]] for row in _values("google_firestore_index")
    ]
    assert all(row["collection"] == "runs" for row in _values("google_firestore_index"))
    served = {need: [index for index in there if _serves(index, *need)] for need in needed}
    assert all(served.values()), served
    assert len(there) == len(needed)


def _serves(index: list[tuple[str, str]], equal: frozenset[str], ordered: Index) -> bool:
    first, rest = index[: len(equal)], index[len(equal) :]
    return {field for field, _ in first} == equal and tuple(rest) == ordered


# Log metrics, and the lines of code that they are made for.
LINES: dict[str, list[tuple[str, str, tuple[object, ...]]]] = {
    "failed_runs": [
        ("adaptml/lifecycle.py", "run %s is %s%s", ("acme-bot-0123456789", RunState.FAILED, " (attempts_exhausted)"))
    ],
    "failed_attempts": [("trainer/attempt.py", "attempt %d of %s ended: %s", (1, "acme-bot-0123456789", "killed"))],
    "dead_letters": [("adaptml/dead_letters.py", "dead letter %s of %s, run %s: %s", ("1", "run-ready", "r", "why"))],
    "not_reconciled": [
        ("functions/reconciler.py", "run %s could not be reconciled", ("r",)),
        ("functions/reconciler.py", "%s%s could not be taken in", ("acme/bot/", "manifest")),
        ("functions/leftovers.py", "what attempts at %s left could not be deleted", ("r",)),
        ("adaptml/runs/documents.py", "runs/%s cannot be read: %s", ("r", {"state"})),
    ],
    "unannounced": [("adaptml/lifecycle.py", "announcement of %s revision %d failed: %s", ("r", 2, "Aborted"))],
    "unknown_starts": [
        ("functions/dispatcher.py", "outcome of starting %s epoch %d is not known: %s", ("r", 2, "Unknown"))
    ],
}


def test_log_metrics_fit_the_lines_that_the_code_logs() -> None:
    patterns = {}
    for row in _values("google_logging_metric"):
        found = re.search(r'jsonPayload\.message=~"(.*)"$', row["filter"])
        assert found is not None
        patterns[row["name"].removeprefix("adaptml/")] = found[1]
    assert "\\" not in "".join(patterns.values())  # Logging's strings have escapes of their own
    assert patterns.keys() == LINES.keys()
    for name, lines in LINES.items():
        for file, line, values in lines:
            assert f'"{line}"' in (ROOT / file).read_text("utf-8"), (file, line)
            assert re.search(patterns[name], line % values), (name, line)
        others = [one for other, found in LINES.items() if other != name for one in found]
        assert not [line for _, line, values in others if re.search(patterns[name], line % values)], name


def test_the_metric_of_failed_runs_has_their_code_and_hears_functions_and_job() -> None:
    [row] = [one for one in _values("google_logging_metric") if one["name"] == "adaptml/failed_runs"]
    found = re.fullmatch(r'REGEXP_EXTRACT\(jsonPayload\.message, "(.*)"\)', row["label_extractors"]["code"])
    assert found is not None
    [(_, line, values)] = LINES["failed_runs"]
    code = re.search(found[1], line % values)
    assert code is not None
    assert code[1] == "attempts_exhausted"
    assert [label["key"] for label in row["metric_descriptor"][0]["labels"]] == ["code"]
    for kind in ("cloud_run_job", "cloud_run_revision"):
        assert f'resource.type="{kind}"' in row["filter"]
        heard = [text for name, text in _filters() if name == "AdaptML: A run FAILED" and f'"{kind}"' in text]
        assert len(heard) == 1


@pytest.mark.parametrize(("state", "is_counted"), [(S, S is RunState.FAILED) for S in RunState])
def test_only_runs_that_failed_are_counted_as_such(
    caplog: pytest.LogCaptureFixture, state: RunState, is_counted: bool
) -> None:
    """What the code really logs, against the filter that the metric has."""
    [row] = [one for one in _values("google_logging_metric") if one["name"] == "adaptml/failed_runs"]
    found = re.search(r'severity=(\w+) AND jsonPayload\.message=~"(.*)"$', row["filter"])
    assert found is not None
    ended = run(state, error=to_error([problem("cancelled")]))
    with caplog.at_level(logging.INFO):
        lifecycle._tell(ended, [audit_event(None, ended)])
    [record] = caplog.records
    told = record.levelname == found[1] and re.search(found[2], record.getMessage()) is not None
    assert told == is_counted


def _filters() -> Iterator[tuple[str, str]]:
    """Of charts and alerts, each with its name."""
    for row in _values("google_monitoring_alert_policy"):
        for condition in row["conditions"]:
            for one in (condition["condition_threshold"] or []) + (condition["condition_absent"] or []):
                if "filter" in one:  # that of subscriptions is known once they have names
                    yield row["display_name"], one["filter"]
    [dashboard] = _values("google_monitoring_dashboard")
    for tile in json.loads(dashboard["dashboard_json"])["mosaicLayout"]["tiles"]:
        for line in tile["widget"]["xyChart"]["dataSets"]:
            yield tile["widget"]["title"], line["timeSeriesQuery"]["timeSeriesFilter"]["filter"]


def test_each_line_and_each_alert_is_of_one_metric_of_one_kind_of_resource() -> None:
    """Cloud Monitoring takes no other filter."""
    ours = {f"logging.googleapis.com/user/{row['name']}" for row in _values("google_logging_metric")}
    used = set()
    for name, text in _filters():
        [metric] = re.findall(r'metric\.type ?= ?"([\w./-]+)"', text)
        assert len(re.findall(r'resource\.type ?= ?"\w+"', text)) == 1, name
        assert not metric.startswith("logging.") or metric in ours, name
        used.add(metric)
    assert ours <= used
