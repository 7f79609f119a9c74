"""The archive that is deployed, in an environment that has nothing but its own requirements."""

from __future__ import annotations

import json
import socket
import subprocess
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from functions.build import COMPILED, build, compiled, main
from schemas.topology import TOPOLOGY
from tests.cloud import DROPS, TestCloud, eventually


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder of the unpacked archive, python of its environment)."""
    folder = tmp_path_factory.mktemp("archive")
    build(folder / "functions.zip")
    with zipfile.ZipFile(folder / "functions.zip") as archive:
        archive.extractall(folder / "source")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    requirements = str(folder / "source" / "requirements.txt")
    install = [str(python), "-m", "pip", "install", "-q", "--require-hashes", "-r", requirements]
    subprocess.run(install, check=True, timeout=280)
    return folder / "source", python


@contextmanager
def served(
    source: Path, python: Path, target: str, environment: dict[str, str], signature: str = "cloudevent"
) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    command = [str(python), "-m", "functions_framework", "--target", target, "--signature-type", signature]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], cwd=source, env=clean)
    try:
        eventually(lambda: _listens(port), within_s=60)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(url: str, event_type: str, data: dict[str, Any]) -> int:
    headers = {
        "ce-id": "1", "ce-source": "//test", "ce-type": event_type, "ce-specversion": "1.0",
        "content-type": "application/json",
    }  # fmt: skip
    return requests.post(url, headers=headers, data=json.dumps(data), timeout=60).status_code


FINALIZED = "google.cloud.storage.object.v1.finalized"
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
STATUS = {"bucket": DROPS, "name": "acme/x/STATUS.json", "generation": "1", "timeCreated": "2026-11-25T01:00:00Z"}
EVENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "intake": (FINALIZED, STATUS),
    "requests": (PUBLISHED, {"message": {"data": "e30=", "messageId": "1"}}),
    "commands": (PUBLISHED, {"message": {"data": "e30=", "messageId": "2"}}),
    "dispatch": (PUBLISHED, {"message": {"data": "eyJydW5faWQiOiAibm9uZSIsICJhdHRlbXB0IjogMX0="}}),
    "reconcile": (PUBLISHED, {"message": {"data": "e30="}}),
    "undelivered": (PUBLISHED, {"message": {"data": "e30=", "messageId": "3", "attributes": {}}}),
}


@pytest.mark.parametrize("target", [name for name, trigger in TOPOLOGY.functions.items() if not trigger.http])
def test_every_entry_point_answers_from_the_archive_alone(
    cloud: TestCloud, unpacked: tuple[Path, Path], target: str
) -> None:
    source, python = unpacked
    event_type, data = EVENTS[target]
    with served(source, python, target, cloud.environment) as url:
        assert post(url, event_type, data) == 200
        assert post(url, event_type, {"nonsense": True}) == 200  # left alone: it would be no event the next time either


def test_the_api_answers_from_the_archive_alone(cloud: TestCloud, unpacked: tuple[Path, Path]) -> None:
    source, python = unpacked
    environment = cloud.environment | {"ADAPTML_API_TOKENS": '{"token": "acme"}'}
    with served(source, python, "api", environment, signature="http") as url:
        listed = requests.get(f"{url}v1/runs", headers={"Authorization": "Bearer token"}, timeout=60)
        assert (listed.status_code, listed.json()["object"]) == (200, "list")
        assert requests.get(f"{url}v1/runs", timeout=60).status_code == 401
        assert requests.get(f"{url}static-offline-docs/swagger-ui.css", timeout=60).ok


@pytest.mark.skipif(compiled() is None, reason="it cannot be compiled here")
def test_the_archive_has_what_is_in_c_and_it_runs(unpacked: tuple[Path, Path]) -> None:
    source, python = unpacked
    assert (source / COMPILED).exists()
    says = "from adaptml.dataset import native; print(native.certify is not None)"
    ran = subprocess.run([python, "-c", says], cwd=source, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "True\n"


def test_the_functions_carry_no_torch(unpacked: tuple[Path, Path]) -> None:
    _, python = unpacked
    listed = subprocess.run(
        [python, "-m", "pip", "list"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert not {"torch", "transformers", "rich"} & {line.split()[0] for line in listed.lower().splitlines()}


def test_without_a_compiler_the_archive_lacks_only_what_is_in_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def names(file: Path) -> set[str]:
        assert main([str(file)]) == 0
        with zipfile.ZipFile(file) as archive:
            return set(archive.namelist())

    usual = names(tmp_path / "a.zip")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert names(tmp_path / "b.zip") == usual - {COMPILED}
    assert "apt-get install -y gcc python3-dev" in capsys.readouterr().out


def test_the_archive_is_reproducible(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        build(tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
