"""Names that lead elsewhere: in manifests, defaults, requests, events and folders."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from google.cloud import storage
from typer.testing import CliRunner

from adaptml.cli import app
from adaptml.jobs import Jobs
from functions import bucket_events, dispatcher, run_requests
from functions.bucket_events import Landed
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.layout import DropPath
from schemas.messages import RunRequest
from schemas.run import Run
from schemas.run_states import RunState
from tests.simulation.cloud import DROPS
from tests.unit.attacked import MODEL, ROWS, Attacked, logged, manifest

THEIRS = "other/bot/train.jsonl"
LEADING_OUT = [
    "../../other/bot/train.jsonl",
    "..",
    "../bot/train.jsonl",
    "a/../../../other/bot/train.jsonl",
    "/other/bot/train.jsonl",
    "//other/bot/train.jsonl",
    "./train.jsonl",
    "a/./b",
    "a//b",
    "a/",
    ".",
    "..\\..\\other\\bot\\train.jsonl",
    "a\\b",
    f"gs://{DROPS}/other/bot/train.jsonl",
    "file:///etc/passwd",
    "https://example.org/x",
    "a\nb",
    "a\x00b",
    "a\u202eb",
    "a\u200bb",
]
"""Refused as they are."""
LOOKING_LIKE = [
    "%2e%2e/%2e%2e/other/bot/train.jsonl",
    "%2e%2e%2fother%2fbot%2ftrain.jsonl",
    "..%2f..%2fother",
    "%252e%252e%252fother",
    "․․/․․/other/bot/train.jsonl",
    "．．/．．/other/bot/train.jsonl",
    "..∕..∕other∕bot∕train.jsonl",
    "..⁄other",
    "..＼other",
    "~/train.jsonl",
    "~other/train.jsonl",
    "$HOME/train.jsonl",
    "${HOME}.jsonl",
    "`id`.jsonl",
    "$(id).jsonl",
    "*",
    "?rain.jsonl",
    "train.jsonl@",
    "train.jsonl.lnk",
    "train.jsonl -> other/bot/train.jsonl",
    "train.jsonl#1",
    "train.jsonl?generation=1",
    "-rf",
    "--help",
    "CON",
    "train.jsonl:stream",
    "ТRAIN.jsonl",
    "...",
    "..a",
    "other/bot/train.jsonl",
    "acme/bot/train.jsonl",
]
"""To somebody who decoded, folded or expanded them they would lead out. Nobody does: they are objects of the folder."""


@pytest.fixture
def world() -> Attacked:
    """Another tenant has data, which a drop would be good to train on."""
    made = Attacked()
    made.put(THEIRS, ROWS)
    made.put("other/bot/manifest.yaml", manifest())
    return made


@pytest.fixture
def touched(world: Attacked) -> Iterator[set[str]]:
    """Names of all objects that are read, written, listed or deleted."""
    names: set[str] = set()
    reached = world.cloud.storage.reached

    def noted(what: str, bucket: str, name: str) -> Any:
        names.add(f"{bucket}/{name}")
        return reached(what, bucket, name)

    with mock.patch.object(world.cloud.storage, "reached", noted):
        yield names


def is_acmes(name: str) -> bool:
    """In the tenant's folder, in its audit trail, or a tokenizer."""
    return name.startswith(
        (f"{DROPS}/acme/", "artifacts/acme/", "artifacts/_audit/acme/", "artifacts/_audit", "models/")
    )


# Manifests and defaults


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_name_that_leads_out_refuses_the_drop(world: Attacked, touched: set[str], name: str, part: str) -> None:
    dataset = {"train": ["train.jsonl"]} | {part: [name]}
    run = world.drop(manifest(dataset=dataset))
    assert run.state is RunState.REJECTED
    assert run.error is not None
    assert run.error.code == "unsafe_path"
    assert not [name for name in touched if not is_acmes(name)]


@pytest.mark.parametrize("name", LOOKING_LIKE)
def test_a_name_that_looks_as_if_it_led_out_is_looked_for_in_the_folder(
    world: Attacked, touched: set[str], name: str
) -> None:
    waiting = world.drop(manifest(dataset={"train": [name]}))
    assert waiting.state is RunState.AWAITING_DATA
    assert waiting.dataset.missing == [name]
    assert f"{DROPS}/acme/bot/{name}" in touched
    assert not [name for name in touched if not is_acmes(name)]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_tenants_defaults_lead_nowhere_else_either(world: Attacked, touched: set[str], name: str) -> None:
    world.put("acme/_defaults.yaml", json.dumps({"dataset": {"validation": [name]}}).encode())
    run = world.drop(manifest())
    assert run.error is not None
    assert (run.error.code, run.error.details[0].file) == ("unsafe_path", layout.DEFAULTS)
    assert not [name for name in touched if not is_acmes(name)]


