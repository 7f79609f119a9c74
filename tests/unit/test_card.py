from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.manifest import Evaluation, Manifest
from schemas.run import Metrics
from tests.unit.finished import MANIFEST, MEASURED
from trainer import card_evaluation
from trainer.card_evaluation import answers, held_out
from trainer.evaluate import Sample

REFUSED = "**It may not be promoted.** The manifest's gate asks for `max_eval_loss: 1.2`"


def gated(**limits: float) -> Manifest:
    return MANIFEST.model_copy(update={"evaluation": Evaluation(**limits)})


def test_figures_stand_side_by_side() -> None:
    assert held_out(MANIFEST, MEASURED) == (
        "## On held-out data\n\n"
        "| | base model | with this adapter |\n"
        "| --- | ---: | ---: |\n"
        "| loss, nats a token | 2.0000 | 1.2500 |\n"
        "| perplexity | 7.39 | 3.49 |\n"
        "| token accuracy | 50.0 % | 62.5 % |\n"
        "| exact match | 0.0 % | 25.0 % |\n\n"
        "1,200 examples, 24,000 tokens counted. Exact match: of the 4 whose last answer has at most 32 tokens, the "
        "share that the model, asked, gives token for token (greedy). The adapter is that of step 60."
    )


def test_without_short_answers_there_is_no_word_of_them() -> None:
    none = {"eval_exact_match_before": None, "eval_exact_match_after": None, "eval_exact_match_examples": 0}
    assert "xact match" not in held_out(MANIFEST, MEASURED.model_copy(update=none))
    assert "1 example, 1 token counted." in held_out(
        MANIFEST, MEASURED.model_copy(update={"eval_examples": 1, "eval_tokens": 1})
    )


def test_nothing_held_out_is_told() -> None:
    assert held_out(MANIFEST, Metrics(train_loss=1.0)).endswith("Nothing was held out, so nothing was measured.")


@pytest.mark.parametrize(
    ("manifest", "metrics", "said"),
    [
        (
            gated(max_eval_loss=1.5, min_improvement=0.05),
            MEASURED,
            "It passes the manifest's gate (`max_eval_loss: 1.5`, `min_improvement: 0.05`) and may be promoted.",
        ),
        (
            gated(max_eval_loss=1.2),
            MEASURED,
            f"{REFUSED}: held-out loss 1.25 is above max_eval_loss 1.2.",
        ),
        (
            gated(max_eval_loss=1.2),
            Metrics(),
            f"{REFUSED}: there is no held-out loss to judge it by.",
        ),
    ],
)
def test_the_gate_has_its_say(manifest: Manifest, metrics: Metrics, said: str) -> None:
    assert held_out(manifest, metrics).endswith("\n\n" + said)


def test_no_gate_is_not_spoken_of() -> None:
    assert "promoted" not in held_out(MANIFEST, MEASURED)
    assert "promoted" not in held_out(gated(), MEASURED)


def test_answers_stand_beside_what_was_expected() -> None:
    first, second = Sample("Loud?", "Rather.", "I do not know", "Rather."), Sample("?", "!", "", "!")
    text = answers([first, second])
    assert text.startswith(
        "## Answers to held-out prompts\n\nGreedy, 80 tokens at most.\n\n### 1\n\nAsked:\n\n    Loud?\n\n"
        "In the data:\n\n    Rather.\n\nBase model:\n\n    I do not know\n\nWith this adapter:\n\n    Rather.\n\n### 2"
    )
    assert "Base model:\n\n    (nothing)\n" in text
    assert answers([]) == "## Answers to held-out prompts\n\nNo held-out conversation to show.\n"


def lines_of(text: str) -> list[str]:
    """What is shown of a question."""
    shown = answers([Sample(text, "e", "b", "a")])
    return shown.split("Asked:\n\n")[1].split("\n\nIn the data:\n\n    e\n")[0].split("\n")


HOSTILE: list[Any] = [
    "# Heading\n\n<script>alert(1)</script>\n\n---\nbase_model: x",
    "```\n</code></pre>[link](http://x)\n```\n| a | b |",
    "a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h",
    "\n\n   first line indented\n\tand a tab",
    "![](http://x)\n" * 3 + "\n\n\nend",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_its_block(text: str) -> None:
    assert all(line.startswith("    ") for line in lines_of(text))
    assert lines_of(text)[0].strip()


def test_what_a_terminal_obeys_or_turns_a_text_is_replaced() -> None:
    assert lines_of("a\x1b[2Jb\x00c\x9bd\u202ee\ud800f 👩‍👧 שלום") == ["    a�[2Jb�c�d�e�f 👩‍👧 שלום"]
    json.dumps(answers([Sample("\ud800", "", "", "")])).encode()
    answers([Sample("\ud800", "", "", "")]).encode("utf-8")


def test_what_is_shown_is_bounded() -> None:
    (line,) = lines_of("x" * 10_000)
    assert line == "    " + "x" * card_evaluation.SHOWN + " …"
    assert lines_of("x" * card_evaluation.SHOWN) == ["    " + "x" * card_evaluation.SHOWN]
