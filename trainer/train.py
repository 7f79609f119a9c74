"""One training run, top to bottom: settings, model, data, loop, evaluation, artifacts."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler

from adaptml import tracing
from adaptml.figures import shown
from adaptml.planning.estimate import batch_size
from schemas.catalogue import CATALOGUE
from schemas.run import Progress
from schemas.run_states import RunState
from trainer import artifacts, data, evaluate, export
from trainer.attempt import Attempt
from trainer.checkpoint import Checkpoints, fingerprint
from trainer.gpu import Gpu
from trainer.loss import refuse_divergence
from trainer.meanwhile import LOOK_EVERY_S
from trainer.metrics import MetricsLog
from trainer.micro_batches import MicroBatches, initial, out_of_memory
from trainer.model import chat_tokenizer, load_base, lora_parameters, round_adapter, with_lora
from trainer.snapshot import Position, Snapshot, keep_best, put_best, take

log = logging.getLogger(__name__)


def train(attempt: Attempt) -> None:
    """Trains the adapter that the run asks for and commits it.

    Goes on from the last checkpoint, where there is one. Raises Refused where the manifest and the data cannot give
    an adapter, Fenced and Stopped from the attempt.
    """
    try:
        with tracing.phases() as phase:
            _train(attempt, phase)
    except torch.OutOfMemoryError as error:  # where there is nothing to halve; another attempt would come as far
        raise out_of_memory(attempt.manifest) from error


def _train(attempt: Attempt, phase: Callable[[str], None]) -> None:
    manifest, settings = attempt.manifest, attempt.manifest.training
    row = CATALOGUE[manifest.base_model]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.monotonic()

    phase("prepare")
    # Model and data, side by side: the one takes disk and GPU, the other the network and the cores
    folder = Path(tempfile.mkdtemp(prefix="adaptml-"))
    chat = chat_tokenizer(row)
    with ThreadPoolExecutor(1, "base-model") as beside:
        load = tracing.beside("load model", load_base)
        loading = beside.submit(load, row, quantise=manifest.method == "qlora", device=device)
        with tracing.span("tokenise"):
            examples, held_out = data.load(attempt, chat, folder)
        log.info("data is tokenised")
        while not wait([loading], LOOK_EVERY_S).done:
            attempt.alive()
        model, tokenizer = loading.result()
    log.info("base model is loaded")
    export.require(manifest, row, tokenizer)
    torch.manual_seed(settings.seed)
    model = with_lora(model, manifest, row)
    trained = lora_parameters(model)
    attempt.alive()
    per_step = batch_size(manifest, len(examples))
    steps_per_epoch = math.ceil(len(examples) / per_step)
    total_steps = settings.max_steps or max(1, round((settings.epochs or 0) * steps_per_epoch))
    epoch_tokens = sum(len(example) for example in examples)

    # What it goes on from, or starts from
    optimizer = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=device.type == "cuda"
    )
    # `constant` alone would skip the warm-up that the manifest speaks of.
    schedule = "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler
    scheduler = get_scheduler(schedule, optimizer, round(settings.warmup_ratio * total_steps), total_steps)
    checkpoints = Checkpoints(attempt, fingerprint(manifest, row, examples, held_out))
    done = checkpoints.go_on(model, optimizer, scheduler)
    if done is None:
        phase("evaluate before")
        done = Position(before=evaluate.measure(model, held_out, device, alive=attempt.alive))
        if settings.early_stopping is not None:
            done.patience = evaluate.Patience(settings.early_stopping.patience)
    earlier_s, tokens_before, first = done.seconds, done.seen_tokens, done.step
    log.info(
        "%d examples, %d held out, %d of %d steps done, %d tokens an epoch",
        len(examples),
        len(held_out),
        done.step,
        total_steps,
        epoch_tokens,
    )

    # Loop
    def state() -> Snapshot:
        done.seconds = earlier_s + time.monotonic() - started
        return take(model, optimizer, scheduler, done)

    def save() -> None:
        checkpoints.save(state())

    def held_out_loss(measured: Any) -> float | None:
        found = evaluate.measure(measured, held_out, device, alive=attempt.alive)
        return None if found is None else found.loss

    def measure_to_stop(patience: evaluate.Patience) -> None:
        """For early stopping: keeps the adapter if it is the best so far, and says whether training is over."""
        measured = evaluate.measure(model, held_out, device, alive=lambda: attempt.alive(save))
        metrics_log.evaluation(done.step, measured)
        if measured is not None:
            if patience.takes(measured.loss):
                keep_best(model, done)
            done.is_over = patience.is_used_up

    phase("train")
    progress = Progress(step=done.step, total_steps=total_steps, epoch=done.step / steps_per_epoch, loss=done.loss)
    summary = attempt.run.dataset.model_copy(update={"tokens": epoch_tokens})
    where = f"training on {device.type}" + (f", from step {done.step}" if done.step else "")
    known = evaluate.metrics(done.before)
    attempt.enter(RunState.TRAINING, where, dataset=summary, progress=progress, metrics=known)
    metrics_log = MetricsLog(folder, done.points)
    if done.points:
        attempt.catch_up(done.points)
    else:
        metrics_log.evaluation(0, done.before)
    gpu = Gpu(device)
    micro_batch = done.micro_batch or initial(manifest, examples, per_step, device)
    micro_batches = MicroBatches(model, manifest, micro_batch, device)
    log.info("micro-batches of %d tokens, gradient checkpointing %s", *micro_batch)
    loop_started = time.monotonic()
    steps = range(done.step, done.step if done.is_over else total_steps)
    for batch in data.batches(examples, per_step, steps, settings.seed):
        if done.patience is not None and done.step and done.step % steps_per_epoch == 0:
            measure_to_stop(done.patience)
            if done.is_over:
                log.info("stopping after step %d: the held-out loss no longer falls", done.step)
                break

        model.train()
        step_loss = micro_batches.backward(batch)
        if micro_batches.current != micro_batch:
            micro_batch = done.micro_batch = micro_batches.current
            metrics_log.out_of_memory(done.step, micro_batch)
        refuse_divergence(step_loss, done.step + 1)
        grad_norm = torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm).item()
        learning_rate = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)

        done.step, done.loss = done.step + 1, step_loss
        if done.step == first + 1:
            log.info("first step is done")
        done.seen_tokens += sum(len(example) for example in batch)
        done.trained_tokens += sum(example.trained_tokens for example in batch)
        elapsed = time.monotonic() - loop_started
        point = {
            "step": done.step, "epoch": round(done.step / steps_per_epoch, 4), "loss": step_loss,
            "learning_rate": learning_rate, "grad_norm": grad_norm,
            "tokens_per_s": (done.seen_tokens - tokens_before) / elapsed,
            "tokens": done.seen_tokens, "trained_tokens": done.trained_tokens, **gpu.read(),
        }  # fmt: skip
        metrics_log.step(point)
        progress = Progress(
            step=done.step,
            total_steps=total_steps,
            epoch=point["epoch"],
            loss=step_loss,
            learning_rate=learning_rate,
            tokens_per_s=point["tokens_per_s"],
            gpu_memory_gb=gpu.memory_gb,
            micro_batch_tokens=micro_batch.tokens,
            gradient_checkpointing=micro_batch.checkpointing,
            eta_s=elapsed / (done.step - first) * (total_steps - done.step),
        )
        attempt.report(progress, point)
        if attempt.must_stop:
            attempt.leave(save)
        checkpoints.save_if_due(state)
    save()
    log.info("training is done")

    # Evaluation, of just what will be saved: the last adapter, or with early stopping the best, rounded to bf16
    phase("evaluate")
    attempt.enter(RunState.EVALUATING, "measuring on held-out data", progress=progress)
    if done.patience is not None and not done.is_over:
        measure_to_stop(done.patience)
    saved_step = put_best(model, done)
    round_adapter(model)
    after = evaluate.measure(model, held_out, device, alive=attempt.alive)
    if after is not None:
        refuse_divergence(after.loss, saved_step)
    metrics_log.evaluation(saved_step, after)
    end_of_turn = row.family.end_of_turn if row.family else ""
    samples = evaluate.samples(model, tokenizer, chat, held_out, device, attempt.alive, end_of_turn)
    metrics_log.close()
    log.info("evaluation is done")

    # Exports
    phase("export")
    artifacts.write(folder, model, tokenizer)
    export.release(model)
    probe = [token for example in held_out or examples for token in example.ids]
    delivered = export.deliver(manifest, row, folder, tokenizer, probe, held_out_loss, device, attempt.alive)

    # Artifacts
    phase("deliver")
    metrics = evaluate.metrics(done.before, after, train_loss=done.loss, saved_step=saved_step)
    seconds = earlier_s + time.monotonic() - started
    attempt.fetch_report(folder)
    artifacts.describe(folder, attempt.run, row, metrics, samples, delivered, seconds=seconds)
    log.info("files are written")
    attempt.commit(folder, artifacts.checksums(folder), metrics)
    losses = (shown(loss, "{:.4f}") for loss in (metrics.eval_loss_before, metrics.eval_loss_after))
    log.info("held-out loss %s before, %s after", *losses)
