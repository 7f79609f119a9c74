"""What Cloud Build's JSON schema does not see in a cloudbuild.yaml: names that lead nowhere, secrets that get out,
images and versions that are not pinned. `python -m tests.cloudbuild_lint [FILE]`.

Rules are those of https://cloud.google.com/build/docs: build configuration, substitutions, secrets. Where a step has
`script`, Cloud Build substitutes nothing in it; everywhere else `$NAME` is a substitution and `$$NAME` the shell's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

BUILT_IN = {
    *("PROJECT_ID", "PROJECT_NUMBER", "BUILD_ID", "LOCATION", "TRIGGER_NAME", "TRIGGER_BUILD_CONFIG_PATH"),
    *("COMMIT_SHA", "REVISION_ID", "SHORT_SHA", "REPO_NAME", "REPO_FULL_NAME", "BRANCH_NAME", "TAG_NAME", "REF_NAME"),
    *("SERVICE_ACCOUNT", "SERVICE_ACCOUNT_EMAIL"),
}
_TOP = {
    *("steps", "timeout", "queueTtl", "logsBucket", "options", "substitutions", "tags", "serviceAccount"),
    *("secrets", "availableSecrets", "artifacts", "images"),
}
_SECRET_KEYS = {"versionName", "env"}
_LOGGED_APART = {"CLOUD_LOGGING_ONLY", "GCS_ONLY", "NONE"}
_NAME = r"\{?([A-Z_][A-Z0-9_]*)"
_SUBSTITUTED = re.compile(r"(?<!\$)(?:\$\$)*\$" + _NAME)
_IN_SHELL = re.compile(r"\$" + _NAME)
_BUILD_ARG = re.compile(r"--build-arg[ =]+[\"']?([^\s\"'=]+)(?:=(\"[^\"]*\"|\S*))?")
_SECRETIVE = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|API_?KEY", re.IGNORECASE)
_PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")
_DEFAULT_TIMEOUT_S = 600


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} [{self.rule}]"


def lint(text: str) -> list[Fault]:
    """All faults of a cloudbuild.yaml."""
    try:
        build = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        return [Fault("yaml", "file", str(error.problem))]
    if not isinstance(build, dict) or not isinstance(build.get("steps"), list):
        return [Fault("yaml", "file", "no build with steps")]
    return [
        fault
        for rule in (_keys, _order, _substitutions, _secrets, _pins, _scripts, _logs, _time)
        for fault in rule(build)
    ]


def _where(step: Mapping[str, Any]) -> str:
    return f"step {step.get('id') or step.get('name')}"


def _keys(build: Mapping[str, Any]) -> Iterator[Fault]:
    for key in build.keys() - _TOP:
        yield Fault("unknown-key", "file", f"{key} is nothing that a build has")


def _order(build: Mapping[str, Any]) -> Iterator[Fault]:
    seen: set[str] = set()
    for step in build["steps"]:
        for name in step.get("waitFor", []):
            if name != "-" and name not in seen:
                yield Fault("unknown-wait", _where(step), f"waits for {name}, which is no step before it")
        if "id" not in step:
            yield Fault("no-id", _where(step), "without an id nothing can wait for it")
        elif step["id"] in seen:
            yield Fault("duplicate-id", _where(step), "another step has this id")
        seen.add(step.get("id", ""))


def _substitutions(build: Mapping[str, Any]) -> Iterator[Fault]:
    defined = set(build.get("substitutions", {}))
    options = build.get("options", {})
    used: set[str] = set()
    for where, text in _texts(build):
        for name in _SUBSTITUTED.findall(text):
            used.add(name)
            if name not in BUILT_IN | defined:
                yield Fault(
                    "undefined-substitution", where, f"${name} is neither Cloud Build's nor under substitutions"
                )
    if not options.get("dynamicSubstitutions"):
        for name, value in build.get("substitutions", {}).items():
            if _SUBSTITUTED.search(str(value)):
                yield Fault(
                    "not-dynamic", f"substitution {name}", "refers to others, without options.dynamicSubstitutions"
                )
    for step in build["steps"]:
        script = step.get("script", "")
        mapped = step.get("automapSubstitutions", options.get("automapSubstitutions", False))
        given = {entry.partition("=")[0] for entry in [*step.get("env", []), *options.get("env", [])]}
        for name in set(_IN_SHELL.findall(script)):
            used.add(name)
            if not (name.startswith("_") or name in BUILT_IN) or name in given:
                continue
            if name.startswith("_") and name not in defined:
                yield Fault("undefined-substitution", _where(step), f"${name} is not under substitutions")
            elif not mapped:
                yield Fault("not-mapped", _where(step), f"${name} does not reach a script without automapSubstitutions")
    for name in defined - used:
        yield Fault("unused-substitution", f"substitution {name}", "nothing reads it: Cloud Build refuses the build")


def _texts(build: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All that Cloud Build substitutes in, with where it stands."""
    for step in build["steps"]:
        for text in _strings({key: value for key, value in step.items() if key != "script"}):
            yield _where(step), text
    for key in build.keys() - {"steps"}:
        for text in _strings(build[key]):
            yield key, text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _secrets(build: Mapping[str, Any]) -> Iterator[Fault]:
    versions = build.get("availableSecrets", {}).get("secretManager", [])
    substitutions = build.get("substitutions", {})
    declared = {entry.get("env") for entry in versions}
    declared |= {name for entry in build.get("secrets", []) for name in entry.get("secretEnv", {})}
    for entry in versions:
        where = f"secret {entry.get('env')}"
        if entry.keys() != _SECRET_KEYS:
            yield Fault("secret-keys", where, f"has {', '.join(sorted(entry))}, and not versionName and env")
        version = _filled(str(entry.get("versionName", "")), substitutions).rpartition("/versions/")[2]
        if not version.isdigit():
            yield Fault(
                "unpinned-secret", where, f"version '{version}' is not a number: another build may get another value"
            )
    asked: set[str] = set(build.get("options", {}).get("secretEnv", []))
    for step in build["steps"]:
        own = set(step.get("secretEnv", []))
        asked |= own
        for name in own - declared:
            yield Fault("undeclared-secret", _where(step), f"{name} is not under availableSecrets")
        texts = [step.get("script", ""), *_strings(step.get("args", []))]
        for name, value in (found for text in [*texts, " ".join(texts)] for found in _BUILD_ARG.findall(text)):
            if _SECRETIVE.search(name) or any(secret and secret in value for secret in declared | own):
                yield Fault(
                    "secret-as-build-arg",
                    _where(step),
                    f"--build-arg {name} stays in the image's history: use --secret",
                )
        for name in declared:
            if any(name in _SUBSTITUTED.findall(text) for text in _strings({**step, "script": ""})):
                yield Fault("unescaped-secret", _where(step), f"${name} is substituted, not read: write $${name}")
            if name and re.search(rf"(echo|printf)\b[^|\n]*\${{?{name}\b[^|\n]*(\n|$)", step.get("script", "")):
                yield Fault("printed-secret", _where(step), f"{name} is printed")
        if own and re.search(r"set -\w*x|bash -\w*x", "\n".join(texts)):
            yield Fault("traced-secret", _where(step), "is traced (-x), which logs the secret")
    for name in declared - asked:
        yield Fault("unused-secret", f"secret {name}", "no step asks for it")