@pytest.mark.parametrize(
    "name", ["../other", "a/b", "..", ".", "A", "a.b", "a~b", "-a", "a\n", "a" * 49, "ａ", "_audit", ""]
)
def test_an_adapter_has_a_name_that_is_no_path(world: Attacked, name: str) -> None:
    """Versions, checkpoints and staging lie in a folder of this name."""
    run = world.drop(manifest(name=name))
    assert run.state is RunState.REJECTED
    assert run.name == "bot"


@pytest.mark.parametrize(
    "model",
    [
        "evil/model",
        "../../models/evil",
        "/models/evil",
        "HuggingFaceTB--SmolLM2-135M-Instruct",
        f"{MODEL}/../evil",
        f"{MODEL} ",
        MODEL.lower(),
        f"https://huggingface.co/{MODEL}",
        "gs://models/evil",
        f"{MODEL}@main",
    ],
)
def test_a_base_model_is_one_of_the_catalogue_or_none(world: Attacked, touched: set[str], model: str) -> None:
    assert model not in CATALOGUE
    run = world.drop(manifest(base_model=model))
    assert run.error is not None
    assert run.error.code == "unknown_base_model"
    assert not [name for name in touched if name.startswith("models/")]


def test_what_is_written_in_an_object_is_no_link(world: Attacked, touched: set[str]) -> None:
    """As a file system would see links that were copied as they are, or a mounted bucket by metadata."""
    world.cloud.storage.put(
        DROPS, "acme/bot/train.jsonl", b"../../other/bot/train.jsonl", {"gcsfuse_symlink_target": f"/{THEIRS}"}, None
    )
    run = world.drop(manifest(), files={})
    assert run.state is RunState.REJECTED
    assert run.error is not None
    assert run.error.code == "invalid_json"
    assert f"{DROPS}/{THEIRS}" not in touched


# Objects that land


@pytest.mark.parametrize(
    "name",
    [
        "acme/../manifest.yaml",
        "acme/./manifest.yaml",
        "../bot/manifest.yaml",
        "./bot/manifest.yaml",
        "acme//manifest.yaml",
        "/bot/manifest.yaml",
        "acme/bot",
        "acme/manifest.yaml",
        "manifest.yaml",
        "_defaults.yaml",
        "acme/_defaults.yaml",
    ],
)
def test_what_lies_in_no_folder_of_a_drop_starts_nothing(name: str) -> None:
    assert DropPath.parse(DROPS, name) is None


@pytest.mark.parametrize(
    "name",
    ["Manifest.yaml", "manifest.yaml ", "manifest.yaml\u200b", "ｍanifest.yaml", "x/manifest.yaml", "manifest.yaml/"],
)
def test_what_is_called_almost_like_a_manifest_commits_nothing(world: Attacked, name: str) -> None:
    path = DropPath.parse(DROPS, f"acme/bot/{name}")
    assert path is not None
    bucket_events.take(world.services, Landed(path, world.put(f"acme/bot/{name}", manifest()), world.services.now()))
    assert world.cloud.database.documents("runs") == {}


@pytest.mark.parametrize(
    "tenant", ["ACME", "..a", "a.b", "ａcme", "acme ", "_audit", "a" * 60, "-", "acme%2f..%2fother"]
)
def test_a_folder_that_names_no_tenant_is_refused_within_it(world: Attacked, touched: set[str], tenant: str) -> None:
    run = world.drop(manifest(), folder=f"{tenant}/bot")
    assert run.state is RunState.REJECTED
    assert run.error is not None
    assert run.error.code == "bad_drop_name"
    allowed = (f"{DROPS}/{tenant}/", f"artifacts/_audit/{tenant}/")
    assert not [name for name in touched if not name.startswith(allowed) and name != f"artifacts/{layout.AUDIT}"]


