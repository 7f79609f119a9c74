"""The documents that are made from the code, so that they cannot say anything else than it does.

`python -m docs.generate` writes them; with `--check` it fails when one is stale.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from adaptml.planning.advice import longest_sequence
from adaptml.planning.estimate import cost_usd, estimate, training_seconds
from adaptml.planning.memory import gpu_memory_span
from adaptml.planning.span import Span
from docs.prices import prices
from functions.api.app import APP
from schemas.aliases import ALIASES, DECIDED, WRAPPERS, Alias
from schemas.catalogue import CATALOGUE, FAMILIES
from schemas.errors import CODES
from schemas.layout import DEFAULTS
from schemas.manifest import EXCLUSIVE, Compute, Manifest
from schemas.messages import TOPIC_MESSAGES, avro_schema
from schemas.run_states import TRANSITIONS
from schemas.topology import TOPOLOGY, dead_letter_topic, tenant_topic
from schemas.yaml_strict import MAX_BYTES

ROOT = Path(__file__).resolve().parent.parent
_NOTE = "<!-- Made by `make docs`; changes here are lost. -->\n\n"
MANIFEST = """\
# The manifest

`manifest.yaml`, `manifest.yml` or `manifest.json` in the drop's folder: YAML 1.2 or JSON in UTF-8, {limit} KiB at most.
Only `base_model` and `dataset.train` are required. Unknown fields are refused with the nearest known name. Anchors,
aliases, tags, merges, directives, duplicate keys, `.nan` and `.inf` are refused with their line.

An editor with a YAML language server completes and checks while you write, when the first line of the manifest names
[schemas/manifest.schema.json](../schemas/manifest.schema.json):

```yaml
# yaml-language-server: $schema=../../schemas/manifest.schema.json
```

## Fields

| field | type | default | |
| --- | --- | --- | --- |
{fields}
One name may stand where a list of names is expected. `null` takes back what the tenant's defaults say.

## The gate

```yaml
evaluation: {{max_eval_loss: 1.5, min_improvement: 0.05}}
```

Held-out data is measured before the first step and, with just the adapter that is saved, after the last. A version that
misses one of the limits is delivered all the same and its run has SUCCEEDED, but it is marked `promotable: false` with
`promotable_reason`: on the run and in `STATUS.json` (`artifacts`), in `run.json`, in the model card and in
`adapters/{{tenant}}~{{name}}/versions/v{{N}}`. No alias may point at such a version, `latest` included.

A gate lets pass what was measured. Where nothing is held out (a single training example and no `dataset.validation`, or
a `dataset.validation` of which no row is left), no version passes one. Without `evaluation` every version may be
promoted.

With `training.early_stopping` the adapter with the lowest held-out loss is saved and judged, not the last. Nothing held
out means that nothing is stopped early and the last is saved.

## Defaults of a tenant

`gs://DROPS/{{tenant}}/{defaults}` is a part of a manifest that completes every manifest of the tenant, so that a drop
can be data plus `base_model`:

```yaml
dataset: {{train: [train.jsonl], validation_split: 0.1}}
training: {{epochs: 2, learning_rate: 1.0e-4}}
compute: {{max_cost_usd: 1.00}}
labels: {{team: support}}
```

What the manifest says goes first. Mappings are merged, lists and single values are replaced; of two settings that
exclude each other ({exclusive}) the manifest's replaces the defaults'. `name` cannot be a
default. The defaults are read once, when the manifest is: the run keeps the completed manifest and, as
`source.defaults_generation`, which defaults it was completed from. A mistake in them refuses each drop, with the file's
name and the line.

## Names of other tools

These are accepted as well, in their section or at the top level; the settings of `training` and `lora` may stand at the
top level, too. The run keeps the canonical names. Two names for one setting with different values are refused.

| name | of | sets | how its value is read |
| --- | --- | --- | --- |
{aliases}
The mappings that hosted services put around settings may stay: {wrappers}. `auto` in them means: not set.

What AdaptML decides itself is refused with that reason, so that nobody relies on a setting that does nothing:

| decided | settings of other tools |
| --- | --- |
{decided}"""
MODELS = """
## Chat templates

A model's own template, from its own files, makes the text that is trained on, as transformers would render it; the
table says what the templates of a family do. Of each answer its text and the end of its turn are trained on, nothing
else (`train_on: completions`). Tokens that a template writes are refused in texts. Where a template writes today's date
(Llama 3.2), it is a fixed one, so that a run makes the same tokens on every day.

- A template that refuses a conversation refuses the row, with its own words: Gemma a system turn, Mistral call ids that
  are not 9 characters long, Llama several calls in one turn.
- **qwen3** writes reasoning, or that there is none (`<think></think>`), only into what follows the last user turn.
  That is trained on there, since the model would write it. Earlier answers are trained on as they stand in the
  conversation, without it; where they have reasoning of their own, which the template cuts off, the row is refused.
- **mistral** writes the system turn only into the user turn that is to be answered. It stands there in a conversation
  whose last turn alone is trained on; one in which earlier answers are trained on, too, is refused.

| family | begins with | ends a turn with | system turn | tools |
| --- | --- | --- | --- | --- |
"""
_SYSTEM = {
    "turn": "a turn of its own",
    "user": "within the first user turn",
    "last_user": "within the user turn that is answered",
    "refused": "refused",
}
_AREAS = {
    "manifest": "The manifest",
    "request": "Requests from other systems",
    "data": "The data",
    "plan": "The plan: memory, time, cost",
    "run": "The run",
    "api": "The API",
    "adapter": "Versions and aliases of adapters",
    "models": "Preparing base models",
}


def documents() -> dict[str, str]:
    """Path → text of every generated document."""
    return {
        "docs/errors.md": errors(),
        "docs/limits.md": limits(),
        "docs/commands.md": commands(),
        "docs/manifest.md": manifest(),
        "docs/messages.md": messages(),
        "docs/models.md": models(),
        "docs/prices.md": _NOTE + prices(),
        "docs/states.md": states(),
        "schemas/openapi.json": json.dumps(APP.app.openapi(), indent=1, ensure_ascii=False) + "\n",
        "schemas/manifest.schema.json": json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n",
    }


def errors() -> str:
    """Every error code."""
    parts = [
        "# Error codes\n\nA code is stable: match on it. It stands in `error.code` of the run document, in "
        "`STATUS.json` and in `REJECTED.md`, with file, line and field where there are any. `{…}` is filled in.\n"
    ]
    for area, codes in groupby(CODES.items(), key=lambda item: item[1].area):
        parts.append(f"\n## {_AREAS[area]}\n\n| code | what it says | what to do |\n| --- | --- | --- |\n")
        for name, code in codes:
            mark = "" if code.severity == "error" else " (warning)"
            parts.append(f"| `{name}`{mark} | {_cell(code.message)} | {_cell(code.hint)} |\n")
    return _NOTE + "".join(parts)


def manifest() -> str:
    """Every field of the manifest, and what other tools call it."""
    fields = _fields(manifest_schema())
    rows = (f"| `{name}` | {kind} | {default} | {_cell(about)} |\n" for name, kind, default, about in fields)
    wrappers = ", ".join(f"`{name}`" for name in WRAPPERS)
    exclusive = ", ".join(f"`{'.'.join(one)}` and `{'.'.join(other)}`" for one, other in EXCLUSIVE)
    decided = (
        f"| {what} | {' '.join(f'`{name}`' for name in names.split())} |\n" for what, names in sorted(DECIDED.items())
    )
    return _NOTE + MANIFEST.format(
        limit=MAX_BYTES // 1024,
        fields="".join(rows),
        exclusive=exclusive,
        aliases="".join(map(_alias_row, ALIASES)),
        wrappers=wrappers,
        decided="".join(decided),
        defaults=DEFAULTS,
    )


def _alias_row(alias: Alias) -> str:
    names = ", ".join(f"`{name}`" for name in alias.names.split())
    return f"| {names} | {alias.tools} | `{alias.setting}` | {alias.note} |\n"


class _WithoutTitles(GenerateJsonSchema):
    """A field's title would only be its name once more."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of a manifest under its canonical names, for editors."""
    schema = Manifest.model_json_schema(schema_generator=_WithoutTitles)
    schema["required"].remove("name")  # by default the folder's
    return {"$schema": _WithoutTitles.schema_dialect, "title": "AdaptML manifest"} | {
        key: value for key, value in schema.items() if key != "title"
    }


