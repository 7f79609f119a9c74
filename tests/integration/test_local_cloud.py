"""Starting, stopping and killing local clouds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local import prerequisites
from local.processes import lives
from tests.cloud import DROPS, ROOT, TestCloud, eventually


def local(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"ADAPTML_LOCAL_HOME": str(home)} | environment
    return subprocess.run(
        [sys.executable, "-m", "local", *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )


def parts(home: Path) -> list[int]:
    state = json.loads((home / "state.json").read_text("utf-8"))
    return [state["pid"], *state["parts"].values()]


def tree(pids: list[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        process = psutil.Process(pid)
        found += [process, *process.children(recursive=True)]
    return found


def test_two_clouds_run_side_by_side_and_a_killed_one_takes_all_its_parts_along(
    cloud: TestCloud, tmp_path: Path
) -> None:
    started = local(tmp_path, "up")
    assert started.returncode == 0, started.stderr
    assert "ready" in started.stdout
    assert local(tmp_path, "up").returncode == 0  # again is fine
    assert local(tmp_path, "status").returncode == 0
    second = tree(parts(tmp_path))
    assert not set(parts(tmp_path)) & set(parts(cloud.home))

    os.kill(parts(tmp_path)[0], signal.SIGKILL)
    eventually(lambda: not any(lives(process) for process in second), within_s=15, what=lambda: second)
    assert local(tmp_path, "status").returncode == 1
    assert all(lives(psutil.Process(pid)) for pid in parts(cloud.home))

    assert local(tmp_path, "up").returncode == 0  # and it comes up again after that
    third = tree(parts(tmp_path))
    stopped = local(tmp_path, "down")
    assert stopped.returncode == 0
    assert not any(lives(process) for process in third)
    assert not (tmp_path / "env").exists()
    assert local(tmp_path, "down").returncode == 0


def test_it_ends_with_the_process_that_it_was_started_for(tmp_path: Path) -> None:
    client = subprocess.Popen(["sleep", "300"])
    try:
        started = local(tmp_path, "up", "--ends-with", str(client.pid))
        assert started.returncode == 0, started.stderr
        everything = tree(parts(tmp_path))
    finally:
        client.kill()  # and not reaped: a zombie needs no cloud
    eventually(lambda: not any(lives(process) for process in everything), within_s=30, what=lambda: everything)
    client.wait(timeout=5)
    assert local(tmp_path, "status").returncode == 1


def test_the_env_file_is_all_that_a_shell_needs(cloud: TestCloud) -> None:
    script = f". {cloud.home}/env && gcloud pubsub topics list --format='value(name)' && gsutil ls"
    clean = {name: os.environ[name] for name in ("PATH", "HOME")}
    shown = subprocess.run(["bash", "-c", script], env=clean, capture_output=True, text=True, timeout=60, check=True)
    assert "projects/adaptml-local/topics/run-requests" in shown.stdout
    assert "gs://adaptml-drops/" in shown.stdout


def test_a_missing_prerequisite_is_one_line_with_the_command_that_installs_it(tmp_path: Path) -> None:
    only = tmp_path / "bin"
    only.mkdir()
    for program in ("bash", "env"):
        (only / program).symlink_to(shutil.which(program) or "")
    done = local(tmp_path, "up", PATH=str(only))
    assert done.returncode == 1
    assert "apt-get install -y openjdk-17-jre-headless" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_gsutil_is_taken_from_pypi(cloud: TestCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = [part for part in os.environ["PATH"].split(":") if not (Path(part) / "gsutil").exists()]
    monkeypatch.setenv("PATH", ":".join(without))
    program = prerequisites.gsutil()
    assert Path(program).is_relative_to(ROOT / ".local")
    note = tmp_path / "note.txt"
    note.write_text("hello")
    target = f"gs://{DROPS}/acme/by-pypi/note.txt"
    subprocess.run([program, "-q", "cp", str(note), target], env=cloud.environment, check=True, timeout=120)
    assert cloud.read("acme/by-pypi/note.txt") == "hello"
