"""The images, without building them: hadolint and shellcheck, what each Dockerfile says, and what it installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
IGNORED = {".git", ".venv", ".local", ".hypothesis", "node_modules", "build", ".terraform", "__pycache__"}


@dataclass(frozen=True)
class Image:
    """A Dockerfile, named after the folder that it lies in and the stage that it ends with."""

    name: str

    @property
    def text(self) -> str:
        """As it is written."""
        return (ROOT / self.name / "Dockerfile").read_text("utf-8")

    @property
    def instructions(self) -> list[str]:
        """Each as a line, without comments."""
        uncommented = re.sub(r"^ *#.*\n", "", self.text, flags=re.MULTILINE)
        return [" ".join(line.split()) for line in re.sub(r"\\\n", " ", uncommented).splitlines() if line.strip()]

    @property
    def base(self) -> str:
        """What BASE is where nobody says otherwise."""
        return re.findall(r"^ARG BASE=(\S+)$", self.text, re.MULTILINE)[0]

    def stage(self, name: str) -> list[str]:
        """The instructions of a stage."""
        lines = self.instructions
        starts = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
        begin = next(index for index in starts if lines[index].endswith(f" AS {name}"))
        return lines[begin : next((index for index in starts if index > begin), len(lines))]


TRAINER, DASHBOARD = Image("trainer"), Image("dashboard")
BOTH = pytest.mark.parametrize("image", [TRAINER, DASHBOARD], ids=lambda image: image.name)


def pins(path: str) -> dict[str, tuple[str, list[str]]]:
    """Package → version and hashes of a requirements file."""
    text = (ROOT / path).read_text("utf-8").replace("\\\n", " ")
    found = [re.match(r"([a-z0-9-]+)==(\S+)(.*)", line) for line in text.splitlines()]
    return {match[1]: (match[2], re.findall(r"--hash=sha256:([0-9a-f]{64})", match[3])) for match in found if match}


def files() -> Iterator[Path]:
    """The project's own files."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in IGNORED]
        yield from (Path(folder) / name for name in names)


DOCKERFILES = sorted(path for path in files() if "Dockerfile" in path.name)


def is_shell_script(path: Path) -> bool:
    """By its ending, or by its first line."""
    if path.suffix:
        return path.suffix == ".sh"
    with path.open("rb") as file:
        return re.match(rb"#!.*\b(ba|da)?sh\b", file.readline(80)) is not None


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    result = subprocess.run([str(TOOLS / "hadolint"), str(path)], capture_output=True, text=True, check=False)
    assert result.stdout + result.stderr == ""
    assert result.returncode == 0


