"""Every error a user can cause: its code, what it means and what to do.

Codes are stable: programs match on them. Texts may get better. `docs/errors.md` is generated from `CODES`.
Messages name places (file, line, field) and values of the manifest, never the content of a dataset.
"""

from __future__ import annotations

import enum
import re
from typing import Any

from pydantic import BaseModel, ConfigDict

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


class Severity(enum.StrEnum):
    """What a problem does to the drop: an error refuses it, a warning is kept on the run."""

    ERROR = "error"
    WARNING = "warning"


class Code(BaseModel):
    """One kind of problem. `message` is a format string over the values given to `problem()`."""

    model_config = ConfigDict(frozen=True)

    area: str
    message: str
    hint: str
    severity: Severity = Severity.ERROR


class Problem(BaseModel):
    """One problem found in one place; what a report and a run document list."""

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    message: str
    hint: str
    file: str | None = None
    line: int | None = None
    """1-based line of a text file, or row of an array, a CSV or a Parquet file."""
    field: str | None = None
    """JSON pointer to the value (RFC 6901), e.g. /messages/2/content."""

    def __str__(self) -> str:
        place = " ".join(part for part in (self.file, f"line {self.line}" if self.line else None) if part)
        where = ", ".join(part for part in (place, self.field) if part)
        return (
            f"{where}: {self.message} [{self.code}]\n  {self.hint}"
            if where
            else (f"{self.message} [{self.code}]\n  {self.hint}")
        )


