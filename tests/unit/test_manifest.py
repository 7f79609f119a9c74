from __future__ import annotations

import pytest

from adaptml.dataset.shapes import SHAPES
from schemas.errors import Refused
from schemas.manifest import Dataset, Manifest, is_safe_file_name
from schemas.manifest_reading import parse_inline, parse_manifest

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def parse(text: str, folder: str = "bot") -> Manifest:
    return parse_manifest(text.encode(), file="manifest.yaml", folder=folder)


def refused(text: str, folder: str = "bot") -> dict[str, tuple[int | None, str | None, str]]:
    with pytest.raises(Refused) as caught:
        parse(text, folder)
    return {p.code: (p.line, p.field, p.hint) for p in caught.value.problems}


def test_two_lines_are_enough_and_the_rest_has_defaults() -> None:
    manifest = parse(f"base_model: {MODEL}\ndataset: {{train: [train.jsonl]}}\n")
    assert manifest.name == "bot"
    assert manifest.method == "qlora"
    assert (manifest.lora.r, manifest.lora.alpha) == (16, 32)
    assert manifest.training.epochs == 3
    assert manifest.compute.timeout_s == 3600
    assert manifest.export == ["adapter"]


def test_max_steps_replaces_epochs() -> None:
    manifest = parse(f"base_model: {MODEL}\ndataset: {{train: [a.jsonl]}}\ntraining: {{max_steps: 7}}\n")
    assert manifest.training.epochs is None
    assert manifest.training.max_steps == 7


def test_a_missing_field_is_named_with_what_to_add() -> None:
    found = refused(f"base_model: {MODEL}\n")
    assert found["missing_field"] == (1, "/dataset", "Add `dataset: …` to the manifest.")


def test_unknown_field_suggests_the_nearest_name() -> None:
    found = refused(f"base_model: {MODEL}\ndataset: {{train: [a]}}\ntraining:\n  learning_rat: 1\n")
    assert found["unknown_field"] == (4, "/training/learning_rat", "Did you mean learning_rate?")


def test_unknown_model_suggests_the_nearest_of_the_catalogue() -> None:
    found = refused("base_model: HuggingFaceTB/SmolLM2-135M\ndataset: {train: [a]}\n")
    assert found["unknown_base_model"] == (1, "/base_model", f"Did you mean {MODEL}?")


def test_all_problems_are_reported_at_once() -> None:
    found = refused("base_model: nope\ndataset: {train: ['../x'], validation: [v], validation_split: 0.1}\nextra: 1\n")
    assert set(found) == {"unknown_base_model", "conflicting_fields", "unsafe_path", "unknown_field"}


@pytest.mark.parametrize(
    "settings",
    [
        "training: {epochs: 0}",
        "training: {learning_rate: nan}",
        "training: {packing: 3}",
        "training: {epochs: true}",
        "dry_run: maybe",
        "labels: {a: 1}",
        "training: {learning_rate: 2}",
        "training: {batch_size: big}",
        "lora: {r: 0}",
        "lora: {dropout: 1}",
        "compute: {timeout: soon}",
        "compute: {accelerator: tpu}",
        "method: full",
        "export: []",
        "schema_version: 2",
        "training: [1]",
        "dataset: 3",
    ],
)
def test_values_out_of_bounds_are_refused(settings: str) -> None:
    text = f"base_model: {MODEL}\n" + ("" if settings.startswith("dataset") else "dataset: {train: [a]}\n") + settings
    assert "invalid_value" in refused(text)


def test_epochs_and_max_steps_exclude_each_other() -> None:
    found = refused(f"base_model: {MODEL}\ndataset: {{train: [a]}}\ntraining: {{epochs: 1, max_steps: 2}}\n")
    assert set(found) == {"conflicting_fields"}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2m", 120), ("1h", 3600), ("75", 75)])
