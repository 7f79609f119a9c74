"""cloudbuild.yaml: the published schema, a lint for what that misses, and its scripts run against stand-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cloudbuild_lint import BUILT_IN, lint

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "cloudbuild.yaml"
TEXT = FILE.read_text("utf-8")
BUILD: dict[str, Any] = YAML(typ="safe", pure=True).load(TEXT)
STEPS: dict[str, dict[str, Any]] = {step["id"]: step for step in BUILD["steps"]}
TOOLS = Path(sys.executable).parent
IMAGES = ("trainer", "dashboard")
DIGEST = f"sha256:{'0123456789abcdef' * 4}"

SMALL = f"""\
steps:
  - id: lint
    name: python@{DIGEST}
    script: |
      #!/bin/sh
      set -eu
      make lint
  - id: image
    name: docker@{DIGEST}
    waitFor: [lint]
    timeout: 500s
    secretEnv: [TOKEN]
    script: |
      #!/usr/bin/env bash
      set -euo pipefail
      docker build --build-arg "BASE=$_BASE" --secret id=hub,env=TOKEN -t "$_PLACE:$BUILD_ID" .
  - id: shown
    name: docker@{DIGEST}
    entrypoint: bash
    args: [-c, 'docker image inspect ${{_PLACE}}; echo $$HOME']
substitutions:
  _BASE: debian@{DIGEST}
  _PLACE: europe-docker.pkg.dev/$PROJECT_ID/x
availableSecrets:
  secretManager:
    - versionName: projects/$PROJECT_ID/secrets/hub/versions/3
      env: TOKEN