class Refused(Exception):  # noqa: N818 - reads as the outcome that it is
    """Raised where a drop cannot be accepted; carries every problem found so far."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.code}" for p in problems))
        self.problems = problems


def printable(value: object, limit: int = 80) -> str:
    """A value of a manifest as it may stand in a message: one line, no control characters, bounded length."""
    text = _CONTROL.sub("�", str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def problem(
    code: str, *, file: str | None = None, line: int | None = None, field: str | None = None, **values: Any
) -> Problem:
    """The problem `code` at one place, its message filled from `values`. Raises KeyError for an unknown code."""
    kind = CODES[code]
    safe = {key: value if isinstance(value, int | float) else printable(value, 300) for key, value in values.items()}
    return Problem(
        code=code,
        severity=kind.severity,
        message=kind.message.format_map(safe),
        hint=kind.hint.format_map(safe),
        file=printable(file, 200) if file else None,
        line=line,
        field=printable(field, 200) if field else None,
    )


def _code(area: str, message: str, hint: str, severity: Severity = Severity.ERROR) -> Code:
    return Code(area=area, message=message, hint=hint, severity=severity)


CODES: dict[str, Code] = {
    # The manifest as a file
    "manifest_too_large": _code(
        "manifest", "the manifest has {size} bytes; at most {limit} are read", "Move data into the dataset files."
    ),
    "manifest_not_text": _code(
        "manifest", "the manifest is not UTF-8 text", "Save manifest.yaml as UTF-8; a binary file cannot be a manifest."
    ),
    "manifest_syntax": _code(
        "manifest", "not valid YAML or JSON: {detail}", "Correct the line; `adaptml` reads YAML 1.2 and JSON."
    ),
    "manifest_unsafe_yaml": _code(
        "manifest",
        "{what} is not allowed in a manifest",
        "Write the value out: anchors, aliases, tags and very deep nesting are refused.",
    ),
    "manifest_duplicate_key": _code(
        "manifest", "the key {key} appears twice", "Keep one of the two; the other would be lost silently."
    ),
    "manifest_not_a_mapping": _code(
        "manifest", "the manifest is {found}, not a mapping of settings", "Start it with `base_model: …`."
    ),
    "manifest_gone": _code(
        "manifest",
        "this generation of the manifest was deleted before it was read",
        "Copy the folder again; the manifest's arrival commits the drop.",
    ),
    # The manifest as settings
    "missing_field": _code("manifest", "the required field {name} is missing", "Add `{name}: …` to the manifest."),
    "unknown_field": _code("manifest", "unknown field {name}", "{suggestion}"),
    "invalid_value": _code("manifest", "{detail}", "See the manifest reference in docs/manifest.md."),
    "conflicting_fields": _code("manifest", "{detail}", "Keep one of them."),
    "unknown_base_model": _code("manifest", "base_model {model} is not in the catalogue", "{suggestion}"),
    "unsafe_path": _code(
        "manifest",
        "the file name {name} leaves the drop's folder",
        "Name files relative to the manifest, without `..`, a leading `/`, a backslash or a bucket.",
    ),
    "bad_drop_name": _code(
        "manifest",
        "{what} {name} cannot name a run",
        "Use lower-case letters, digits and `-`, 1 to 48 characters, starting and ending with a letter or digit.",
    ),
    "name_mismatch": _code(
        "manifest",
        "name is {name}, but the drop lies in the folder {folder}",
        "Remove `name`, or copy the drop to a folder of that name: adapters are versioned by folder.",
    ),
    # Requests from other systems
    "invalid_request": _code("request", "{detail}", "See docs/requests.md for the fields of a run request."),
    "foreign_object": _code(
        "request",
        "{uri} lies outside the tenant's folder in the drops bucket",
        "Name objects as gs://DROPS/{tenant}/….",
    ),
    # Data
    "data_missing": _code(
        "data",
        "after {waited} these files had not arrived: {files}",
        "Copy them and then the manifest again, or correct the names under `dataset`.",
    ),
    "data_gone": _code(
        "data",
        "generation {generation} of this file was deleted before it was read",
        "Copy the drop again and keep its files until the run has ended.",
    ),
    "checksum_mismatch": _code(
        "data", "sha256 is {found}, the manifest pins {pinned}", "Copy the file again or correct `dataset.sha256`."
    ),
    "unsupported_file_type": _code("data", "files of type {suffix} are not read", "Use .jsonl or .json."),
    "not_utf8": _code("data", "byte {offset} is not UTF-8", "Save the file as UTF-8."),
    "invalid_json": _code("data", "not valid JSON: {detail}", "Correct or remove the line."),
    "line_too_long": _code(
        "data", "the line has more than {limit} bytes", "Split the example; one line is one example."
    ),
    "row_not_an_object": _code("data", "the row is {found}, not an object", "Write one JSON object a line."),
    "unknown_row_shape": _code(
        "data",
        "the row has the fields {found}, which is no known shape",
        "Known shapes: messages; prompt + completion; instruction (+ input) + output; conversations; text.",
    ),
    "mixed_row_shapes": _code(
        "data",
        "the row has the shape {found}, rows before it have {expected}",
        "Keep one shape in all files of a drop, or set dataset.format.",
    ),
    "missing_messages_list": _code(
        "data", "{name} is not a list with at least one message", "Write a list of {{role, content}} objects."
    ),
    "message_missing_key": _code("data", "the message has no {key}", "Give every message a role and a content."),
    "unrecognized_role": _code("data", "the role {role} is not known", "Use system, user, assistant or tool."),
    "missing_content": _code("data", "{name} is not a text", "Write a string."),
    "empty_assistant_content": _code(
        "data",
        "empty assistant answer",
        "Training on it would teach the model to answer nothing. Remove the row or write the answer.",
    ),
    "example_missing_assistant_message": _code(
        "data", "there is no assistant message to learn from", "End the conversation with the answer to learn."
    ),
    "no_examples": _code("data", "there is no example in the training files", "Add at least one row."),
    "validation_without_examples": _code(
        "data", "there is no example in the validation files", "Add rows, or use dataset.validation_split."
    ),
    "few_examples": _code(
        "data",
        "only {count} examples to train on",
        "Ten is where an effect usually begins to show; 50 to 100 good ones are a fair start.",
        Severity.WARNING,
    ),
    # Planning
    "does_not_fit": _code(
        "plan",
        "the run needs about {needed_gb} GB of GPU memory, {accelerator} has {available_gb}",
        "Lower training.max_seq_length, use method: qlora or choose a smaller base model.",
    ),
    "too_expensive": _code(
        "plan",
        "the run would cost about ${cost}, compute.max_cost_usd is ${limit}",
        "Raise compute.max_cost_usd or lower training.epochs.",
    ),
    "too_long": _code(
        "plan",
        "the run would take about {duration} s, compute.timeout is {timeout} s",
        "Raise compute.timeout or lower training.epochs.",
    ),
    # The run
    "attempts_exhausted": _code(
        "run",
        "attempt {attempt} of {limit} ended: {cause}",
        "Look at the execution's log; if the cause was ours or the platform's, copy the manifest again.",
    ),
    "dispatch_exhausted": _code(
        "run",
        "the training job could not be started {count} times: {cause}",
        "Whoever runs this AdaptML checks the job's image, quota and rights; then copy the manifest again.",
    ),
    "job_start_refused": _code(
        "run",
        "Cloud Run refused to start the job: {cause}",
        "Whoever runs this AdaptML checks the job's name and rights; then copy the manifest again.",
    ),
    "nothing_to_train_on": _code(
        "run",
        "after masking and max_seq_length no token is left to train on",
        "Raise training.max_seq_length or set training.train_on: all.",
    ),
    "overlong_example": _code(
        "run",
        "the example has {tokens} tokens, training.max_seq_length is {limit}",
        "Shorten it, raise training.max_seq_length, or set training.overlong to truncate or drop.",
    ),
    "training_diverged": _code(
        "run",
        "the loss became {loss} at step {step}",
        "Lower training.learning_rate, or look for broken rows in the data.",
    ),
    "base_model_unavailable": _code(
        "run",
        "the weights of {model} are not where the trainer looks for them",
        "Whoever runs this AdaptML prepares them once with `python -m trainer.prepare`.",
    ),
    "cancelled": _code("run", "cancelled by request", "Copy the manifest again to start anew."),
}