def test_durations(text: str, seconds: int) -> None:
    manifest = parse(f"base_model: {MODEL}\ndataset: {{train: [a]}}\ncompute: {{timeout: '{text}'}}\n")
    assert manifest.compute.timeout_s == seconds


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a//b", ".", "a\\b", "gs://other/a", "a\nb", "a/", "\u202ea"])
def test_names_that_leave_the_folder_are_not_safe(name: str) -> None:
    assert not is_safe_file_name(name)


@pytest.mark.parametrize("name", ["a.jsonl", "data/part-1.jsonl", "ünï.jsonl", "..a", "a b.jsonl"])
def test_names_inside_the_folder_are_safe(name: str) -> None:
    assert is_safe_file_name(name)


def test_a_folder_that_cannot_name_a_run_is_refused() -> None:
    assert set(refused(f"base_model: {MODEL}\ndataset: {{train: [a]}}\n", folder="My Bot")) == {"bad_drop_name"}


@pytest.mark.parametrize("folder", ["bot", "My Bot"])
def test_a_manifest_may_name_the_adapter_otherwise_than_its_folder(folder: str) -> None:
    assert parse(f"name: x\nbase_model: {MODEL}\ndataset: {{train: [a]}}\n", folder).name == "x"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ("training: {lr_scheduler: cosin}", "Did you mean cosine?"),
        ("training: {overlong: trunc}", "Did you mean truncate?"),
        ("method: qlor", "Did you mean qlora?"),
        ("training: {batch_size: 5000}", "See the manifest reference in docs/manifest.md."),
    ],
)
def test_a_value_that_is_none_suggests_the_nearest(settings: str, hint: str) -> None:
    found = refused(f"base_model: {MODEL}\ndataset: {{train: [a]}}\n{settings}\n")
    assert found["invalid_value"][0] == 3
    assert found["invalid_value"][2] == hint


def test_the_name_of_a_column_suggests_the_nearest() -> None:
    found = refused(f"base_model: {MODEL}\ndataset:\n  train: [a]\n  columns: {{promt: q}}\n")
    assert found["invalid_value"] == (4, "/dataset/columns/promt", "Did you mean prompt?")


def test_every_column_that_a_shape_reads_can_be_named() -> None:
    known = {column for shape in SHAPES.values() for column in shape.columns()}
    columns = {column: f"my {column}" for column in known | {"role", "content", "from", "value"}}
    assert Dataset(train=["a"], columns=columns).columns == columns


@pytest.mark.parametrize(
    ("modules", "resolved"),
    [
        ("all-linear", "all-linear"),
        ("[attention]", "attention"),
        ("q_proj", ["q_proj"]),
        ("q_proj, v_proj", ["q_proj", "v_proj"]),
        ("[up_proj, down_proj]", ["up_proj", "down_proj"]),
    ],
)
def test_target_modules_are_a_group_or_layers(modules: str, resolved: object) -> None:
    quoted = modules if modules.startswith("[") else f"'{modules}'"
    text = f"base_model: {MODEL}\ndataset: {{train: [a]}}\nlora: {{target_modules: {quoted}}}\n"
    assert parse(text).lora.target_modules == resolved


@pytest.mark.parametrize(
    ("modules", "field", "hint"),
    [
        ("[q_proj, kproj]", "/lora/target_modules/1", "Did you mean k_proj?"),
        ("atention", "/lora/target_modules", "Did you mean attention?"),
        ("'q_proj,lm_head'", "/lora/target_modules", f"Known names: {', '.join(LAYERS)}."),
    ],
)
def test_layers_that_the_base_model_does_not_have_are_refused(modules: str, field: str, hint: str) -> None:
    found = refused(f"base_model: {MODEL}\ndataset: {{train: [a]}}\nlora: {{target_modules: {modules}}}\n")
    assert found == {"unknown_target_module": (3, field, hint)}


