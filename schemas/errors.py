"""Every error a user can cause: its code, what it means and what to do.

Codes are stable: programs match on them. Texts may get better. `docs/errors.md` is generated from `CODES`.
Messages name places (file, line, field) and values of the manifest, never the content of a dataset.
"""

from __future__ import annotations

import enum
from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.text import printable


class Severity(enum.StrEnum):
    """What a problem does to the drop: an error refuses it, a warning is kept on the run, a note says what was put up
    with."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Code(BaseModel):
    """One kind of problem. The texts are format strings over the values given to `problem()`."""

    model_config = ConfigDict(frozen=True)

    area: str
    message: str
    hint: str
    expected: str = ""
    """What would have been right, where the message alone does not say it."""
    severity: Severity = Severity.ERROR


class Problem(BaseModel):
    """One problem found in one place; what a report and a run document list."""

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    message: str
    hint: str
    expected: str = ""
    file: str | None = None
    line: int | None = None
    """1-based line of a text file, or row of an array, a CSV or a Parquet file."""
    field: str | None = None
    """JSON pointer to the value (RFC 6901), e.g. /messages/2/content."""

    def __str__(self) -> str:
        place = " ".join(part for part in (self.file, f"line {self.line}" if self.line else None) if part)
        where = ", ".join(part for part in (place, self.field) if part)
        expected = f"\n  Expected: {self.expected}." if self.expected else ""
        return f"{f'{where}: ' if where else ''}{self.message} [{self.code}]{expected}\n  {self.hint}"


class Refused(Exception):  # noqa: N818 - reads as the outcome that it is
    """Raised where a drop cannot be accepted; carries every problem found so far."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.code}" for p in problems))
        self.problems = problems


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
        expected=kind.expected.format_map(safe),
        file=printable(file, 200) if file else None,
        line=line,
        field=printable(field, 200) if field else None,
    )


def _code(area: str, message: str, hint: str, severity: Severity = Severity.ERROR) -> Code:
    return Code(area=area, message=message, hint=hint, severity=severity)


def _data(message: str, hint: str, expected: str = "", severity: Severity = Severity.ERROR) -> Code:
    return Code(area="data", message=message, hint=hint, expected=expected, severity=severity)


def _warning(message: str, hint: str) -> Code:
    return _data(message, hint, severity=Severity.WARNING)


def _note(message: str, hint: str) -> Code:
    return _data(message, hint, severity=Severity.NOTE)


