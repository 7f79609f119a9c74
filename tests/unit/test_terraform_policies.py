"""checkov finds nothing in terraform/ that is not explained, and finds what is planted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.terraform.deployment import DEFAULTS, EVERYTHING, FACES, PEOPLE, Resource, deployment
from tests.terraform.scan import Finding, as_plan, scan
from tests.terraform.sources import ROOT

EXPLAINED = {"CKV_GCP_62", "CKV_GCP_63", "CKV_GCP_83", "CKV_GCP_84", "CKV_GCP_124"}
"""Each stands in docs/security.md with its reason."""
OF_GOOGLES_KEYS = {"CKV_GCP_83", "CKV_GCP_84"}


def _resource(kind: str, **values: Any) -> dict[str, Any]:
    return {"type": kind, "address": f"{kind}.planted", "values": values}


PLANTED: dict[tuple[str, str], dict[str, Any]] = {
    ("CKV2_ADAPTML_1", "google_cloud_run_service_iam_member"): {"member": "allUsers", "role": "roles/run.invoker"},
    ("CKV2_ADAPTML_1", "google_pubsub_topic_iam_member"): {
        "member": "allAuthenticatedUsers",
        "role": "roles/pubsub.publisher",
    },
    ("CKV2_ADAPTML_1", "google_storage_managed_folder_iam_member"): {
        "member": "allUsers",
        "role": "roles/storage.objectViewer",
    },
    ("CKV2_ADAPTML_1", "google_cloud_run_v2_service_iam_member"): {"member": "allUsers", "role": "roles/run.invoker"},
    ("CKV2_ADAPTML_1", "google_iap_web_cloud_run_service_iam_member"): {
        "member": "allAuthenticatedUsers",
        "role": "roles/iap.httpsResourceAccessor",
    },
    ("CKV2_ADAPTML_2", "google_cloudfunctions2_function"): {
        "service_config": [{"ingress_settings": "ALLOW_INTERNAL_AND_GCLB"}]
    },
    ("CKV2_ADAPTML_3", "google_service_account_key"): {"service_account_id": "projects/p/serviceAccounts/a"},
    ("CKV2_ADAPTML_4", "google_secret_manager_secret_version"): {"secret": "projects/p/secrets/s"},
    ("CKV2_ADAPTML_5", "google_project_iam_member"): {"role": "roles/datastore.user", "member": "user:a@example.com"},
    ("CKV2_ADAPTML_6", "google_cloudfunctions2_function"): {},
    ("CKV2_ADAPTML_7", "google_cloud_run_v2_service"): {"invoker_iam_disabled": True},
    ("CKV_GCP_114", "google_storage_bucket"): {"public_access_prevention": "inherited"},
    ("CKV_GCP_29", "google_storage_bucket"): {"uniform_bucket_level_access": False},
    ("CKV_GCP_78", "google_storage_bucket"): {"versioning": [{"enabled": False}]},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[set[Finding], int]]:
    folder = tmp_path_factory.mktemp("plans")
    seen: list[Resource] = []
    for run in (DEFAULTS, EVERYTHING, FACES, PEOPLE):
        fresh = [row for row in deployment().resources(run=run) if row not in seen]
        seen += fresh
        rows = [_resource(row.type, **row.values) | {"address": row.address} for row in fresh]
        (folder / f"{run}.json").write_text(as_plan(rows), "utf-8")
    planted: dict[str, dict[str, Any]] = {}
    for (_, kind), values in PLANTED.items():
        planted.setdefault(kind, {}).update(values)
    rows = [_resource(kind, **values) for kind, values in planted.items()]
    (folder / "planted.json").write_text(as_plan(rows), "utf-8")
    return scan(folder)


@pytest.mark.parametrize(("run", "explained"), [(DEFAULTS, EXPLAINED), (EVERYTHING, EXPLAINED - OF_GOOGLES_KEYS)])
def test_no_finding_is_left_unexplained(
    found: dict[str, tuple[set[Finding], int]], run: str, explained: set[str]
) -> None:
    broken, kept = found[f"{run}.json"]
    assert {finding for finding in broken if finding.rule not in explained} == set()
    assert {finding.rule for finding in broken} == explained
    assert kept > 50


@pytest.mark.parametrize("run", [FACES, PEOPLE])
def test_page_and_playground_add_no_finding(found: dict[str, tuple[set[Finding], int]], run: str) -> None:
    broken, kept = found[f"{run}.json"]
    assert {finding for finding in broken if finding.rule not in EXPLAINED} == set()
    assert not {
        finding
        for finding in broken
        if "module.dashboard" in finding.resource or "module.playground" in finding.resource
    }
    assert kept > 10


@pytest.mark.parametrize(("rule", "kind"), PLANTED)
def test_the_rules_bite(found: dict[str, tuple[set[Finding], int]], rule: str, kind: str) -> None:
    broken, _ = found["planted.json"]
    assert Finding(rule, f"{kind}.planted") in broken


def test_each_finding_that_stays_is_explained() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert all(f"| {rule} |" in text for rule in EXPLAINED)