@pytest.mark.parametrize("name", [*LOOKING_LIKE, *LEADING_OUT])
def test_googles_client_asks_for_one_object_by_its_name_as_it_is(name: str) -> None:
    """A name is one segment of the address; no part of it is a path to whoever reads that."""
    path = storage.Client.create_anonymous_client().bucket(DROPS).blob(f"acme/bot/{name}").path
    before, _, last = path.rpartition("/")
    assert before == f"/b/{DROPS}/o"
    assert urllib.parse.unquote(last) == f"acme/bot/{name}"
    assert "." not in {last, urllib.parse.unquote(before)}


# Requests


def ask(world: Attacked, **fields: Any) -> Run:
    asked = {"request_id": "r", "tenant": "acme", "manifest_uri": "", "manifest": "", "dataset_uris": []} | fields
    run_requests.take_request(world.services, RunRequest(**asked).to_bytes())
    return world.services.runs.get(layout.run_id_of_request("acme", "r"))


URIS = [
    f"gs://{DROPS}/other/bot/train.jsonl",
    f"gs://{DROPS}/acme/../other/bot/train.jsonl",
    f"gs://{DROPS}/acme/./bot/train.jsonl",
    f"gs://{DROPS}/acme//bot/train.jsonl",
    f"gs://{DROPS}//acme/bot/train.jsonl",
    f"gs://{DROPS}/acme/..\\..\\other\\train.jsonl",
    f"gs://{DROPS}/acme%2f..%2fother/train.jsonl",
    f"gs://{DROPS}/acme",
    f"gs://{DROPS}/",
    f"gs://{DROPS}",
    f"gs://{DROPS}x/acme/a/b",
    "gs://artifacts/acme/bot/v1/run.json",
    f"GS://{DROPS}/acme/bot/train.jsonl",
    f"s3://{DROPS}/acme/bot/train.jsonl",
    f"https://storage.googleapis.com/{DROPS}/acme/bot/train.jsonl",
    "acme/bot/train.jsonl",
    "/etc/passwd",
    f"gs://{DROPS}/acme/a\nb/c",
    f"gs://{DROPS}/acme\u200b/bot/train.jsonl",
    f"gs://{DROPS}/ａcme/bot/train.jsonl",
    f"gs://{DROPS}/Acme/bot/train.jsonl",
    f"gs://{DROPS}/acme2/bot/train.jsonl",
    f"gs://user@{DROPS}/acme/bot/train.jsonl",
    f"gs://{DROPS}:443/acme/bot/train.jsonl",
]


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("field", ["manifest_uri", "dataset_uris"])
def test_a_request_names_objects_of_its_tenant_or_is_refused(
    world: Attacked, touched: set[str], uri: str, field: str
) -> None:
    asked: dict[str, Any] = {"manifest_uri": uri}
    if field == "dataset_uris":
        asked = {"manifest": json.dumps({"base_model": MODEL, "name": "bot"}), "dataset_uris": [uri]}
    run = ask(world, **asked)
    assert run.state is RunState.REJECTED
    assert run.error is not None
    assert run.error.code == "foreign_object"
    assert not [name for name in touched if not is_acmes(name)]


@pytest.mark.parametrize(
    "tenant", ["", ".", "..", "acme/../other", "acme/", "/other", "Acme", "ａcme", "acme\n", "_audit", "acme~bot"]
)
def test_a_request_is_of_a_tenant_or_of_nobody(world: Attacked, tenant: str) -> None:
    with pytest.raises(run_requests.Unusable):
        ask(world, tenant=tenant, manifest_uri=f"gs://{DROPS}/{tenant}/bot/manifest.yaml")
    assert world.cloud.database.documents("runs") == {}


@pytest.mark.parametrize("name", LEADING_OUT)
def test_an_inline_manifest_leads_nowhere_else_either(world: Attacked, touched: set[str], name: str) -> None:
    text = json.dumps({"base_model": MODEL, "name": "bot", "dataset": {"train": [name]}})
    run = ask(world, manifest=text)
    assert run.error is not None
    assert run.error.code == "unsafe_path"
    assert not [name for name in touched if not is_acmes(name)]


# The job


