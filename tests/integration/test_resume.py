"""Training that is interrupted ends as if it had not been, to the last bit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from adaptml import lifecycle, protocol
from schemas import layout
from schemas.run_states import RunState
from tests import tiny_model
from tests.cloud import ARTIFACTS, eventually
from tests.training import Desk, Killed, kill, step_of, terminate
from tests.unit.bucket import Bucket
from trainer import attempt, evaluate, micro_batches
from trainer.attempt import Attempt
from trainer.model import MODELS_DIR
from trainer.packing import Packed
from trainer.train import train

PLAIN: dict[str, Any] = {
    "lora": {"r": 4, "dropout": 0.2},
    "training": {"max_steps": 9, "batch_size": 6, "learning_rate": 1e-2, "max_seq_length": 96},
}


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_DIR, str(tiny_model.lay(tmp_path_factory.mktemp("models"))))
        patch.setattr(evaluate, "NEW_TOKENS", 4)  # what the samples say is not what is tested
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole() -> Callable[..., Desk]:
    """The same run without a break, trained once for each manifest."""
    trained: dict[str, Desk] = {}

    def of(**parts: Any) -> Desk:
        key = json.dumps(parts)
        if key not in trained:
            trained[key] = Desk(every_s=1000, **parts)
            assert trained[key].attempt() == 0
        return trained[key]

    return of


def changed(**training: Any) -> dict[str, Any]:
    return PLAIN | {"training": PLAIN["training"] | training}


EARLY = changed(max_steps=None, epochs=30, batch_size=12, learning_rate=0.5, early_stopping={"patience": 2})
"""Two steps an epoch."""
TO_THE_END = changed(
    max_steps=None, epochs=7, batch_size=12, lr_scheduler="constant", early_stopping={"patience": 9}
) | {"dataset": {"train": ["train.jsonl"], "validation": ["contrary.jsonl"]}}
"""All steps are done, and the first were the best: the more is learned, the worse."""
IMPROVING = changed(max_steps=None, epochs=3, batch_size=12, learning_rate=2e-3, early_stopping={"patience": 9})
VARIANTS = {
    "packed": PLAIN,
    "several micro-batches": changed(packing=False),
    "epochs, of which the last batch is smaller": changed(
        max_steps=None, epochs=2, batch_size=7, lr_scheduler="linear"
    ),
    "bf16": PLAIN | {"method": "lora"},
    "early stopping": EARLY,
    "early stopping that never stops": TO_THE_END,
}


@pytest.mark.parametrize("parts", VARIANTS.values(), ids=VARIANTS)
def test_a_run_that_is_handed_over_twice_ends_with_the_same_bits(
    whole: Callable[..., Desk], parts: dict[str, Any]
) -> None:
    desk = Desk(every_s=1000, **parts)
    for at in (2, 5):
        assert desk.attempt(at, terminate) == 0
        assert (desk.run.state, desk.run.checkpoint and desk.run.checkpoint.step) == (RunState.QUEUED, at)
    assert desk.attempt() == 0
    assert_same(desk, whole(**parts))
    assert (desk.run.attempt, desk.run.deaths) == (3, 0)


@pytest.mark.parametrize("parts", [EARLY, TO_THE_END, IMPROVING], ids=["stopped", "to the end", "improving"])
def test_with_early_stopping_the_best_adapter_is_saved(whole: Callable[..., Desk], parts: dict[str, Any]) -> None:
    run, curve = whole(**parts).run, whole(**parts).curve()
    *measured, saved = [(point["step"], point["eval_loss"]) for point in curve[1:] if "eval_loss" in point]
    assert [step for step, _ in measured] == list(range(2, run.progress.step + 1, 2))
    best = min(measured, key=lambda found: found[1])[0]
    assert (best == run.progress.step) is (parts is IMPROVING)
    assert saved[0] == run.metrics.saved_step == best
    assert saved[1] == run.metrics.eval_loss_after == pytest.approx(min(loss for _, loss in measured), rel=0.02)

    stopped = Desk(every_s=1000, **parts)
    stopped.attempt(best, terminate)
    then = load(stopped.bucket.objects[stopped.checkpoints[-1]])
    weights = {name.removeprefix("weights/"): tensor for name, tensor in then.items() if name.startswith("weights/")}
    delivered = load(whole(**parts).delivered())
    assert {name.replace(".default", "") for name in weights} == delivered.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor.to(torch.bfloat16), delivered[name.replace(".default", "")])


@pytest.mark.parametrize("parts", [TO_THE_END, IMPROVING], ids=["spoiled", "improving"])
def test_an_attempt_that_is_killed_while_it_evaluates_chooses_again(
    whole: Callable[..., Desk], parts: dict[str, Any]
) -> None:
    desk = Desk(**parts)
    attempt = desk.begin()

    def die(*_: object, **__: object) -> None:
        raise Killed

    attempt.commit = die
    with pytest.raises(Killed):
        attempt.carry_out(train)
    desk.document.change("", lambda r: protocol.retry_or_fail(r, "killed"))
    assert desk.attempt() == 0
    assert_same(desk, whole(**parts))


def test_without_early_stopping_the_last_adapter_is_saved(whole: Callable[..., Desk]) -> None:
    run = whole(**PLAIN).run
    assert run.metrics.saved_step == run.progress.step == 9
    assert [point["step"] for point in whole(**PLAIN).curve() if "eval_loss" in point] == [0, 9]


def test_what_was_measured_is_told_everywhere(whole: Callable[..., Desk]) -> None:
    gated = PLAIN | {"evaluation": {"min_improvement": 0.99}}
    desk = whole(**gated)
    run, metrics = desk.run, desk.run.metrics
    assert metrics.eval_loss_before is not None
    assert metrics.eval_loss_after is not None
    assert metrics.eval_loss_after < metrics.eval_loss_before
    assert metrics.eval_perplexity_after == math.exp(metrics.eval_loss_after)
    assert metrics.eval_token_accuracy_before is not None
    assert metrics.eval_examples == 1
    first, *_, last = desk.curve()
    assert first["eval_token_accuracy"] == metrics.eval_token_accuracy_before
    assert (last["eval_loss"], last["eval_perplexity"]) == (metrics.eval_loss_after, metrics.eval_perplexity_after)

    assert run.state is RunState.SUCCEEDED
    assert run.artifacts is not None
    assert not run.artifacts.promotable
    provenance = json.loads(desk.delivered("run.json"))
    status = json.loads(lifecycle.status_json(run))
    assert provenance["metrics"] == status["metrics"] == metrics.model_dump()
    assert "min_improvement asks for a fall by 99 %" in provenance["promotable_reason"]
    for marked in (provenance, status["artifacts"]):
        assert (marked["promotable"], marked["promotable_reason"]) == (False, run.artifacts.promotable_reason)
    card = desk.delivered("README.md").decode()
    assert f"The manifest's gate asks for `min_improvement: 0.99`: {run.artifacts.promotable_reason}." in card
    assert desk.delivered() == whole(**PLAIN).delivered()  # a gate changes nothing of what is trained


def test_measurements_without_improvement_are_counted_across_attempts(whole: Callable[..., Desk]) -> None:
    ended_at = whole(**EARLY).run.progress.step
    assert ended_at < whole(**EARLY).run.progress.total_steps
    desk = Desk(every_s=1000, **EARLY)
    for at in (ended_at - 1, ended_at):  # after the first measurement that was no better; before the second
        desk.attempt(at, terminate)
    assert desk.attempt() == 0
    assert_same(desk, whole(**EARLY))


@pytest.mark.parametrize("at", [1, 4, 9])
def test_wherever_it_is_handed_over(whole: Callable[..., Desk], at: int) -> None:
    """After the first step, at the end of an epoch, after the last step."""
    desk = Desk(every_s=1000, **PLAIN)
    desk.attempt(at, terminate)
    assert desk.attempt() == 0
    assert_same(desk, whole(**PLAIN))


def test_a_run_that_is_killed_loses_what_it_did_since_its_last_checkpoint_and_nothing_else(
    whole: Callable[..., Desk],
) -> None:
    desk = Desk(**PLAIN)
    for at in (3, 7):
        desk.attempt(at, after(at - 1, kill))
        assert desk.run.state is RunState.QUEUED
    assert desk.attempt() == 0
    assert_same(desk, whole(**PLAIN))
    assert desk.run.deaths == 2


def test_a_checkpoint_that_the_document_does_not_know_of_is_gone_on_from(
    whole: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(**PLAIN)
    desk.attempt(6, after(5, kill))
    desk.document.run = desk.run.model_copy(update={"checkpoint": None})
    with caplog.at_level("INFO"):
        assert desk.attempt() == 0
    assert "going on after step 5" in caplog.text
    assert_same(desk, whole(**PLAIN))


def test_a_killed_run_without_a_checkpoint_starts_from_the_beginning(whole: Callable[..., Desk]) -> None:
    desk = Desk(every_s=1000, **PLAIN)
    desk.attempt(5, kill)
    assert desk.checkpoints == []
    assert desk.attempt() == 0
    assert_same(desk, whole(**PLAIN))


def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_used(
    whole: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(**PLAIN)
    desk.attempt(6, terminate)
    newest = desk.checkpoints[-1]
    desk.bucket.objects[newest] = desk.bucket.objects[newest][:-1]
    with caplog.at_level("INFO"):
        assert desk.attempt() == 0
    assert "the checkpoint of step 6 cannot be used: its bytes are not those that were written" in caplog.text
    assert re.search("going on after step [1-5]$", caplog.text, re.MULTILINE)
    assert_same(desk, whole(**PLAIN))


def test_where_all_checkpoints_are_damaged_a_retry_starts_from_the_beginning(
    whole: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(**PLAIN)
    desk.attempt(6, terminate)
    for name in desk.checkpoints:
        desk.bucket.objects[name] = b"{}"
    assert desk.attempt() == 0
    assert "no checkpoint can be used: training starts from the beginning" in caplog.text
    assert_same(desk, whole(**PLAIN))


def cancelled(**parts: Any) -> Desk:
    """A run that was cancelled after step 5."""
    desk = Desk(run_id="old", every_s=1000, **parts)

    def ask(attempt: Attempt) -> None:
        desk.document.change("", protocol.request_cancel)
        terminate(attempt)

    desk.attempt(5, ask)
    assert (desk.run.state, desk.run.checkpoint and desk.run.checkpoint.step) == (RunState.CANCELLED, 5)
    return desk


def taking_up(old: Desk, **parts: Any) -> Desk:
    desk = Desk(run_id="new", bucket=old.bucket, every_s=1000, **parts)
    source = desk.run.source.model_copy(update={"resumes": old.run.run_id})
    desk.document.run = desk.run.model_copy(update={"source": source, "checkpoint": old.run.checkpoint})
    return desk


def test_a_cancelled_run_is_taken_up_by_another_and_keeps_its_checkpoint(whole: Callable[..., Desk]) -> None:
    old = cancelled(**PLAIN)
    desk = taking_up(old, **PLAIN)
    assert desk.attempt() == 0
    assert_same(desk, whole(**PLAIN))
    assert [step_of(name) for name in old.checkpoints] == [5]
    assert desk.checkpoints == []  # those of a run that succeeded are deleted


def test_a_run_whose_checkpoint_was_promised_and_is_gone_fails() -> None:
    old = cancelled(**PLAIN)
    for name in old.checkpoints:
        del old.bucket.objects[name]
    desk = taking_up(old, **PLAIN)
    assert desk.attempt() == 0
    assert (desk.run.state, desk.run.error and desk.run.error.code) == (RunState.FAILED, "checkpoint_gone")


@pytest.mark.parametrize(
    "other", [PLAIN | {"lora": {"r": 4, "dropout": 0.1}}, PLAIN | {"method": "lora"}, changed(seed=1)]
)
def test_a_checkpoint_of_another_training_is_not_gone_on_from(other: dict[str, Any]) -> None:
    desk = taking_up(cancelled(**PLAIN), **other)
    desk.attempt()
    assert desk.run.error is not None
    assert desk.run.error.code == "checkpoint_gone"


def test_uploads_that_fail_do_not_end_training(whole: Callable[..., Desk], caplog: pytest.LogCaptureFixture) -> None:
    def fail(name: str) -> None:
        if ".checkpoints" in name:
            raise ConnectionError

    desk = Desk(bucket=Bucket(before_upload=fail), **PLAIN)
    assert desk.attempt() == 0
    assert "the checkpoint of step 1 was not saved: ConnectionError at test_resume.py" in caplog.text
    assert_same(desk, whole(**PLAIN))


def test_an_attempt_that_is_told_while_it_measures_saves_the_step_before(whole: Callable[..., Desk]) -> None:
    desk = Desk(every_s=1000, **EARLY)
    desk.attempt(2, lambda attempt: setattr(attempt, "alive", interrupting(attempt)))
    assert (desk.run.state, desk.run.checkpoint and desk.run.checkpoint.step) == (RunState.QUEUED, 2)
    assert desk.attempt() == 0
    assert_same(desk, whole(**EARLY))


def test_the_time_for_an_attempt_is_used_up(whole: Callable[..., Desk]) -> None:
    desk = Desk(every_s=1000, **PLAIN)
    desk.attempt(3, lambda attempt: setattr(attempt, "_leave_at", 0.0))
    assert desk.run.state_reason == "attempt 1 saved step 3 (its time was up); goes on from there"
    assert desk.attempt() == 0
    assert_same(desk, whole(**PLAIN))


def test_the_loss_curve_has_every_step() -> None:
    """What a killed attempt had not told, the next one tells; a run that takes up another has its curve, too."""
    desk = Desk(run_id="old", **PLAIN)
    desk.attempt(4, after(3, kill))
    desk.attempt(6, terminate)
    new = taking_up(desk, **PLAIN)
    new.attempt()
    assert sorted({point["step"] for point in desk.document.points}) == [1, 2, 3, 4, 5, 6]
    assert [point["step"] for point in new.document.points] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def interrupting(attempt: Attempt) -> Callable[..., None]:
    alive = attempt.alive

    def alive_and_told(save: Callable[[], None]) -> None:
        terminate(attempt)
        alive(save)

    return alive_and_told


def after(step: int, do: Callable[[Attempt], None]) -> Callable[[Attempt], None]:
    """Once the checkpoint of a step is in the bucket."""

    def wait_and_do(attempt: Attempt) -> None:
        prefix = layout.checkpoint_prefix("t", "bot", attempt.run.run_id)
        objects = attempt.services.objects
        eventually(lambda: any(step_of(item.name) == step for item in objects.list(ARTIFACTS, prefix)))
        do(attempt)

    return wait_and_do


def assert_same(desk: Desk, whole: Desk) -> None:
    """The weights to the last bit, and each point of the curve once."""
    assert desk.delivered() == whole.delivered()
    assert desk.curve() == whole.curve()
    assert desk.run.metrics == whole.run.metrics
    assert desk.checkpoints == []


def test_after_an_out_of_memory_error_the_run_goes_on_with_less_on_the_record(
    whole: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every attempt that follows, too: it need not find out again."""
    real, failures = micro_batches.completion_loss, []

    def loss(model: Any, packed: Packed, device: torch.device) -> Tensor:
        if len(packed.input_ids) > 50 and step_now() == 3:
            failures.append(len(packed.input_ids))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, packed, device)

    def step_now() -> int:
        return desk.run.progress.step

    monkeypatch.setattr(micro_batches, "completion_loss", loss)
    monkeypatch.setattr(attempt, "REPORT_EVERY_S", 0.0)
    desk = Desk(**PLAIN)
    assert desk.attempt(at=6, do=terminate) == 0
    assert desk.run.state is RunState.QUEUED
    assert failures
    assert desk.attempt() == 0
    assert desk.run.progress.micro_batch_tokens == 48
    (noted,) = [point for point in desk.curve() if "micro_batch_tokens" in point]
    assert noted == {"step": 3, "micro_batch_tokens": 48, "gradient_checkpointing": False}
    losses, expected = ([p["loss"] for p in of.curve() if "loss" in p] for of in (desk, whole(**PLAIN)))
    assert losses == pytest.approx(expected, rel=0.02)  # other rows, so dropout draws otherwise


def test_where_a_run_cannot_do_with_less_it_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(evaluate, "loss_and_hits", loss)
    desk = Desk(**PLAIN)
    assert desk.attempt() == 0
    assert desk.run.state is RunState.FAILED
    assert desk.run.error is not None
    assert desk.run.error.code == "out_of_gpu_memory"


def test_a_constant_rate_is_reached_by_the_warm_up_that_was_asked_for(whole: Callable[..., Desk]) -> None:
    run = whole(**changed(max_steps=4, lr_scheduler="constant", warmup_ratio=0.5))
    rates = [point["learning_rate"] for point in run.curve() if "loss" in point]
    assert rates == pytest.approx([0, 0.005, 0.01, 0.01])