def messages() -> str:
    """Topics and the schemas that Pub/Sub enforces on them."""
    limit = TOPOLOGY.delivery.max_delivery_attempts
    parts = [
        "# Topics and messages\n\nBodies are JSON. A topic with a schema refuses everything else when it is published. "
        f"A message that a function refuses {limit} times goes to the topic's dead-letter topic.\n"
    ]
    for name, topic in TOPOLOGY.topics.items():
        parts.append(f"\n## `{name}`\n\nPublished by {topic.publisher}; dead letters: `{dead_letter_topic(name)}`.")
        own = tenant_topic(name, "{tenant}")
        parts.append(f" A tenant's own: `{own}`, for that tenant only.\n" if name in TOPOLOGY.tenant_topics else "\n")
        if topic.schema_name is not None:
            parts.append(f"\n```json\n{avro_schema(TOPIC_MESSAGES[topic.schema_name])}\n```\n")
    return _NOTE + "".join(parts)


COMMANDS = """# The command `adaptml`

`pip install adaptml` brings `check`; `pip install 'adaptml[cloud]'` all of them. They work on the deployment that the
environment names, with your own credentials (`gcloud auth application-default login`): `GOOGLE_CLOUD_PROJECT`,
`ADAPTML_DROPS_BUCKET`, `ADAPTML_ARTIFACTS_BUCKET`, … (`terraform output -json environment`). `. .local/env` names the
local cloud. `ADAPTML_TENANT` saves `--tenant`. What a command may do are your rights in Google Cloud: they are for
people who operate a deployment; others use the bucket, the [API](api.md) or the [page](dashboard.md).

`--json` prints JSON for programs, on standard output and nothing else; what went wrong is said on standard error, with
a code of [errors.md](errors.md). `adaptml --install-completion` completes in the shell.
What some of them say: [commands_transcript.md](commands_transcript.md).

| exit status | |
| --- | --- |
| 0 | done; of what follows a run: it SUCCEEDED, or was VALIDATED |
| 1 | refused, failed, not found, or a service did not answer |
| 2 | wrong use, or a setting that is missing |
| 3 | the run has not ended in the time that was given |

"""
"""What no command says of itself."""


def commands() -> str:
    """The command, as it describes itself."""
    from typer.cli import app
    from typer.testing import CliRunner

    told = CliRunner().invoke(app, ["adaptml.cli", "utils", "docs", "--name", "adaptml"], env={"COLUMNS": "200"})
    described = html.unescape(told.output).split("**Commands**:")[1].partition("\n## ")[2]
    return f"{_NOTE}{COMMANDS}## {described.rstrip()}\n"


def states() -> str:
    """The states of a run and every change between them."""
    rows = (
        f"| `{state}` | {', '.join(f'`{after}`' for after in sorted(afters)) or 'final'} |\n"
        for state, afters in TRANSITIONS.items()
    )
    return (
        f"{_NOTE}# Run states\n\nEverything that is not in this table is refused.\n\n| from | to |\n| --- | --- |\n"
        + "".join(rows)
    )