def test_hadolint_would_find_a_fault(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(TRAINER.text.replace("USER 10001:10001", "USER root"))
    command = [str(TOOLS / "hadolint"), str(tmp_path / "Dockerfile")]
    assert "DL3002" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_shellcheck_has_nothing_to_say_of_shell_scripts() -> None:
    scripts = sorted(filter(is_shell_script, files()))
    assert ROOT / ".ci" / "run" in scripts
    result = subprocess.run(
        [str(TOOLS / "shellcheck"), *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert result.stdout == ""
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("image", "outside"), [(TRAINER, {"${BASE}", "${WEIGHTS}", "scratch"}), (DASHBOARD, {"${BASE}"})]
)
def test_what_comes_from_a_registry_is_pinned_by_a_digest(image: Image, outside: set[str]) -> None:
    assert re.match(r"# syntax=docker/dockerfile:[\d.]+@sha256:[0-9a-f]{64}\n", image.text)
    stages = {line.rpartition(" AS ")[2] for line in image.instructions if line.startswith("FROM ")}
    named = {line.split()[1] for line in image.instructions if line.startswith("FROM ")}
    named |= set(re.findall(r"--from=(\S+)", "\n".join(image.instructions)))
    assert named - stages == outside
    assert re.search(r"@sha256:[0-9a-f]{64}$", image.base)
    weights = re.findall(r"^ARG WEIGHTS=(\S+)$", image.text, re.MULTILINE)
    assert len(weights) == ("${WEIGHTS}" in outside)
    assert set(weights) <= stages


@pytest.mark.parametrize(("image", "setting"), [(TRAINER, "_BASE_IMAGE"), (DASHBOARD, "_DASHBOARD_BASE_IMAGE")])
def test_cloud_build_has_the_base_of_the_dockerfile(image: Image, setting: str) -> None:
    assert f"  {setting}: {image.base}\n" in (ROOT / "cloudbuild.yaml").read_text("utf-8")


def test_the_dashboards_python_is_the_one_that_its_pins_were_resolved_for() -> None:
    release = re.match(r"python:(\d+\.\d+)\.\d+-slim-", DASHBOARD.base)
    assert release is not None
    assert f"--python-version {release[1]} " in (ROOT / "Makefile").read_text("utf-8").partition("\nLOCK := ")[2]


def test_base_and_torch_are_for_the_same_cuda_which_driver_535_runs() -> None:
    base = re.findall(r"^ARG BASE=nvidia/cuda:(\d+)\.(\d+)", TRAINER.text, re.MULTILINE)[0]
    wanted = re.findall(
        r"^torch==([\d.]+)\+cu(\d+)$", (ROOT / "trainer/requirements-torch.in").read_text(), re.MULTILINE
    )
    release, build = wanted[0]
    assert base[0] == "12"
    assert "".join(base) == build
    assert f"torch=={release}\n" in (ROOT / "trainer/requirements.in").read_text("utf-8")
    texts = TRAINER.text + (ROOT / "Makefile").read_text("utf-8")
    indexes = re.findall(r"https://download\.pytorch\.org/whl/cu(\d+)", texts)
    assert set(indexes) == {build}


@BOTH
def test_it_runs_as_a_number_that_is_not_root(image: Image) -> None:
    users = [line.split()[1] for line in image.stage(image.name) if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert not [line for line in image.stage(image.name) if "--chown" in line or "chmod" in line]


@pytest.mark.parametrize(
    ("image", "weights"), [(TRAINER, ["COPY --link --from=weights /models /models"]), (DASHBOARD, [])]
)
def test_dependencies_weights_and_code_are_layers_that_can_be_replaced_alone(image: Image, weights: list[str]) -> None:
    last = image.stage(image.name)
    copied = [line for line in last if line.startswith("COPY ")]
    assert copied == [
        "COPY --link --from=dependencies /opt/venv /opt/venv",
        *weights,
        *(f"COPY --link {name} /app/{name}" for name in ("schemas", "adaptml", image.name)),
    ]
    last_run = max(index for index, line in enumerate(last) if line.startswith("RUN "))
    assert last_run < last.index(copied[0])


def test_no_code_is_part_of_what_dependencies_are_made_of() -> None:
    copied = [line for name in ("python", "dependencies") for line in TRAINER.stage(name) if line.startswith("COPY ")]
    assert copied == ["COPY trainer/requirements-torch.txt /tmp/", "COPY trainer/requirements-image.txt /tmp/"]
    copied = [line for line in DASHBOARD.stage("dependencies") if line.startswith("COPY ")]
    assert copied == ["COPY dashboard/requirements.txt /tmp/"]


@BOTH
def test_the_revision_comes_last_so_that_it_changes_no_layer(image: Image) -> None:
    lines = image.stage(image.name)
    assert lines.index("ARG REVISION=unknown") > max(
        i for i, line in enumerate(lines) if line.startswith(("RUN", "COPY"))
    )


@pytest.mark.parametrize(("image", "count"), [(TRAINER, 2), (DASHBOARD, 1)])
def test_what_is_installed_is_held_to_hashes_and_never_built(image: Image, count: int) -> None:
    installs = [
        command
        for line in image.instructions
        for command in line.split("&&")
        if " install " in command and "pip" in command
    ]
    installs = [command for command in installs if "apt-get" not in command]
    assert len(installs) == count
    for command in installs:
        assert "--require-hashes" in command
        assert "--no-deps" in command
        assert "--only-binary :all:" in command


def test_what_serves_the_page_has_no_installer_and_listens_to_others() -> None:
    last = DASHBOARD.stage("dashboard")
    assert any("pip uninstall" in line and " setuptools wheel pip" in line for line in last)
    assert any("ADAPTML_DASHBOARD_ADDRESS=0.0.0.0" in line for line in last)


def test_the_token_is_mounted_for_one_command_and_no_argument() -> None:
    for image in (TRAINER, DASHBOARD):
        assert not re.search(r"^(ARG|ENV).*(TOKEN|SECRET)", image.text, re.MULTILINE)
    mounts = [line for line in TRAINER.instructions if "type=secret" in line]
    assert len(mounts) == 1
    assert mounts[0] in TRAINER.stage("baked-weights")
    assert "type=secret" not in DASHBOARD.text


@pytest.mark.parametrize(("secret", "token"), [(" hf_x\r\n", "hf_x"), (None, "")])
def test_the_token_is_stripped_where_there_is_one(secret: str | None, token: str, tmp_path: Path) -> None:
    command = next(line for line in TRAINER.instructions if "type=secret" in line)
    script = re.sub(r"RUN (--\S+ )*", "", command)
    for path in ("/run/secrets/hub_token", "/opt/venv/bin/python", "/models"):
        script = script.replace(path, str(tmp_path / Path(path).name))
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s|" "$HF_TOKEN" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    if secret is not None:
        (tmp_path / "hub_token").write_text(secret)
    shell = ["bash", "-o", "pipefail", "-c", script]
    environment = {"PATH": os.environ["PATH"], "MODELS": "a/b c/d"}
    result = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == f"{token}|-m|trainer.prepare|--into|{tmp_path}/models|a/b|c/d|"
    assert result.stderr == ""


def test_the_context_holds_just_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    instructions = TRAINER.instructions + DASHBOARD.instructions
    copied = {
        line.split()[1].split("/")[0]
        for line in instructions
        if re.match(r"COPY (?!--from|--link --from|--link)", line)
    }
    copied |= {line.split()[2] for line in instructions if re.match(r"COPY --link (?!--from)", line)}
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied


def test_the_image_installs_the_versions_that_are_tested() -> None:
    tested = {name: version for name, (version, _) in pins("trainer/requirements.txt").items()}
    assert {name: version for name, (version, _) in pins("trainer/requirements-image.txt").items()} == tested


@pytest.mark.parametrize(
    "path", ["trainer/requirements-image.txt", "functions/requirements.txt", "dashboard/requirements.txt"]
)
def test_every_pin_has_a_hash(path: str) -> None:
    assert len(pins(path)) > 40
    assert [name for name, (_, hashes) in pins(path).items() if not hashes] == []


def test_torch_is_pinned_with_hashes_and_what_it_brings() -> None:
    found = pins("trainer/requirements-torch.txt")
    wanted = (ROOT / "trainer/requirements-torch.in").read_text("utf-8")
    assert f"torch=={found['torch'][0]}\n" in wanted
    assert [name for name, (_, hashes) in found.items() if not hashes] == []
    assert len(found) > 15
    assert [name for name in found if name.endswith("-cu13")] == []
    assert found["cuda-toolkit"][0].startswith("12.6.")
    assert not found.keys() & pins("trainer/requirements-image.txt").keys()


def test_without_a_pinned_torch_the_build_stops_with_the_command_that_pins_it(tmp_path: Path) -> None:
    check = next(line for line in TRAINER.stage("dependencies") if "requirements-torch.txt pins nothing" in line)
    script = check.removeprefix("RUN ").replace("/tmp/requirements-torch.txt", str(tmp_path / "torch.txt"))  # noqa: S108

    def run(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "torch.txt").write_text(text)
        return subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True, check=False)

    assert run("# nothing\n").returncode == 1
    assert "make torchlock" in run("# nothing\n").stdout
    assert run("torch==2.13.0+cu126 \\\n").returncode == 0