serviceAccount: projects/$PROJECT_ID/serviceAccounts/b@$PROJECT_ID.iam.gserviceaccount.com
timeout: 600s
options: {{logging: CLOUD_LOGGING_ONLY, dynamicSubstitutions: true, automapSubstitutions: true}}
"""

PLANTED = [
    ("unknown-wait", "waitFor: [lint]", "waitFor: [lynt]"),
    ("unknown-wait", "id: lint\n", "id: lint\n    waitFor: [image]\n"),
    ("duplicate-id", "id: shown", "id: image"),
    ("no-id", "  - id: shown\n    name:", "  - name:"),
    ("undefined-substitution", "inspect ${_PLACE}", "inspect ${_PLAICE}"),
    ("undefined-substitution", "$_PLACE:$BUILD_ID", "$_PLAICE:$BUILD_ID"),
    ("undefined-substitution", "echo $$HOME", "echo $HOME"),
    ("unused-substitution", "substitutions:\n", "substitutions:\n  _LEFT: over\n"),
    ("not-mapped", ", automapSubstitutions: true", ""),
    ("not-dynamic", ", dynamicSubstitutions: true", ""),
    ("undeclared-secret", "secretEnv: [TOKEN]", "secretEnv: [TOKEN, OTHER]"),
    ("unused-secret", "    secretEnv: [TOKEN]\n", ""),
    ("secret-keys", "- versionName:", "- version:"),
    ("unpinned-secret", "versions/3", "versions/latest"),
    ("unpinned-secret", "versions/3", "versions/$_BASE"),
    ("secret-as-build-arg", "--secret id=hub,env=TOKEN", '--build-arg "HF_TOKEN=$1"'),
    ("secret-as-build-arg", "--secret id=hub,env=TOKEN", '--build-arg WITH="$TOKEN"'),
    ("secret-as-build-arg", "echo $$HOME", "docker build --build-arg API_KEY=x ."),
    ("unescaped-secret", "echo $$HOME", "echo $TOKEN"),
    ("printed-secret", "docker build --build", 'echo "$TOKEN"\n      docker build --build'),
    ("traced-secret", "set -euo pipefail", "set -euxo pipefail"),
    ("unpinned-image", f"name: python@{DIGEST}", "name: python:3.12"),
    ("unpinned-image", f"name: python@{DIGEST}", "name: $_PLACE"),
    ("script-and-args", "timeout: 500s", "timeout: 500s\n    args: [x]"),
    ("doubled-dollar", '"$_PLACE:$BUILD_ID"', '"$$_PLACE:$BUILD_ID"'),
    ("no-shebang", "#!/bin/sh\n", "# nothing\n"),
    ("goes-on", "set -eu\n", "cd .\n"),
    ("no-logging", "logging: CLOUD_LOGGING_ONLY, ", ""),
    ("timeout", "timeout: 600s", "timeout: 400s"),
    ("timeout", "timeout: 600s\n", ""),
    ("unknown-key", "timeout: 600s", "timeOut: 600s"),
    ("yaml", "timeout: 600s", "timeout: 600s\ntimeout: 700s"),
    ("yaml", "steps:", "step:"),
]


def test_it_is_valid_by_the_published_schema(tmp_path: Path) -> None:
    def check(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "cloudbuild.yaml").write_text(text, "utf-8")
        tool, file = str(TOOLS / "check-jsonschema"), str(tmp_path / "cloudbuild.yaml")
        command = [tool, "--builtin-schema", "vendor.cloudbuild", file]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check(TEXT).returncode == 0, check(TEXT).stdout
    broken = check(TEXT.replace("secretEnv: [HUB_TOKEN]", "secretEnvironment: [HUB_TOKEN]"))
    assert broken.returncode == 1
    assert "secretEnvironment" in broken.stdout


def test_the_lint_has_nothing_to_say() -> None:
    assert [str(fault) for fault in lint(TEXT)] == []
    assert [str(fault) for fault in lint(SMALL)] == []


@pytest.mark.parametrize(("rule", "right", "wrong"), PLANTED)
def test_the_lint_finds_what_was_planted(rule: str, right: str, wrong: str) -> None:
    assert right in SMALL
    text = SMALL.replace(right, wrong, 1)
    if (rule, wrong) == ("timeout", ""):
        text = text.replace("timeout: 500s", "timeout: 700s")
    assert rule in {fault.rule for fault in lint(text)}


def test_every_rule_has_a_planted_fault() -> None:
    source = (ROOT / "tests" / "cloudbuild_lint.py").read_text("utf-8")
    rules = set(re.findall(r'Fault\(\s*"([a-z-]+)"', source))
    assert rules == {rule for rule, _, _ in PLANTED}


def test_nothing_is_deployed_before_everything_was_checked() -> None:
    assert set(STEPS["plan"]["waitFor"]) == {"tests", "functions", "images", "scan"}
    assert STEPS["deploy"]["waitFor"] == ["plan"]
    assert BUILD["substitutions"]["_DEPLOY"] == "plan"


def test_only_the_step_that_downloads_has_the_token() -> None:
    assert [name for name, step in STEPS.items() if "secretEnv" in step] == ["weights"]


@pytest.mark.parametrize("step", STEPS)
def test_shellcheck_has_nothing_to_say_of_scripts(step: str) -> None:
    result = subprocess.run(
        [TOOLS / "shellcheck", "--enable=quote-safe-variables,check-set-e-suppressed", "-"],
        input=STEPS[step]["script"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == ""
    assert result.returncode == 0


STAND_IN = """#!/bin/bash
printf '%s\\n' "${0##*/} $*" >> "$CALLS"
[[ -z $HUB_TOKEN ]] || printf '%s' "$HUB_TOKEN" > "$CALLS.token"
case "${0##*/} $*" in
  "docker buildx imagetools inspect"*) [[ -e $CALLS.pushed ]] || exit 1; echo "Name: x"; echo "Digest:    $DIGEST" ;;
  "docker buildx build"*--target\\ weights*) touch "$CALLS.pushed" ;;
  "docker buildx build"*) printf '{"containerimage.config.digest": "sha256:1",\\n"containerimage.digest": "%s"}' \\
    "$DIGEST" > build/image.json ;;
  "terraform output -raw delivery") echo "gcloud pubsub subscriptions update x" ;;
  "gcloud artifacts docker images scan"*) echo projects/p/scans/1 ;;
  "gcloud artifacts docker images list-vulnerabilities"*value*) printf 'LOW\\nHIGH\\nLOW\\n' ;;
