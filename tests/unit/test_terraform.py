"""terraform/ is checked by Terraform itself, against the Google provider's schema; faults that are planted show it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.terraform.bindings import ADDRESS, SCHEMA
from tests.terraform.deployment import FACES, PEOPLE, PROJECT, deployment
from tests.terraform.generate import GENERATED
from tests.terraform.program import Terraform, terraform
from tests.terraform.sources import ROOT, TERRAFORM, files, used_types


@pytest.fixture(scope="module")
def program() -> Iterator[Terraform]:
    with terraform() as found:
        yield found


@pytest.fixture(scope="module")
def copy(program: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program.copy(TERRAFORM, tmp_path_factory.mktemp("terraform"))


def test_files_have_terraforms_own_form(program: Terraform) -> None:
    done = program(TERRAFORM, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_valid_against_the_providers_schema() -> None:
    assert "The configuration is valid." in deployment().validation
    assert "Warning" not in deployment().validation


def test_its_own_tests_pass() -> None:
    [summary] = [m for m in map(json.loads, deployment().said.splitlines()) if m["type"] == "test_summary"]
    assert summary["test_summary"] | {"passed": 0} == {
        "status": "pass",
        "passed": 0,
        "failed": 0,
        "errored": 0,
        "skipped": 0,
    }, deployment().said
    assert summary["test_summary"]["passed"] == 11


def test_what_is_locked_is_the_provider_that_it_is_checked_against() -> None:
    locked = (TERRAFORM / ".terraform.lock.hcl").read_text("utf-8")
    assert re.findall(r'^provider "(.+)" {$', locked, re.M) == [ADDRESS]
    [version] = re.findall(r'^  version     = "(.+)"$', locked, re.M)
    assert f"(provider {version})" in json.loads(SCHEMA.read_text("utf-8"))["made_by"]
    packages = re.findall(r'"zh:([0-9a-f]{64})"', locked)
    assert len(packages) == len(set(packages)) == 12
    for configuration in (locked, (TERRAFORM / "versions.tf").read_text("utf-8")):
        assert '"~> 6.50"' in configuration


def test_the_schema_holds_what_is_used() -> None:
    provider = json.loads(SCHEMA.read_text("utf-8"))["provider_schemas"][ADDRESS]
    resources, data = used_types(TERRAFORM)
    assert provider["resource_schemas"].keys() == resources, "make it anew: python -m tests.terraform.bindings"
    assert provider["data_source_schemas"].keys() == data


def test_the_schema_is_of_the_provider_that_is_asked_for() -> None:
    made_by = json.loads(SCHEMA.read_text("utf-8"))["made_by"]
    asked_for = re.search(r'version = "~> (\d+\.\d+)"', (TERRAFORM / "versions.tf").read_text("utf-8"))
    assert asked_for is not None
    assert f"provider {asked_for[1]}." in made_by


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: str(path.name))
def test_what_is_generated_is_current(path: Path) -> None:
    assert path.read_text("utf-8") == GENERATED[path](), "python -m tests.terraform.generate"


def test_the_example_names_variables_with_values_that_are_accepted(program: Terraform, copy: Path) -> None:
    values = (TERRAFORM / "terraform.tfvars.example").read_text("utf-8").replace("acme-adaptml", PROJECT)
    (copy / "tests" / "example.tftest.hcl").write_text(
        f'mock_provider "google" {{}}\nrun "example" {{\n  command = plan\n  variables {{\n{values}\n'
        'functions_archive = "tests/empty.zip"\n  }\n}\n',
        "utf-8",
    )
    done = program(copy, "test", "-no-color", "-filter=tests/example.tftest.hcl")
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"^(?:# )?(\w+) += ", values, re.M))
    assert named <= set(re.findall(r'^variable "(\w+)"', (TERRAFORM / "variables.tf").read_text("utf-8"), re.M))


def test_documents_name_outputs_that_there_are() -> None:
    there = set(re.findall(r'^output "(\w+)"', (TERRAFORM / "outputs.tf").read_text("utf-8"), re.M))
    documents = [TERRAFORM / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {name for path in documents for name in re.findall(r"terraform output -\w+ (\w+)", path.read_text("utf-8"))}
    assert {"drops", "images", "environment", "delivery", "dashboard_url"} <= named <= there


def test_every_variable_has_a_type_and_those_of_the_root_a_description_and_a_check() -> None:
    unchecked = {"labels", "deletion_protection", "calls_gcloud"}
    for path in files(TERRAFORM):
        if path.name == "variables.tf":
            for name, body in re.findall(r'^variable "(\w+)" \{$(.*?)^\}$', path.read_text("utf-8"), re.M | re.S):
                assert re.search(r"^  type\s+= ", body, re.M), f"{path}: {name}"
                if path.parent == TERRAFORM:
                    assert "description" in body, name
                    assert "validation {" in body or name in unchecked, name


# What the schema knows, Terraform says at once.
UNKNOWN = {
    "a setting that there is not": (
        "modules/job/main.tf", "max_retries = 0", "retries = 0", 'An argument named "retries" is not expected here'),
    "a block that there is not": (
        "modules/database/main.tf", "ttl_config {}", "time_to_live {}", 'Blocks of type "time_to_live" are'),
    "a required setting that is missing": (
        "modules/trigger/main.tf", "  location        = var.location\n", "", 'The argument "location" is required'),
    "a value of another type": (
        "modules/function/main.tf", "= 540", '= "soon"', "a number is required"),
    "a result that there is not": (
        "modules/job/outputs.tf", "google_cloud_run_v2_job.this.name", "google_cloud_run_v2_job.this.label",
        'no argument, nested block, or exported attribute named "label"'),
    "two blocks where there is one": (
        "modules/bucket/main.tf", "  versioning {", "  versioning {\n    enabled = true\n  }\n  versioning {",
        'No more than 1 "versioning" blocks are allowed'),
}  # fmt: skip


@pytest.mark.parametrize(("file", "right", "wrong", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_the_schema_bites(program: Terraform, copy: Path, file: str, right: str, wrong: str, said: str) -> None:
    with planted(copy / file, right, wrong):
        done = program(copy, "validate", "-no-color")
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())


# What it does not know, the assertions of terraform/tests/ do. All are planted at once: each is said.
WRONG = {
    "zonal redundancy": (
        "modules/job/main.tf", "var.gpu == null ? null : true", "false", "Zonal redundancy costs a third more"),
    "Cloud Run's retries": ("modules/job/main.tf", "max_retries = 0", "max_retries = 3", "The reconciler decides on"),
    "two tasks": ("modules/job/main.tf", "task_count  = 1", "task_count  = 2", "An execution is one task"),
    "a default timeout": ("modules/job/main.tf", '"${var.timeout_s}s"', '"600s"', "ten minutes if nothing is said"),
    "open to the internet": (
        "functions.tf", '"ALLOW_ALL" : "ALLOW_INTERNAL_ONLY"', '"ALLOW_INTERNAL_ONLY" : "ALLOW_ALL"',
        "Nobody outside may reach a function"),
    "a token of development": (
        "functions.tf", "ADAPTML_API_MEMBERS   = ", "ADAPTML_API_TOKENS = jsonencode({}), ADAPTML_API_MEMBERS = ",
        "Tokens of development are for the local cloud"),
    "another event": (
        "modules/trigger/main.tf", "? var.event :", '? "google.cloud.storage.object.v1.deleted" :',
        "Intake is called for each finalized object"),
    "no versions": (
        "modules/bucket/main.tf", "enabled = true", "enabled = false", "Buckets are versioned, and never public"),
    "live objects deleted": (
        "modules/bucket/main.tf", '= "ARCHIVED"', '= "LIVE"', "No lifecycle rule deletes a live object"),
    "Datastore mode": (
        "modules/database/main.tf", '"FIRESTORE_NATIVE"', '"DATASTORE_MODE"', "in native mode"),
    "no recovery": (
        "modules/database/main.tf", '"POINT_IN_TIME_RECOVERY_ENABLED"', '"POINT_IN_TIME_RECOVERY_DISABLED"',
        "A slip can be taken back for a week"),
    "a binary schema": ("modules/topics/main.tf", '"JSON"', '"BINARY"', "Pub/Sub enforces the schema"),
    "more than it needs": (
        "rights.tf", '"run.jobs.runWithOverrides"]', '"run.jobs.runWithOverrides", "run.jobs.update"]',
        "Who starts the job may do nothing else"),
    "a basic role": ("rights.tf", '"roles/logging.logWriter"', '"roles/editor"', "none is a basic role"),
    "a seldom tick": ("wakeups.tf", '"* * * * *"', '"0 * * * *"', "The reconciler is woken each minute"),
    "one delivery": (
        "../schemas/topology.yaml", "max_delivery_attempts: 10", "max_delivery_attempts: 5",
        "A message is given up after ten deliveries"),
    "no alert": ("modules/alerts/main.tf", "    spend = {", "    spending = {", "a stuck queue and spending"),
}  # fmt: skip


# Of the page and the playground: what fails at once ends the run of the tests, so these have one of their own.
WRONG_FACES = {
    "whoever signs in": (
        "dashboard.tf", "[local.agents.iap]", "[\"serviceAccount:adaptml-api@adaptml-test.iam.gserviceaccount.com\"]",
        "Nobody calls the page but the proxy"),
    "another caller": (
        "dashboard.tf", 'invokers        = ["serviceAccount:${local.accounts["dashboard"]}"]',
        'invokers        = ["serviceAccount:${local.accounts["api"]}"]', "The page alone calls the playground"),
    "no look at callers": (
        "modules/service/main.tf", "invoker_iam_disabled = false", "invoker_iam_disabled = true",
        "Cloud Run looks at who calls"),
    "one account for both": (
        "dashboard.tf", 'service_account = local.accounts["playground"]',
        'service_account = local.accounts["dashboard"]', "Each face has an account of its own"),
    "always there": (
        "modules/service/main.tf", "min_instance_count = 0", "min_instance_count = 1", "What nobody asks costs"),
    "two playgrounds": ("dashboard.tf", "max_instances    = 1", "max_instances    = 2", "There is one playground"),
    "zonal redundancy": (
        "modules/service/main.tf", "var.gpu == null ? null : true", "false", "has one NVIDIA L4, without zonal"),
    "a CPU that sleeps": (
        "modules/service/main.tf", "= var.gpu == null\n", "= true\n", "gives a GPU to nobody whose CPU sleeps"),
    "a session that is lost": ("dashboard.tf", "session_affinity = true", "session_affinity = false", "finds it again"),
    "the page's image for both": ("dashboard.tf", "= var.trainer_image", "= var.dashboard_image", "the playground the"),
    "models that can be written": (
        "modules/service/main.tf", "read_only = true", "read_only = false", "mounted where the playground"),
    "another audience": (
        "dashboard.tf", 'services/adaptml-dashboard"', 'services/adaptml-page"', "the proxy's word for itself alone"),
    "open to whoever comes": (
        "dashboard.tf", 'ADAPTML_DASHBOARD_ADDRESS = "0.0.0.0"', 'ADAPTML_DASHBOARD_TENANTS = "acme"',
        "Open to whoever comes is the local cloud alone"),
    "no proxy": ("modules/service/main.tf", " --iap ", " --no-iap ", "The proxy is put before the page"),
    "more than it reads": (
        "rights.tf", 'part = "playground", kind = "bucket", on = "models", role = "roles/storage.objectViewer"',
        'part = "playground", kind = "bucket", on = "models", role = local.writer', "and may nothing else"),
    "a topic of others": (
        "rights.tf", 'part = "dashboard", kind = "topic", on = "run-commands"',
        'part = "dashboard", kind = "topic", on = "run-ready"', "publishes commands and signs as itself"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", [WRONG, WRONG_FACES], ids=["all", "faces"])
def test_the_assertions_bite(program: Terraform, copy: Path, wrong: dict[str, tuple[str, str, str, str]]) -> None:
    with ExitStack() as faults:
        for file, right, planted_, _ in wrong.values():
            faults.enter_context(planted(copy / file, right, planted_))
        done = program(copy, "test", "-no-color", "-filter=tests/deployment.tftest.hcl")
    assert done.returncode != 0
    told = " ".join(done.stderr.split())
    assert {fault for fault, (_, _, _, said) in wrong.items() if said not in told} == set()


def test_what_is_run_after_an_apply_puts_the_proxy_before_the_page() -> None:
    """Without gcloud at hand it is a later step. A plan does not know the output: names of subscriptions are in it."""
    output = (TERRAFORM / "outputs.tf").read_text("utf-8").partition('output "delivery"')[2]
    assert "concat(values(module.triggers), module.dashboard)" in output.partition("\n}\n")[0]
    called = {
        run: [r.values["input"] for r in deployment().resources("terraform_data", run=run) if "proxy" in r.address]
        for run in (FACES, PEOPLE)
    }
    [command] = called[FACES]
    assert command.endswith(" --iap --quiet")
    assert called[PEOPLE] == []


@contextmanager
def planted(path: Path, right: str, wrong: str) -> Iterator[None]:
    """A fault in a file, for as long as a block lasts."""
    before = path.read_text("utf-8")
    assert right in before, (path, right)
    path.write_text(before.replace(right, wrong), "utf-8")
    try:
        yield
    finally:
        path.write_text(before, "utf-8")


def test_a_machine_without_terraform_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="apt-get install -y terraform"), terraform():
        pass


def test_the_readme_names_terraform_among_what_must_be_there() -> None:
    prerequisites = (ROOT / "README.md").read_text("utf-8").partition("**Prerequisites**")[2].partition("\n## ")[0]
    assert "Terraform 1.11 or newer" in prerequisites
    assert "apt-get install -y terraform" in prerequisites