CODES: dict[str, Code] = {
    # The manifest as a file
    "manifest_too_large": _code(
        "manifest",
        "the file has more than {limit} bytes, which settings never need",
        "Move data into the dataset files.",
    ),
    "manifest_not_text": _code(
        "manifest", "the file is not UTF-8 text", "Save it as UTF-8; a binary file cannot hold settings."
    ),
    "manifest_syntax": _code(
        "manifest", "not valid YAML or JSON: {detail}", "Correct the line; `adaptml` reads YAML 1.2 and JSON."
    ),
    "manifest_unsafe_yaml": _code(
        "manifest",
        "{what} is not allowed in a manifest",
        "Write plain settings, each value out: anchors, aliases, tags and very deep nesting are refused.",
    ),
    "manifest_duplicate_key": _code(
        "manifest", "the key {key} appears twice", "Keep one of the two; the other would be lost silently."
    ),
    "manifest_bad_number": _code(
        "manifest", "{value} is not a number that can be used", "Write a finite number, or put a text in quotes."
    ),
    "manifest_second_document": _code(
        "manifest", "a second YAML document begins", "Remove the line `---` and what follows; one drop is one manifest."
    ),
    "manifest_key_not_text": _code("manifest", "the key {key} is not text", "Put it in quotes, or remove the line."),
    "manifest_not_a_mapping": _code(
        "manifest", "the file is {found}, not a mapping of settings", "Start it with `base_model: …`."
    ),
    "manifest_not_found": _code(
        "manifest",
        "the folder holds no manifest",
        "Add one of {names} with at least `base_model` and `dataset.train`.",
    ),
    "several_manifests": _code(
        "manifest", "the folder holds several manifests: {names}", "Keep one; in the bucket each starts a run."
    ),
    "link_leads_out": _code(
        "manifest",
        "{name} is a link to what lies outside of the folder",
        "Copy the file itself into the folder, if it is to be trained on: the link's content would be copied, too.",
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
    "duplicate_file": _code(
        "manifest",
        "the file {name} is listed in {first} and again in {second}",
        "List each file once: twice counts its examples double, and what is trained on cannot measure.",
    ),
    "reserved_file_name": _code(
        "manifest",
        "{name} cannot be a data file: AdaptML reads or writes a file of that name itself",
        "Give the data file another name, e.g. train.jsonl.",
    ),
    "unknown_target_module": _code("manifest", "{model} has no linear layer {name}", "{suggestion}"),
    "context_exceeded": _code(
        "manifest",
        "{name} is {value}, but {model} reads {context} tokens at most",
        "Set it to {context} or less.",
    ),
    "export_not_supported": _code(
        "manifest",
        "{name}: {model} cannot be exported as {form}: {why}",
        "Take {form} out of export, or choose another base_model.",
    ),
    "unsupported_method": _code(
        "manifest",
        "{name}: {found} is not offered; AdaptML trains LoRA adapters on examples (supervised fine-tuning)",
        "Remove it. Full fine-tuning, and learning from preferences or rewards, are not offered.",
    ),
    # Requests from other systems
    "invalid_request": _code("request", "{detail}", "See docs/requests.md for the fields of a run request."),
    "foreign_object": _code(
        "request",
        "{uri} lies outside the tenant's folder in the drops bucket",
        "Name objects as gs://DROPS/{tenant}/….",
    ),
    # The API
    "unauthenticated": _code(
        "api",
        "no identity: {why}",
        "Send `Authorization: Bearer TOKEN` with an ID token of Google's for this API, and the same in "
        "`X-Serverless-Authorization`: docs/api.md.",
    ),
    "not_a_member": _code(
        "api",
        "the caller is no member of {tenant}",
        "Ask whoever operates the deployment; with several tenants, name one in the header `OpenAI-Project`.",
    ),
    "read_only": _code("api", "the caller may read, not write", "Ask for the right of a writer of the tenant."),
    "invalid_parameter": _code("api", "{detail}", "See docs/api.md, or the API's own /docs."),
    "unknown_path": _code("api", "there is nothing at {path}", "See docs/api.md, or the API's own /docs."),
    "method_not_allowed": _code(
        "api", "{method} is not possible at {path}", "See docs/api.md, or the API's own /docs."
    ),
    "unknown_run": _code("api", "there is no run {run_id}", "`GET /v1/runs` lists the tenant's runs."),
    "unknown_file": _code("api", "there is no file {file_id}", "`GET /v1/files` lists the tenant's files."),
    "unknown_model": _code("api", "the catalogue has no model {model}", "`GET /v1/models` lists them."),
    "bad_file_name": _code(
        "api", "{name} cannot be a file's name", "Send a plain name such as train.jsonl, of 200 characters at most."
    ),
    "file_too_large": _code(
        "api",
        "the file has more than {limit} bytes",
        "Ask `POST /v1/file_uploads` for a URL and send it there, or copy it into the tenant's folder of the bucket.",
    ),
    "idempotency_key_reused": _code(
        "api",
        "the Idempotency-Key was used for another request, {run_id}",
        "Use a new key for each thing that is asked for.",
    ),
    "already_ended": _code("api", "run {run_id} is {state}", "Only a run that is under way can be cancelled."),
    "internal_error": _code(
        "api", "something went wrong here", "Try again; whoever operates the API finds it in the log."
    ),
    "unavailable": _code("api", "{what} does not answer", "Try again in a moment."),
    # Aliases of adapters
    "unknown_adapter": _code(
        "adapter",
        "there is no adapter {adapter} yet",
        "An adapter is there once a run of that name has committed its first version; `adaptml adapters` lists them.",
    ),
    "unknown_version": _code(
        "adapter",
        "{adapter} has no version or alias {named}",
        "Name a version (v3) or an alias. There are: {known}.",
    ),
    "version_not_ready": _code(
        "adapter",
        "{version} of {adapter} cannot be read: its run has not published all files",
        "Wait until the run has SUCCEEDED.",
    ),
    "not_promotable": _code(
        "adapter",
        "{version} of {adapter} may not be promoted: {why}",
        "Promote a version that passed the gate of its manifest, or change `evaluation` there and train again.",
    ),
    "bad_alias": _code(
        "adapter",
        "{alias} cannot be an alias",
        "Use 1 to 31 lower-case letters, digits and hyphens, a letter first. `latest` always is the newest version "
        "that passed its gate and is not moved by hand; v3 is a version.",
    ),
    "nothing_to_roll_back": _code(
        "adapter",
        "{alias} of {adapter} cannot be rolled back: {where}",
        "Promote the version that you want.",
    ),
    "bad_alias_command": _code(
        "adapter",
        "what it says is neither an alias nor a version",
        "PROMOTE holds an alias and a version, either or none: `prod v3`. ROLLBACK holds an alias or nothing.",
    ),
    # Data files
    "data_missing": _data(
        "after {waited} these files had not arrived: {files}",
        "Copy them and then the manifest again, or correct the names under `dataset`.",
    ),
    "file_not_found": _data(
        "the file is not in the folder", "Add it, or correct its name under `dataset`; names are case-sensitive."
    ),
    "data_gone": _data(
        "generation {generation} of this file was deleted before it was read",
        "Copy the drop again and keep its files until the run has ended.",
    ),
    "checksum_mismatch": _data(
        "sha256 is {found}, the manifest pins {pinned}", "Copy the file again or correct `dataset.sha256`."
    ),
    "unsupported_file_type": _data(
        "files of type {suffix} are not read",
        "Save the data in one of these formats, best .jsonl.",
        ".jsonl, .json, .csv, .tsv or .parquet, each also with .gz",
    ),
    "bad_gzip": _data(
        "the gzip stream is broken: {detail}", "Compress the file again; a copy that was cut off looks like this."
    ),
    "gzip_bomb": _data(
        "{compressed} compressed bytes unpack to more than {unpacked}",
        "Text does not compress that well. Copy the file uncompressed if it is meant so.",
        "a ratio below {ratio}:1",
    ),
    "not_utf8": _data(
        "byte {offset} is not UTF-8",
        "Save the file as UTF-8 (in Excel: CSV UTF-8).",
        "UTF-8 text, which includes ASCII",
    ),
    "line_too_long": _data(
        "more than {limit} bytes without an end", "Split the example; one row is one example.", "at most {limit} bytes"
    ),
    "invalid_json": _data("not valid JSON: {detail}", "Correct or remove the row.", "one JSON value (RFC 8259)"),
    "nested_too_deeply": _data(
        "the row has more than {limit} levels of objects and lists within each other",
        "Leave the inner ones out, or keep them as one text; a conversation with tools needs about ten.",
        "at most {limit} levels",
    ),
    "json_not_an_array": _data(
        "the file is {found}, not an array of rows",
        "Put the rows into one array, or write one object a line and call the file .jsonl.",
        "[{{…}}, {{…}}]",
    ),
    "bad_table_header": _data(
        "{detail}", "Name each column once in the first line.", "a first line with the names of the columns"
    ),
    "bad_table_row": _data(
        "{detail}",
        "Quote cells that hold the delimiter, a quote or a line break; write a quote within a cell twice.",
        "as many cells as the header has columns (RFC 4180)",
    ),
    "bad_parquet": _data(
        "cannot be read as Parquet: {detail}", "Write the file again, in row groups of 128 MB or less."
    ),
    # Rows
    "duplicate_key": _data(
        "the key {key} appears twice in one object", "Keep one of the two; the other would be lost silently."
    ),
    "row_not_an_object": _data(
        "the row is {found}", "Write each example as one object with named fields.", "a JSON object"
    ),
    "unknown_row_shape": _data(
        "the row has {found}, which is no known shape",
        "Rename the fields, or name yours under dataset.columns, e.g. "
        "`columns: {{prompt: question, completion: reply}}`. A table needs a first line with the names of its columns.",
        "messages; prompt + completion; instruction (+ input) + output; conversations; or text",
    ),
    "ambiguous_row_shape": _data(
        "the row fits more than one shape: {found}", "Say which one is meant with dataset.format.", "one shape"
    ),
    "mixed_row_shapes": _data(
        "the row has the shape {found}, rows before it have {expected}",
        "Keep one shape in all files of a drop; put other shapes into a drop of their own.",
        "{expected} in all rows",
    ),
    "preference_data": _data(
        "the row holds a preference pair ({found}), which is for DPO",
        "AdaptML trains on examples to follow (SFT). To learn the preferred answers: "
        "`dataset.columns: {{{role}: {column}}}`.",
        "one answer for each prompt",
    ),
    "kto_data": _data(
        "the row holds a verdict on its answer (prompt, completion and label), which is for KTO",
        "AdaptML trains on examples to follow (SFT). Keep the rows with label true, and set "
        "`dataset.format: prompt_completion`.",
        "prompt and completion without a label",
    ),
    "missing_messages_list": _data(
        "{name} is not a list with at least one message",
        "Write the conversation as a list, one entry a turn.",
        '[{{"{role}": …, "{content}": …}}, …]',
    ),
    "message_not_an_object": _data(
        "the message is {found}", "Write each turn as an object.", '{{"{role}": …, "{content}": …}}'
    ),
    "message_missing_key": _data(
        "the message has no {key}", "Give every message a role and a content; only tool calls need no content."
    ),
    "message_unrecognized_key": _data("the message has the key {key}", "Remove or rename it: {suggestion}", "{known}"),
    "unrecognized_role": _data("the role {role} is not known", "Rename the role.", "{known}"),
    "missing_content": _data("{name} is {found}", "Write the text as one string.", "a text"),
    "empty_assistant_content": _data(
        "empty assistant turn",
        "Training on it would teach the model to answer nothing. Write the answer, or set on_invalid_row: quarantine.",
        "a text that is not blank, or tool calls",
    ),
    "example_missing_assistant_message": _data(
        "there is no assistant turn to learn from", "End the conversation with the answer to learn."
    ),
    "no_user_message": _data(
        "there is no user turn", "Write what was asked before the answer; for plain texts use the field `text`."
    ),
    "system_not_first": _data("a system turn after other turns", "Move it to the front, or merge it into a user turn."),
    "bad_turn_order": _data(
        "{role} follows {before}",
        "Merge turns of the same role that follow each other; begin with the user.",
        "user and assistant in turn; tool results between two assistant turns",
    ),
    "last_turn_not_assistant": _data(
        "the last turn is {role}", "Remove it, or add the answer to learn.", "an assistant turn at the end"
    ),
    "bad_weight": _data(
        "weight is {found}", "Use 0 for turns that are not to be learned, else 1.", "0 or 1, on assistant turns"
    ),
    "nothing_to_learn": _data(
        "every assistant turn has weight 0", "Remove the row, or give the turns to learn weight 1."
    ),
    "invalid_tools": _data(
        "{detail}",
        "List the functions as the OpenAI API takes them.",
        '[{{"type": "function", "function": {{"name": …, "parameters": …}}}}, …]',
    ),
    "invalid_tool_call": _data(
        "{detail}",
        "Write tool calls as the OpenAI API gives them.",
        '{{"id": …, "type": "function", "function": {{"name": …, "arguments": "{{…}}"}}}}',
    ),
    "tool_result_without_call": _data(
        "a tool result that no tool call asked for", "Put the assistant turn with its tool_calls before it."
    ),
    "special_token_in_content": _data(
        "the text holds the control token {token} of {model}",
        "The chat template writes it; within a text it would end or forge a turn. Remove it or write it differently.",
        "texts without control tokens",
    ),
    "overlong_example": _data(
        "the example has {tokens} tokens, training.max_seq_length is {limit}",
        "Shorten it, raise training.max_seq_length, or set training.overlong to truncate or drop.",
        "at most {limit} tokens",
    ),
    "nothing_left_after_truncation": _data(
        "within its first {limit} tokens nothing is trained on",
        "Raise training.max_seq_length, shorten the prompt, or set training.overlong: drop.",
    ),
    # Tokens
    "template_refuses": _data(
        "the base model's chat template does not render this conversation: {detail}",
        "Write the conversation as the model takes it, e.g. the system turn's text within the first user turn; "
        "or choose another base_model.",
    ),
    "template_not_maskable": _data(
        "the base model's chat template writes earlier turns anew when more follow, so answers cannot be told apart",
        "Set training.train_on: all, or split the conversation so that only its last turn is an answer.",
    ),
    "template_marks_no_answer": _data(
        "the base model's chat template marks nothing of this conversation as what the model writes",
        "Set training.train_on: all, write the answers as the model takes them, or choose another base_model.",
    ),
    "template_ignores_tools": _warning(
        "the base model's chat template leaves out {what}",
        "The model will not see them. Choose a base_model whose template takes tools, or write them as text.",
    ),
    "examples_truncated": _warning(
        "{count} examples have more than {limit} tokens and are cut, as training.overlong: truncate asks{basis}",
        "Raise training.max_seq_length if their ends matter.",
    ),
    "examples_dropped": _warning(
        "{count} examples have more than {limit} tokens and are left out, as training.overlong: drop asks{basis}",
        "Raise training.max_seq_length or shorten them if they matter.",
    ),
    "tokens_not_counted": _warning(
        "the tokenizer of {model} is not at hand: tokens were estimated from characters, and no length was checked",
        "Whoever runs this AdaptML puts it into the models bucket; on a laptop, name its folder with --models.",
    ),
    # The data as a whole
    "no_examples": _data("there is no example in the training files", "Add at least one row."),
    "validation_without_examples": _data(
        "there is no example in the validation files", "Add rows, or use dataset.validation_split."
    ),
    "train_validation_overlap": _data(
        "the same example is in the training data ({other})",
        "Remove it from one of the two: held-out loss on what was learned by heart says nothing.",
    ),
    "few_examples": _warning(
        "only {count} examples to train on",
        "Ten is where an effect usually begins to show; 50 to 100 good ones are a fair start.",
    ),
    "duplicate_example": _warning("the same example as {other}", "Remove it, unless it is meant to count more."),
    "dominant_answer": _warning(
        "{share} % of the examples have the same answer, this one",
        "The model will tend to give it to everything. Balance the data if that is not meant.",
    ),
    "length_outlier": _warning(
        "the example has {characters} characters, where the middle one has {median}",
        "Look whether a document slipped in; long rows set the memory and time that a run needs.",
    ),
    "unfilled_placeholder": _warning(
        "an unfilled placeholder {{{{…}}}}", "Fill it in, or the model learns to write it."
    ),
    "empty_system": _warning("an empty system turn", "Remove it or write the instruction."),
    "nothing_left_to_train_on": _data(
        "every training example is longer than {limit} tokens, and training.overlong: drop leaves none",
        "Raise training.max_seq_length, or set training.overlong: truncate.",
    ),
    "likely_secret": _warning(
        "what looks like a secret: {kind}", "Revoke it and take it out: a model repeats what it learned."
    ),
    "likely_personal_data": _warning(
        "what looks like personal data: {kind}", "Take it out or replace it, unless you may train on it."
    ),
    "rows_quarantined": _warning(
        "{count} rows were set aside, as on_invalid_row: quarantine asks",
        "They are listed with reasons in quarantined.jsonl beside the adapter.",
    ),
    "byte_order_mark": _note("the file begins with a byte order mark", "It is skipped."),
    "crlf_line_ends": _note("lines end in CR LF", "They are read like LF."),
    "blank_lines": _note("{count} blank lines", "They are skipped."),
    "unused_columns": _note("not used: {columns}", "Name columns under dataset.columns if they hold what to train on."),
    "duplicates_sampled": _note(
        "so many examples that copies were looked for among one in {share} of them",
        "Copies stay or go together, so shares are right; a single copy may be missed.",
    ),
    "delimiter_found": _note("cells are divided by {delimiter}", "It was recognised from the first line."),
    "json_lines_in_json": _note("the file holds one object a line", "It is read like .jsonl."),
    # Planning
    "does_not_fit": _code(
        "plan",
        "the run needs about {needed_gb} GB of GPU memory, {accelerator} has {available_gb}",
        "{suggestion}",
    ),
    "too_expensive": _code(
        "plan",
        "the run would cost about ${cost}, compute.max_cost_usd is ${limit}",
        "{suggestion}",
    ),
    "too_long": _code(
        "plan",
        "for start-up, one step and a checkpoint an execution needs about {duration} s, compute.timeout is {timeout} s",
        "{suggestion}",
    ),
    "takes_several_attempts": _code(
        "plan",
        "the run takes about {duration} s, more than an execution has within compute.timeout, {timeout} s: it is "
        "trained in {count} executions, each of which goes on from the last checkpoint",
        "{suggestion}",
        Severity.WARNING,
    ),
    "exports_do_not_fit": _code(
        "plan",
        "{forms}: while they are made, files and process need about {needed_gb} GB, the job's instance has "
        "{available_gb} GB of memory, in which its files lie, too",
        "{suggestion}",
    ),
    "exports_too_long": _code(
        "plan",
        "for start-up and {forms} an execution needs about {duration} s, compute.timeout is {timeout} s",
        "{suggestion}",
    ),
    # The run
    "attempts_exhausted": _code(
        "run",
        "attempt {attempt} died and no more may (compute.max_attempts is {limit}): {cause}",
        "Look at the execution's log; if the cause was the platform's, copy a file RESUME into the folder to go on "
        "from the last checkpoint.",
    ),
    "cost_limit_reached": _code(
        "run",
        "the run has cost ${spent} so far, compute.max_cost_usd is ${limit}",
        "Raise compute.max_cost_usd and copy the manifest again; attempts that died cost, too.",
    ),
    "over_budget": _code(
        "run",
        "the run needs about ${needed}, ${left} of the budget of ${budget} for {month} are left",
        "Wait for the next month, train on less, or ask whoever runs this AdaptML for a higher budget.",
    ),
    "queue_full": _code(
        "run",
        "{waiting} runs of {tenant} wait already, its limit is {limit}",
        "Copy the manifest again when some of them have started.",
    ),
    "nothing_to_resume": _code(
        "run",
        "there is nothing to go on with: {why}",
        "RESUME takes up the folder's last run if it was cancelled or failed, from its last checkpoint; copy the "
        "manifest to start anew.",
    ),
    "checkpoint_gone": _code(
        "run",
        "no checkpoint of {run_id} can be read any more",
        "Copy the manifest again to start anew.",
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
    "training_diverged": _code(
        "run",
        "the loss became {loss} at step {step}",
        "Lower training.learning_rate, or look for broken rows in the data.",
    ),
    "out_of_gpu_memory": _code(
        "run",
        "the GPU's memory does not suffice to train {model} on an example of {tokens} tokens",
        "Lower training.max_seq_length, adapt fewer layers (lora.target_modules), or take a smaller base model.",
    ),
    "base_model_unavailable": _code(
        "run",
        "the weights of {model} are not where the trainer looks for them",
        "Whoever runs this AdaptML prepares them once with `python -m trainer.prepare`.",
    ),
    "export_failed": _code(
        "run",
        "the export {form} cannot be delivered: {what}",
        "The adapter was not published either. Take {form} out of export and copy the manifest again, or ask whoever "
        "runs this AdaptML.",
    ),
    "cancelled": _code(
        "run",
        "cancelled by request",
        "Copy a file RESUME into the folder to go on from the last checkpoint, or the manifest to start anew.",
    ),
    # What `python -m trainer.prepare` says; no drop can cause it
    "model_gated": _code(
        "models",
        "the hub does not hand out {model}: {why}",
        "Accept the conditions at https://huggingface.co/{model}, make a token that may read, and pass it by "
        "--token-secret or HF_TOKEN.",
    ),
    "model_token_unreadable": _code(
        "models",
        "the secret {secret} cannot be read: {why}",
        "Name a version of a secret that exists, as projects/P/secrets/S/versions/latest, and give the account that "
        "calls the role secretmanager.secretAccessor on it.",
    ),
    "model_revision_missing": _code(
        "models",
        "the hub has no revision {revision} of {model}",
        "Correct `revision` of the model's row in schemas/catalogue/models.yaml: the commit's 40 digits.",
    ),
    "model_incomplete": _code(
        "models",
        "{model} has no {name} at its revision, or the hub does not say what is in it",
        "Take a revision that holds safetensors and tokenizer.json; pickle is not read.",
    ),
    "model_file_differs": _code(
        "models",
        "{name} of {model} is not what the hub says it is: size or checksum differ",
        "It was deleted: call again, and only this file is fetched anew. If that helps nothing, something between here "
        "and the hub changes files.",
    ),
    "models_disk_full": _code(
        "models",
        "the disk is too small for {model}: {needed} is needed, {free} is free",
        "Free some, or name a folder on a larger disk with --into. What was downloaded is not downloaded again.",
    ),
    "hub_unreachable": _code(
        "models",
        "the hub cannot be used: {why}",
        "Check the network and HF_ENDPOINT, and call again: what was downloaded is not downloaded again.",
    ),
}