esac
"""


@dataclass
class Workspace:
    """Where steps find the sources, and stand-ins for the programs that reach a cloud."""

    folder: Path

    def run(self, step: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """A step's script, as Cloud Build would run it."""
        script = self.folder.parent / f"{step}.sh"
        script.write_text(STEPS[step]["script"], "utf-8")
        script.chmod(0o755)
        tools = self.folder.parent / "tools"
        environment = {
            **self.filled(settings),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "CALLS": str(self.folder.parent / "calls"),
            "DIGEST": settings.get("DIGEST", DIGEST),
            "HUB_TOKEN": settings.get("HUB_TOKEN", ""),
        }
        where = self.folder / STEPS[step].get("dir", ".")
        return subprocess.run([script], cwd=where, env=environment, capture_output=True, text=True, check=False)

    def has_images(self) -> None:
        """As if they had been built and pushed."""
        for part in IMAGES:
            (self.folder / "build" / f"image-{part}").write_text(f"x/{part}@{DIGEST}\n")

    @staticmethod
    def filled(settings: Mapping[str, str]) -> dict[str, str]:
        """All substitutions, those that refer to others filled in."""
        built_in = {"PROJECT_ID": "a-project", "BUILD_ID": "b-1", "COMMIT_SHA": ""}
        values = {**dict.fromkeys(BUILT_IN, ""), **built_in, **BUILD["substitutions"], **settings}
        for _ in range(2):
            for name in values:
                values = {key: str(text).replace(f"${{{name}}}", values[name]) for key, text in values.items()}
        return values

    @property
    def calls(self) -> list[str]:
        """Every call of a stand-in, as one line each."""
        path = self.folder.parent / "calls"
        return path.read_text("utf-8").splitlines() if path.exists() else []

    @property
    def token(self) -> str:
        """What the stand-ins saw of the hub's token."""
        return (self.folder.parent / "calls.token").read_text("utf-8")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    folder, tools = tmp_path / "workspace", tmp_path / "tools"
    for name in ("build", "terraform", "trainer", "schemas/catalogue"):
        (folder / name).mkdir(parents=True)
    for name in ("attention", "hub", "prepare", "prepared", "quantise", "wheel"):
        (folder / "trainer" / f"{name}.py").write_text(f"# {name}\n")
    (folder / "trainer" / "Dockerfile").write_text("FROM scratch\n")
    (folder / "trainer" / "requirements-torch.txt").write_text("torch==2.13.0+cu126 --hash=…\n")
    (folder / "trainer" / "requirements-image.txt").write_text("numpy==2 --hash=…\n")
    (folder / "schemas" / "catalogue" / "models.yaml").write_text("[]\n")
    (folder / "terraform" / ".terraform.lock.hcl").touch()
    tools.mkdir()
    for name in ("docker", "gcloud", "terraform"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    return Workspace(folder)


def test_settings_are_taken_as_they_are_in_the_file(workspace: Workspace) -> None:
    result = workspace.run("settings")
    assert result.returncode == 0, result.stdout + result.stderr


def test_terraforms_values_are_brought_where_it_finds_them(workspace: Workspace) -> None:
    assert workspace.run("settings", _VAR_FILE="gs://a/b.tfvars").returncode == 0
    assert workspace.calls == ["gcloud storage cp gs://a/b.tfvars terraform/deployment.auto.tfvars"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"_TESTS": "some"}, "_TESTS is 'some', and not all, unit or none"),
        ({"_WEIGHTS": "bucket baked"}, "_WEIGHTS"),
        ({"_DEPLOY": ""}, "_DEPLOY"),
        ({"_HUB_TOKEN_VERSION": "latest"}, "_HUB_TOKEN_VERSION is a number"),
        ({"_BASE_IMAGE": "nvidia/cuda:12.6.3-base-ubuntu24.04"}, "not pinned by a digest"),
        ({"_DASHBOARD_BASE_IMAGE": "python:3.11-slim"}, "not pinned by a digest"),
        ({"_TERRAFORM_IMAGE": "hashicorp/terraform@sha256:12"}, "not pinned by a digest"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(workspace: Workspace, settings: dict[str, str], said: str) -> None:
    result = workspace.run("settings", **settings)
    assert result.returncode == 1
    assert said in result.stdout


@pytest.mark.parametrize(
    ("path", "said"),
    [("trainer/requirements-torch.txt", "make torchlock"), ("terraform/.terraform.lock.hcl", "providers lock")],
)
def test_pins_that_are_missing_stop_the_build_with_the_command_that_makes_them(
    workspace: Workspace, path: str, said: str
) -> None:
    (workspace.folder / path).unlink()
    result = workspace.run("settings")
    assert result.returncode == 1
    assert said in result.stdout


def test_with_weights_from_the_bucket_none_are_prepared(workspace: Workspace) -> None:
    assert workspace.run("weights", _WEIGHTS="bucket").returncode == 0
    assert workspace.run("images").returncode == 0
    assert [call for call in workspace.calls if "weights-image" in call] == []
    assert any("--build-arg WEIGHTS=no-weights" in call for call in workspace.calls)
    repository = "us-central1-docker.pkg.dev/a-project/adaptml"
    for part in IMAGES:
        assert (workspace.folder / "build" / f"image-{part}").read_text().strip() == f"{repository}/{part}@{DIGEST}"


def test_each_image_is_made_on_its_own_base_and_of_its_own_stage(workspace: Workspace) -> None:
    assert workspace.run("weights").returncode == 0
    assert workspace.run("images", COMMIT_SHA="c0ffee").returncode == 0
    trainer, dashboard = (call for call in workspace.calls if call.startswith("docker buildx build"))
    for part, call, setting in (("trainer", trainer, "_BASE_IMAGE"), ("dashboard", dashboard, "_DASHBOARD_BASE_IMAGE")):
        assert f"--file {part}/Dockerfile --target {part} --tag " in call
        assert f"--build-arg BASE={BUILD['substitutions'][setting]} --build-arg REVISION=c0ffee " in call
        assert f"/adaptml/cache:{part},mode=max" in call
    assert "WEIGHTS" not in dashboard


def test_an_image_without_a_digest_is_not_deployed(workspace: Workspace) -> None:
    assert workspace.run("weights").returncode == 0
    result = workspace.run("images", DIGEST="none")
    assert result.returncode == 1
    assert "no digest in build/image.json" in result.stdout


def test_baked_weights_are_prepared_once_and_taken_by_digest(workspace: Workspace) -> None:
    for _ in range(2):
        assert workspace.run("weights", _WEIGHTS="baked", HUB_TOKEN="hf_x").returncode == 0
    assert workspace.run("images").returncode == 0
    assert len([call for call in workspace.calls if "--target weights-image" in call]) == 1
    assert any(
        f"WEIGHTS=us-central1-docker.pkg.dev/a-project/adaptml/weights@{DIGEST}" in call for call in workspace.calls
    )


@pytest.mark.parametrize(
    "changed", ["trainer/quantise.py", "schemas/catalogue/models.yaml", "trainer/requirements-image.txt"]
)
def test_weights_have_another_name_when_what_makes_them_changes(workspace: Workspace, changed: str) -> None:
    def name() -> str:
        workspace.run("weights", _WEIGHTS="baked")
        return [call for call in workspace.calls if "imagetools inspect" in call][-1]

    before = name()
    (workspace.folder / "trainer" / "train.py").write_text("# what a commit changes\n")
    assert name() == before
    (workspace.folder / changed).write_text("# changed\n")
    assert name() != before


def test_the_token_is_stripped_and_only_in_the_environment(workspace: Workspace) -> None:
    result = workspace.run("weights", _WEIGHTS="baked", HUB_TOKEN=" hf_secret\r\n")
    assert result.returncode == 0
    assert workspace.token == "hf_secret"
    assert "hf_secret" not in "\n".join(workspace.calls) + result.stdout + result.stderr
    kept = [path for path in workspace.folder.rglob("*") if path.is_file() and "hf_secret" in path.read_text("utf-8")]
    assert kept == []


def test_a_severity_stops_a_deployment_if_it_is_one_of_those_named(workspace: Workspace) -> None:
    workspace.has_images()
    assert workspace.run("scan").returncode == 0
    assert workspace.run("scan", _SCAN_STOPS_AT="").returncode == 0
    stopped = workspace.run("scan", _SCAN_STOPS_AT="CRITICAL HIGH")
    assert stopped.returncode == 1
    assert "a vulnerability is HIGH" in stopped.stdout


@pytest.mark.parametrize("part", IMAGES)
def test_a_vulnerability_of_either_image_stops_a_deployment(workspace: Workspace, part: str) -> None:
    workspace.has_images()
    of_one = f"""  "gcloud artifacts docker images scan "*/{part}@*) echo projects/p/scans/{part} ;;
  "gcloud artifacts docker images list-vulnerabilities projects/p/scans/{part} "*value*) echo CRITICAL ;;
"""
    scanner = STAND_IN.replace('  "gcloud artifacts docker', of_one + '  "gcloud artifacts docker', 1)
    (workspace.folder.parent / "tools" / "gcloud").write_text(scanner)
    stopped = workspace.run("scan")
    assert stopped.returncode == 1
    assert f"build/vulnerabilities-{part}.json has it" in stopped.stdout


def test_what_was_planned_is_what_is_applied(workspace: Workspace) -> None:
    workspace.has_images()
    assert workspace.run("plan").returncode == 0
    plan = workspace.calls[-1]
    assert "-out=../build/plan" in plan
    for part in IMAGES:
        assert f"-var {part}_image=x/{part}@{DIGEST}" in plan
    assert workspace.run("deploy", _DEPLOY="plan").returncode == 0
    assert workspace.calls[-1] == plan
    assert workspace.run("delivery").returncode == 0
    assert workspace.calls[-1] == plan
    assert workspace.run("deploy", _DEPLOY="apply").returncode == 0
    assert workspace.calls[-2:] == [
        "terraform apply -input=false -lock-timeout=300s ../build/plan",
        "terraform output -raw delivery",
    ]
    assert workspace.run("delivery").returncode == 0
    assert workspace.calls[-1] == "gcloud pubsub subscriptions update x"
    assert 'output "delivery"' in (ROOT / "terraform" / "outputs.tf").read_text("utf-8")


def test_terraform_has_the_variables_that_are_given_to_it() -> None:
    declared = ROOT / "terraform" / "variables.tf"
    names = {piece.split("=")[0].strip('"') for piece in STEPS["plan"]["script"].split("-var ")[1:]}
    assert names == {
        "project_id", "region", "trainer_image", "dashboard_image", "functions_archive", "calls_gcloud",
    }  # fmt: skip
    for name in names:
        assert f'variable "{name}"' in declared.read_text("utf-8")


def test_every_substitution_is_documented() -> None:
    document = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    assert [name for name in BUILD["substitutions"] if f"`{name}`" not in document] == []


def test_what_is_kept_is_what_steps_make() -> None:
    kept = BUILD["artifacts"]["objects"]["paths"]
    assert "build/plan" not in kept
    assert json.dumps(kept).count("sbom") == 3
    assert {f"build/{name}" for part in IMAGES for name in (f"image-{part}", f"vulnerabilities-{part}.json")} < set(
        kept
    )