def models() -> str:
    """The catalogue, as somebody reads it who chooses a base model."""
    accelerator = Compute().accelerator
    parts = [
        "# Base models\n\nWhat `base_model` may be: the rows of schemas/catalogue/models.yaml. Weights are laid into "
        "the models folder when a deployment is set up, at the revision named there; of a gated model the hub asks to "
        "accept its conditions first. USD is what the planner (docs/planning.md) expects a million trained tokens to "
        f"cost on {accelerator}, without start-up; what fits its memory: [limits.md](limits.md).\n\n"
        "| base model | licence | gated | parameters | context | USD | chat template |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    ]
    for row in CATALOGUE.values():
        millions, gated = row.architecture.parameters() / 1e6, "yes" if row.gated else "no"
        asked = {"name": "models", "base_model": row.id, "dataset": {"train": ["train.jsonl"]}}
        seconds = training_seconds(Manifest.model_validate(asked), Span(1e6, 1e6, 1e6)).expected
        usd = f"{cost_usd(accelerator, seconds):.2f}"
        chat = row.chat or "none: plain texts only"
        parts.append(
            f"| `{row.id}` | {row.licence} | {gated} | {millions:,.0f} M | {row.context:,} | {usd} | {chat} |\n"
        )
    parts.append(MODELS)
    for name, family in FAMILIES.items():
        begins, ends = (f"`{_cell(token)}`" if token else "–" for token in (family.bos, family.end_of_turn))
        tools = "yes" if family.tools else "no"
        parts.append(f"| {name} | {begins} | {ends} | {_SYSTEM[family.system]} | {tools} |\n")
    return _NOTE + "".join(parts)


def limits() -> str:
    """How long a sequence each base model can be trained on."""
    accelerator = Compute().accelerator
    parts = [
        f"# Limits\n\nThe longest `training.max_seq_length` that is planned to fit {accelerator} with `lora.r: 16` on "
        "`attention`, in steps of 64 tokens and within the model's context; and GB of GPU memory at that length, in "
        "brackets the range. Computed by the planner (docs/planning.md), not measured.\n\n"
        "| base model | parameters | context | `method: qlora` | GB | `method: lora` | GB |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    ]
    for row in CATALOGUE.values():
        millions = row.architecture.parameters() / 1e6
        methods = " | ".join(_longest(row.id, method) for method in ("qlora", "lora"))
        parts.append(f"| `{row.id}` | {millions:,.0f} M | {row.context} | {methods} |\n")
    return _NOTE + "".join(parts)


def _longest(base_model: str, method: str) -> str:
    asked = {"name": "limits", "base_model": base_model, "dataset": {"train": ["train.jsonl"]}, "method": method}
    longest = longest_sequence(Manifest.model_validate(asked), lambda one: estimate(one, 0, 1).fits)
    if longest is None:
        return "does not fit | –"
    span = gpu_memory_span(Manifest.model_validate(asked | {"training": {"max_seq_length": longest}}))
    return f"{longest} | {span.expected / 1e9:.1f} ({span.low / 1e9:.1f}–{span.high / 1e9:.1f})"


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, default, description) of each field, those of parts with their part's name."""

    def walk(part: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
        for name, field in part["properties"].items():
            reference = field.get("$ref") or next((o["$ref"] for o in field.get("anyOf", []) if "$ref" in o), None)
            if reference is None:
                default = f"`{json.dumps(field['default'])}`" if field.get("default") is not None else "–"
                required = "required" if name in part.get("required", []) else default
                yield prefix + name, _kind(field), required, field.get("description", "")
            else:
                yield from walk(schema["$defs"][reference.rsplit("/", 1)[-1]], f"{prefix}{name}.")

    return walk(schema, "")


def _kind(field: dict[str, Any]) -> str:
    """A JSON Schema type in words, with its bounds."""
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"] if option.get("type") != "null")
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    if field.get("type") == "object":
        keys = _kind(field["propertyNames"]) if "enum" in field.get("propertyNames", {}) else "text"
        return f"{keys} → {_kind(field['additionalProperties'])}"
    kind = {"string": "text", "boolean": "true or false"}.get(field["type"], field["type"])
    bounds = [
        f"{sign} {field[key]}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|").replace("{{", "{").replace("}}", "}")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a document is stale")
    check = parser.parse_args().check
    stale = []
    for name, text in documents().items():
        path = ROOT / name
        if not path.is_file() or path.read_text("utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"stale: {', '.join(stale)}; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