def _filled(text: str, substitutions: Mapping[str, Any], depth: int = 4) -> str:
    if depth == 0:
        return text
    pattern = re.compile(r"\$\{?(_[A-Z0-9_]+)\}?")
    return pattern.sub(
        lambda found: _filled(str(substitutions.get(found[1], found[0])), substitutions, depth - 1), text
    )


def _pins(build: Mapping[str, Any]) -> Iterator[Fault]:
    for step in build["steps"]:
        image = _filled(step.get("name", ""), build.get("substitutions", {}))
        if not _PINNED.search(image):
            yield Fault("unpinned-image", _where(step), f"{image} is not pinned by a digest")


def _scripts(build: Mapping[str, Any]) -> Iterator[Fault]:
    for step in build["steps"]:
        if "script" not in step:
            continue
        script = step["script"]
        if "args" in step or "entrypoint" in step:
            yield Fault("script-and-args", _where(step), "has both script and args or entrypoint")
        if "$$" in script:
            yield Fault("doubled-dollar", _where(step), "$$ in a script is the shell's process id")
        if not script.startswith("#!"):
            yield Fault("no-shebang", _where(step), "does not say which shell runs it")
        if not re.search(r"^set -e", script, re.MULTILINE):
            yield Fault("goes-on", _where(step), "goes on after a command that failed: no set -e")


def _logs(build: Mapping[str, Any]) -> Iterator[Fault]:
    options = build.get("options", {})
    apart = options.get("logging") in _LOGGED_APART or "logsBucket" in build or "defaultLogsBucketBehavior" in options
    if "serviceAccount" in build and not apart:
        yield Fault("no-logging", "file", "a service account of one's own needs options.logging or logsBucket")


def _time(build: Mapping[str, Any]) -> Iterator[Fault]:
    steps = build["steps"]
    limit = _seconds(build.get("timeout")) or _DEFAULT_TIMEOUT_S
    indices = {step.get("id"): index for index, step in enumerate(steps)}

    @lru_cache
    def ends(index: int) -> int:
        waits = steps[index].get("waitFor") or []
        before = range(index) if not waits else [indices[name] for name in waits if indices.get(name, index) < index]
        return (_seconds(steps[index].get("timeout")) or 0) + max((ends(other) for other in before), default=0)

    longest = max(map(ends, range(len(steps))))
    if longest > limit:
        yield Fault("timeout", "file", f"steps may take {longest} s one after another, the build {limit} s")


def _seconds(text: Any) -> int | None:
    match = re.fullmatch(r"(\d+)s", str(text))
    return int(match[1]) if match else None


if __name__ == "__main__":
    found = lint(Path(sys.argv[1] if len(sys.argv) > 1 else "cloudbuild.yaml").read_text("utf-8"))
    sys.stdout.write("".join(f"{fault}\n" for fault in found) or "nothing to say\n")
    sys.exit(bool(found))
