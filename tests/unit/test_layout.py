from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import layout
from schemas.layout import DropPath, ObjectRole
from schemas.manifest import is_drop_name


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("acme/bot/manifest.yaml", ObjectRole.MANIFEST),
        ("acme/bot/manifest.yml", ObjectRole.MANIFEST),
        ("acme/bot/manifest.json", ObjectRole.MANIFEST),
        ("acme/bot/train.jsonl", ObjectRole.DATA),
        ("acme/bot/data/manifest.yaml", ObjectRole.DATA),
        ("acme/bot/STATUS.json", ObjectRole.IGNORED),
        ("acme/bot/REJECTED.md", ObjectRole.IGNORED),
        ("acme/bot/validation-report.json", ObjectRole.IGNORED),
        ("acme/bot/folder/", ObjectRole.IGNORED),
    ],
)
def test_role_of_an_object(name: str, role: ObjectRole) -> None:
    dropped = DropPath.parse("drops", name)
    assert dropped is not None
    assert dropped.role is role


@pytest.mark.parametrize(
    "name", ["manifest.yaml", "acme/manifest.yaml", "//manifest.yaml", "acme//manifest.yaml",
             "gcloud/tmp/parallel_composite_uploads/see_gcloud_storage_cp_help/x_component_0"],
)  # fmt: skip
def test_what_lies_in_no_drop_is_none(name: str) -> None:
    assert DropPath.parse("drops", name) is None


def test_run_id_is_readable_and_follows_from_its_cause() -> None:
    one = layout.run_id("acme", "support-bot", "drops", "acme/support-bot/manifest.yaml", "17")
    assert one == layout.run_id("acme", "support-bot", "drops", "acme/support-bot/manifest.yaml", "17")
    assert one != layout.run_id("acme", "support-bot", "drops", "acme/support-bot/manifest.yaml", "18")
    assert one.startswith("acme-support-bot-")
    assert len(one) == len("acme-support-bot-") + 10


def test_the_label_of_a_run_id_does_not_tell_causes_apart() -> None:
    assert layout.run_id("t", "a", "request", "1")[-10:] == layout.run_id("t", "b", "request", "1")[-10:]


@given(st.text(max_size=200))
def test_a_slug_can_name_a_drop(text: str) -> None:
    assert is_drop_name(layout.slug(text))


@given(st.text(max_size=50), st.text(max_size=200), st.text(max_size=50))
def test_a_run_id_is_always_a_document_id(tenant: str, label: str, identity: str) -> None:
    run_id = layout.run_id(tenant, label, identity)
    assert "/" not in run_id
    assert len(run_id) < 128


@pytest.mark.parametrize("text", ["", "s3://a/b", "gs://", "gs://b", "gs://b/", "http://x/y"])
def test_bad_uris_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a gs:// URI"):
        layout.parse_uri(text)


def test_a_task_that_is_begun_anew_uploads_to_a_folder_of_its_own() -> None:
    prefixes = {layout.staging_prefix("acme", "bot", "acme-bot-1", epoch, task) for epoch in (1, 2) for task in (0, 1)}
    assert len(prefixes) == 4
    assert layout.parse_staged("acme/bot/.staging/acme-bot-1/e2t1/a/b.json") == ("acme-bot-1", 2, 1, "a/b.json")
