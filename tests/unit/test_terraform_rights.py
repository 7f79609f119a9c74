"""Nothing is bound that terraform/rights.tf does not list with a reason, and nothing to the public."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from schemas import layout
from tests.terraform.deployment import DEFAULTS, EVERYTHING, FACES, PEOPLE, PROJECT, Resource, deployment
from tests.terraform.rights import KINDS, Grant, bound, grants, listed, part_of
from tests.terraform.sources import TERRAFORM, files


@pytest.mark.parametrize("run", [DEFAULTS, FACES])
def test_each_binding_is_listed_and_each_right_is_bound(run: str) -> None:
    bindings = Counter((part, *_where(resource), resource.values["role"]) for resource, part in bound(run))
    rights = Counter((right["part"], right["kind"], right["on"], right["role"]) for right in listed(run))
    assert bindings == rights


def _where(resource: Resource) -> tuple[str, str]:
    """Kind and name, as the list has them."""
    kind, attribute = KINDS[resource.type]
    value = str(resource.values.get(attribute, "")).rsplit("/", 1)[-1]
    condition = json.dumps(resource.values.get("condition"))
    if kind == "project":
        narrowed = {"databases/(default)": "database", "gcf-v2-sources-": "build_sources"}
        return kind, next((name for sign, name in narrowed.items() if sign in condition), "project")
    if kind == "subscription":
        found = re.search(r'triggers\["([\w-]+)"\]', resource.address)
        return kind, found[1] if found else value
    if kind == "account":
        return kind, part_of(value)
    if kind == "service":
        return kind, value.removeprefix("adaptml-")
    names = {"adaptml-trainer": "trainer", "adaptml": "images", "adaptml-hub-token": "hub_token"}
    return kind, names.get(value, value.removeprefix(f"{PROJECT}-") if kind == "bucket" else value)


def test_what_can_be_chosen_is_bound_to_who_was_named() -> None:
    others = {(resource.type, part) for resource, part in bound(EVERYTHING)} - {
        (resource.type, part) for resource, part in bound()
    }
    keys = {part for kind, part in others if kind == "google_kms_crypto_key_iam_member"}
    assert all(
        re.fullmatch(r"Google: \w+|serviceAccount:service-[0-9]+@[\w-]+\.iam\.gserviceaccount\.com", k) for k in keys
    )
    assert {pair for pair in others if pair[0] != "google_kms_crypto_key_iam_member"} == {
        ("google_storage_managed_folder_iam_member", "group:ml@example.com"),
        ("google_storage_managed_folder_iam_member", "serviceAccount:serving@example.iam.gserviceaccount.com"),
        ("google_pubsub_topic_iam_member", "serviceAccount:nightly@example.iam.gserviceaccount.com"),
        ("google_pubsub_subscription_iam_member", "serviceAccount:serving@example.iam.gserviceaccount.com"),
        ("google_cloud_run_service_iam_member", "serviceAccount:serving@example.iam.gserviceaccount.com"),
    }


def test_a_page_and_a_playground_change_no_right_of_others() -> None:
    faces = {"dashboard", "playground", "Google: iap"}
    assert [right for right in listed(FACES) if right["part"] not in faces] == listed()
    assert not faces & {right["part"] for right in listed()}


def test_the_proxy_lets_in_people_whom_tenants_name_and_nobody_else() -> None:
    let_in = [(r.values["cloud_run_service_name"], r.values["role"], part) for r, part in bound(PEOPLE)
              if r.type == "google_iap_web_cloud_run_service_iam_member"]  # fmt: skip
    people = ("user:ann@example.com", "user:bob@example.com")
    assert sorted(let_in) == [("adaptml-dashboard", "roles/iap.httpsResourceAccessor", person) for person in people]
    assert not any(r.type.startswith("google_iap") for run in (DEFAULTS, EVERYTHING, FACES) for r, _ in bound(run))


@pytest.mark.parametrize("run", [DEFAULTS, EVERYTHING, FACES, PEOPLE])
def test_nothing_is_bound_to_the_public(run: str) -> None:
    said = json.dumps([resource.values for resource in deployment().resources(run=run)])
    assert "allUsers" not in said
    assert "allAuthenticatedUsers" not in said


def test_no_policy_is_replaced_and_no_key_or_value_of_a_secret_is_made() -> None:
    """A binding or a policy would take away what others have bound; keys and values would lie in the state."""
    for path in files(TERRAFORM):
        for kind in re.findall(r'^resource "(\w+)"', path.read_text("utf-8"), re.M):
            assert not re.search(r"_iam_(binding|policy)$|service_account_key|secret_version", kind), (path, kind)


def _writers(kind: str, run: str = DEFAULTS) -> dict[str, list[Grant]]:
    """Part → its rights to write into a bucket."""
    writers: dict[str, list[Grant]] = {}
    for grant in grants(run):
        if grant.kind == "bucket" and grant.on == kind and "storage.objects.create" in grant.permissions:
            writers.setdefault(grant.part, []).append(grant)
    return writers


def _allows(writers: list[Grant], name: str) -> bool:
    return any(grant.covers(name) for grant in writers)


def test_of_a_drops_folder_only_our_files_may_be_written() -> None:
    writers = _writers("drops")
    assert set(writers) == {"intake", "requests", "commands", "dispatch", "reconcile", "trainer", "api"}
    for part, theirs in writers.items():
        for file in (layout.STATUS, layout.REJECTED):
            assert _allows(theirs, layout.drop_prefix("acme", "bot") + file), (part, file)
        assert not _allows(theirs, "acme/bot/train.jsonl")
        assert not _allows(theirs, "acme/bot/manifest.yaml")
    file = layout.file_object("acme", "file-1", "train.jsonl")
    assert [part for part in writers if _allows(writers[part], file)] == ["api"]
    assert all(_allows(writers["intake"], f"acme/bot/{file}") for file in layout.OUR_FILES)


def test_the_page_copies_drops_and_says_where_aliases_point_and_writes_nothing_else() -> None:
    folder = layout.drop_prefix("acme", "bot")
    [copies] = _writers("drops", FACES)["dashboard"]
    assert all(copies.covers(folder + name) for name in (*layout.MANIFEST_NAMES, "train.jsonl", "MY-STATUS.json"))
    assert not any(copies.covers(folder + name) for name in layout.OUR_FILES)
    [says] = _writers("artifacts", FACES)["dashboard"]
    assert says.covers(layout.aliases_object("acme", "bot"))
    assert not says.covers(layout.version_prefix("acme", "bot", 1) + "adapter_model.safetensors")
    assert not says.covers(layout.audit_object("acme", "acme-bot-0123456789", 1))
    assert "dashboard" not in _writers("models", FACES)


def test_the_playground_reads_versions_and_models_and_nothing_that_lies_beside_them() -> None:
    may = {grant.on: grant for grant in grants(FACES) if grant.part == "playground"}
    assert set(may) == {"artifacts", "models"}
    assert {grant.permissions for grant in may.values()} == {frozenset({"storage.objects.get", "storage.objects.list"})}
    assert may["artifacts"].covers(layout.version_prefix("acme", "bot", 1) + "adapter_model.safetensors")
    assert not may["artifacts"].covers(layout.audit_object("acme", "acme-bot-0123456789", 1))


def test_in_the_artifacts_bucket_each_part_writes_where_it_has_to() -> None:
    writers = _writers("artifacts")
    names = {
        "audit": layout.audit_object("acme", "acme-bot-0123456789", 1),
        "dead letter": layout.dead_letter_object("run-ready", "1"),
        "version": layout.version_prefix("acme", "bot", 1) + "adapter_model.safetensors",
        "staging": layout.staging_prefix("acme", "bot", "acme-bot-0123456789", 1, 0) + "run.json",
        "checkpoint": layout.checkpoint_prefix("acme", "bot", "acme-bot-0123456789") + "e1-s1.safetensors",
    }
    may = {part: {what for what, name in names.items() if _allows(theirs, name)} for part, theirs in writers.items()}
    adapter = {"audit", "version", "staging", "checkpoint"}
    assert may == {
        "intake": {"audit"},
        "dispatch": {"audit"},
        "requests": {"audit", "dead letter"},
        "commands": {"audit", "dead letter"},
        "undelivered": {"dead letter"},
        "api": {"audit"},
        "reconcile": adapter,
        "trainer": adapter,
    }


def test_who_starts_the_job_and_who_looks_after_it() -> None:
    roles: dict[str, set[Any]] = {}
    for resource, part in bound():
        if resource.type == "google_cloud_run_v2_job_iam_member":
            assert resource.values["name"] == "adaptml-trainer"
            roles.setdefault(part, set()).add(resource.values["role"].rsplit("/", 1)[-1])
    assert roles == {"dispatch": {"adaptmlJobStarter"}, "reconcile": {"adaptmlJobStarter", "adaptmlExecutionKeeper"}}


def test_who_publishes_to_which_topic() -> None:
    publishers: dict[str, set[str]] = {}
    for resource, part in bound():
        if resource.type == "google_pubsub_topic_iam_member":
            publishers.setdefault(resource.values["topic"].rsplit("/", 1)[-1], set()).add(part)
    announcing = {"intake", "requests", "commands", "dispatch", "reconcile", "trainer", "api"}
    assert publishers.pop("run-events") == publishers.pop("run-ready") == announcing
    assert publishers.pop("reconcile") == {"Google: scheduler", "Google: sink"}
    assert publishers.pop("run-requests") == publishers.pop("run-commands") == {"api"}
    assert set(map(tuple, publishers.values())) == {("Google: pubsub",)}
    assert all(topic.endswith("-dead") for topic in publishers)
