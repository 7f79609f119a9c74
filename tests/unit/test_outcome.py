from __future__ import annotations

import pytest

from adaptml.outcome import brief, outcome, size
from local.demo import summary
from schemas.run import Metrics, Run
from tests.unit.finished import ADAPTER, EXPORTS, MEASURED, finished, rendered


def test_figures_stand_side_by_side() -> None:
    assert rendered(outcome(finished()))[:6] == [
        "on held-out data      base     adapter",
        "loss, nats a token  2.0000  →   1.2500",
        "perplexity            7.39  →     3.49",
        "token accuracy      50.0 %  →   62.5 %",
        "exact match          0.0 %  →   25.0 %",
        "1,200 examples, 24,000 tokens counted; exact match of 4 short answers",
    ]


def test_what_was_not_measured_is_not_shown_as_a_figure() -> None:
    without_short = MEASURED.model_copy(update={"eval_exact_match_after": None, "eval_exact_match_examples": 0})
    shown = "\n".join(rendered(outcome(finished().model_copy(update={"metrics": without_short}))))
    assert "exact match" not in shown
    nothing = finished().model_copy(update={"metrics": Metrics(train_loss=1.0)})
    assert rendered(outcome(nothing))[0] == "Nothing was held out, so nothing was measured."
    assert brief(nothing.metrics) == ""


def test_a_version_of_an_older_run_without_figures_of_the_base_says_so() -> None:
    run = finished().model_copy(update={"metrics": Metrics(eval_loss_after=1.25)})
    assert "loss, nats a token  not measured  →   1.2500" in rendered(outcome(run))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (finished(), "gate       none is set: the version may be promoted"),
        (finished(max_eval_loss=1.5), "gate       passed (max_eval_loss 1.5): the version may be promoted"),
        (
            finished(max_eval_loss=1.2, why_not="1.25 is too high"),
            "gate       not passed (max_eval_loss 1.2): 1.25 is too high; no alias may point at it",
        ),
    ],
)
def test_the_gate_has_its_say(run: Run, said: str) -> None:
    assert said in rendered(outcome(run), 120)


def test_which_step_was_saved() -> None:
    assert "saved      the adapter of step 60 of 80, the best on held-out data" in rendered(outcome(finished()))
    last = finished().model_copy(update={"metrics": MEASURED.model_copy(update={"saved_step": 80})})
    assert "saved      the adapter of step 80, the last" in rendered(outcome(last))


def test_each_form_is_listed_with_its_files() -> None:
    run = finished(files=ADAPTER + EXPORTS, export=("adapter", "merged", "gguf"))
    assert rendered(outcome(run))[-4:] == [
        "delivered  v7, 10.1 GB in all",
        "           adapter: adapter_config.json, adapter_model.safetensors",
        "           merged: merged/, 2 files",
        "           gguf: adapter.gguf, model-bf16.gguf",
    ]


def test_the_adapter_is_always_delivered() -> None:
    run = finished(files=ADAPTER + EXPORTS, export=("merged",))
    assert [line.strip() for line in rendered(outcome(run))[-2:]] == [
        "adapter: adapter_config.json, adapter_model.safetensors",
        "merged: merged/, 2 files",
    ]


def test_a_run_without_a_version_has_no_outcome() -> None:
    assert rendered(outcome(finished().model_copy(update={"artifacts": None}))) == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_demo_ends_with_all_of_it_at_any_width(width: int) -> None:
    run = finished(
        files=ADAPTER + EXPORTS, export=("adapter", "merged", "gguf"), max_eval_loss=1.2, why_not="loss is too high"
    )
    lines = rendered(summary(run, copy="x" * 90, weights_bytes=3_700_000, took="1:20 in all"), width)
    assert {len(line) for line in lines} == {width}
    shown = " ".join(" ".join(line.strip("│ ") for line in lines).split())
    for said in (
        "perplexity 7.39 → 3.49", "token accuracy 50.0 % → 62.5 %", "exact match 0.0 % → 25.0 %", "not passed",
        "gs://artifacts/acme/support-bot/v7/", "3.7 MB of 10.1 GB", "about 170 s and $0.040", "merged/, 2 files",
    ):  # fmt: skip
        assert said in shown
    assert "".join(line.strip("│ ") for line in lines).count("x") >= 90  # folded, not cut off


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    run = finished(max_eval_loss=1.0, why_not="[bold]no[/]")
    assert any("[bold]no[/]" in line for line in rendered(outcome(run)))


def test_sizes_have_their_unit() -> None:
    assert [size(14_700_000), size(999_000_000), size(5_012_000_000)] == ["14.7 MB", "999.0 MB", "5.0 GB"]