def test_nothing_of_a_manifest_is_in_the_environment_or_the_arguments_of_a_job(world: Attacked) -> None:
    hostile = {
        "LD_PRELOAD": "/data/x.so",
        "RUN_ID": "other-run",
        "RUN_EPOCH": "99",
        "PYTHONPATH": "/data",
        "args": "--help",
    }
    run = world.drop(manifest(labels=hostile, name="rm-rf"), folder="acme/--entrypoint")
    assert run.state is RunState.QUEUED
    client = mock.Mock()
    client.run_job.return_value.metadata.name = "x/y"
    jobs = Jobs(client, mock.Mock(), "projects/p/locations/r/jobs/trainer")
    object.__setattr__(world.services, "jobs", jobs)
    dispatcher.fill(world.services)
    request = client.run_job.call_args.kwargs["request"]
    (container,) = request.overrides.container_overrides
    assert {item.name: item.value for item in container.env} == {"RUN_ID": run.run_id, "RUN_EPOCH": "1"}
    assert (list(container.args), container.clear_args, container.name) == ([], False, "")
    assert (request.name, request.overrides.task_count) == ("projects/p/locations/r/jobs/trainer", 1)


def test_a_run_id_is_letters_digits_and_hyphens_whatever_a_folder_is_called(world: Attacked) -> None:
    for name in ("$(id)", "a;b", "`x`", "A=B\nLD_PRELOAD=x", "../..", "\u202e", "-" * 50):
        run = world.drop(manifest(name="bot"), folder=f"acme/x{name}".replace("/..", ""))
        assert layout.is_run_id(run.run_id)


# Folders on a laptop


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A drop that somebody sent, beside a file that is nobody's business."""
    (tmp_path / "private.jsonl").write_bytes(ROWS)
    made = tmp_path / "acme" / "bot"
    made.mkdir(parents=True)
    (made / "manifest.yaml").write_bytes(manifest())
    return made


def check(folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["check", str(folder), *options], env={"COLUMNS": "1000", "ADAPTML_MODELS_DIR": None}
    )
    return result.exit_code, result.output


def test_a_link_to_what_lies_outside_is_not_read(folder: Path) -> None:
    (folder / "train.jsonl").symlink_to("../../private.jsonl")
    status, said = check(folder)
    assert status == 1
    assert "train.jsonl is a link to what lies outside of the folder [link_leads_out]" in said


def test_nor_is_one_behind_a_folder_that_is_a_link(folder: Path) -> None:
    (folder / "data").symlink_to(folder.parent.parent)
    (folder / "manifest.yaml").write_bytes(manifest(dataset={"train": ["data/private.jsonl"]}))
    assert "[link_leads_out]" in check(folder)[1]


@pytest.mark.parametrize("name", ["manifest.yaml", "../_defaults.yaml"])
def test_nor_a_manifest_or_defaults_that_are_links(folder: Path, name: str) -> None:
    (folder / "train.jsonl").write_bytes(ROWS)
    secret = folder.parent.parent / "secret.yaml"
    secret.write_text("password: hunter2\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    status, said = check(folder)
    assert status == 1
    assert "[link_leads_out]" in said
    assert "hunter2" not in said


def test_a_link_within_the_folder_is_a_file_like_another_and_so_may_the_folder_be(folder: Path, tmp_path: Path) -> None:
    (folder / "all.jsonl").write_bytes(ROWS)
    (folder / "train.jsonl").symlink_to("all.jsonl")
    (tmp_path / "here").symlink_to(folder)
    assert check(folder)[0] == 0
    assert check(tmp_path / "here")[0] == 0


@pytest.mark.parametrize("target", ["/dev/zero", "train.jsonl", "gone"])
def test_a_link_to_no_file_is_no_file(folder: Path, target: str) -> None:
    (folder / "train.jsonl").symlink_to(target)
    status, said = check(folder)
    assert status == 1
    assert "[link_leads_out]" in said or "[file_not_found]" in said


def test_a_pipe_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "train.jsonl")
    assert "[file_not_found]" in check(folder)[1]


@pytest.mark.parametrize("name", [layout.REPORT, layout.PREVIEW, layout.REJECTED])
@pytest.mark.parametrize("rows", [ROWS, b"[]\n"])
def test_what_is_written_beside_a_drop_does_not_go_through_a_link(folder: Path, name: str, rows: bytes) -> None:
    (folder / "train.jsonl").write_bytes(rows)
    (folder / name).symlink_to("../../private.jsonl")
    check(folder, "--out", str(folder))
    assert (folder.parent.parent / "private.jsonl").read_bytes() == ROWS
    assert not (folder / name).is_symlink()


def test_the_log_of_all_this_names_no_object_of_another(world: Attacked) -> None:
    with logged() as lines:
        for name in LEADING_OUT:
            world.drop(manifest(dataset={"train": [name]}))
    assert "other/bot" not in lines.getvalue()