@pytest.mark.parametrize("length", ["8193", "'8193'", "9000.0"])
def test_more_tokens_than_the_base_model_reads_are_refused(length: str) -> None:
    found = refused(f"base_model: {MODEL}\ndataset: {{train: [a]}}\ntraining: {{max_seq_length: {length}}}\n")
    assert found == {"context_exceeded": (3, "/training/max_seq_length", "Set it to 8192 or less.")}


@pytest.mark.parametrize(
    ("dataset", "code", "field"),
    [
        ("train: [a, a]", "duplicate_file", "/dataset/train/1"),
        ("{train: a, validation: a}", "duplicate_file", "/dataset/validation"),
        ("train: [manifest.yaml]", "reserved_file_name", "/dataset/train/0"),
        ("{train: a, validation: [STATUS.json]}", "reserved_file_name", "/dataset/validation/0"),
        (f"{{train: a, sha256: {{b: {'0' * 64}}}}}", "invalid_value", "/dataset/sha256/b"),
        ("train: ../a", "unsafe_path", "/dataset/train"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(dataset: str, code: str, field: str) -> None:
    inner = dataset if dataset.startswith("{") else f"{{{dataset}}}"
    found = refused(f"base_model: {MODEL}\ndataset: {inner}\n")
    assert {name: place for name, (_, place, _) in found.items()} == {code: field}


def test_one_file_may_be_written_without_a_list() -> None:
    manifest = parse(f"base_model: {MODEL}\ndataset: {{train: a.jsonl, validation: b.jsonl}}\nexport: adapter\n")
    assert (manifest.dataset.train, manifest.dataset.validation) == (["a.jsonl"], ["b.jsonl"])


@pytest.mark.parametrize(("text", "line"), [("", 1), ("- a\n", 1), ("just words\n", 1)])
def test_what_is_no_mapping_is_refused(text: str, line: int) -> None:
    assert refused(text)["manifest_not_a_mapping"][0] == line


def test_an_inline_manifest_takes_its_files_from_the_request() -> None:
    manifest = parse_inline(f"base_model: {MODEL}\n", file="request", folder="nightly", train=["x/a.jsonl"])
    assert manifest.dataset.train == ["x/a.jsonl"]
    with pytest.raises(Refused):
        parse_inline(f"base_model: {MODEL}\ndataset: {{train: [b]}}\n", file="r", folder="n", train=["a"])


def test_a_text_with_half_a_character_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        parse_inline("a: 1\nname: \ud800", file="request", folder="n", train=[])
    assert [(p.code, p.line) for p in caught.value.problems] == [("manifest_not_text", 2)]


def many(what: str, count: int) -> str:
    return ", ".join(what.format(i=i) for i in range(count))


@pytest.mark.timeout(10)  # about a second each; far more where every entry is compared with every other
@pytest.mark.parametrize(
    ("dataset", "rest", "defaults"),
    [
        ("train: [a]", f"export: [{many('a', 15_000)}]", ""),
        (f"train: [a], columns: {{{many('k{i}: [1]', 5_000)}}}", "", ""),
        (f"train: [{many('f{i}', 3_500)}], sha256: {{{many('z{i}: b', 2_500)}}}", "", ""),
        (f"train: [a], sha256: {{{many('k{i}: b', 5_000)}}}", "", f"dataset: {{sha256: {{{many('q{i}: b', 5_000)}}}}}"),
    ],
    ids=["values", "keys and values", "pins and files", "pins of two files"],
)
def test_thousands_of_mistakes_are_told_without_delay(dataset: str, rest: str, defaults: str) -> None:
    text = f"base_model: {MODEL}\ndataset: {{{dataset}}}\n{rest}\n"
    with pytest.raises(Refused):
        parse_manifest(text.encode(), file="manifest.yaml", folder="bot", defaults=defaults.encode())


def test_messages_hold_no_control_characters() -> None:
    with pytest.raises(Refused) as caught:
        parse('{"base_model": "a\\nSEVERITY: forged\\u001b[31m", "dataset": {"train": ["a"]}}')
    assert all("\n" not in p.message and "\x1b" not in p.message for p in caught.value.problems)
