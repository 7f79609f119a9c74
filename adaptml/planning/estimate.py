"""What a run will need: GPU memory, time, cost; each as an expected value between two bounds.

The formulas are simple on purpose and their constants stand here, each with the reason for its bounds.
docs/planning.md says what they leave out and what has been measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from msgspec import yaml

from adaptml.planning import advice, exports
from adaptml.planning.attempts import attempts_needed, leave_before_s, timeout_for
from adaptml.planning.memory import gpu_memory_span
from adaptml.planning.span import Span
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem, problem
from schemas.manifest import Manifest
from schemas.run import Estimate

PRICES: dict[str, Any] = yaml.decode((resources.files("adaptml.planning") / "prices.yaml").read_bytes())


class Basis(NamedTuple):
    """How the tokens are known, and the true number for each token stated: at least `low`, at most `high`."""

    text: str
    low: float
    high: float


MODEL_FLOPS_UTILISATION = Span(0.10, 0.25, 0.40)
"""Share of the accelerator's dense bf16 peak. High: a 70 W T4 keeps up 24 of its 65 TFLOPS in bare matrix products
before its power limit stops it (NVIDIA's developer forum, topic 264462), and an L4 has 72 W. Low: rows that are not
full, small layers, and weights unpacked from NF4 in each pass; 500 to 628 tokens/s reported for a model of 1.5 B on an
RTX 4060 (arXiv 2509.12229) are 15 to 19 % of that card's roughly 30 TFLOPS. Expected: the middle. Not measured here."""
FLOP_PER_PARAMETER_AND_TOKEN = 6.0
"""2 forward, 2 to compute the checkpointed blocks again, 2 backward to their inputs; the frozen weights get no
gradient. By another way the same number as for training without LoRA (Kaplan et al. 2020, section 2.1)."""
STARTUP_S = Span(20.0, 60.0, 180.0)
"""From the start of the instance to the first step, and the upload. Low: the GPU is there after about 5 s (Cloud Run's
documentation), imports and first kernels take the rest, image and weights are cached nearby. High: both come over the
network, several GB at some tens of MB a second."""
CHARACTERS_PER_TOKEN = Span(3.0, 4.0, 5.0)
"""English prose has 4 to 5, other languages in Latin script, code and numbers 3 to 4 (the ratios that Cohere publishes
with its Wikipedia embeddings run from 4.4 to 4.8 there). Chinese and Japanese, with 1 to 2, lie outside."""

COUNTED = Basis("tokens counted", 1.0, 1.0)
FROM_CHARACTERS = Basis(
    "tokens estimated from characters",
    CHARACTERS_PER_TOKEN.expected / CHARACTERS_PER_TOKEN.high,
    CHARACTERS_PER_TOKEN.expected / CHARACTERS_PER_TOKEN.low,
)


def tokens_of_characters(characters: int) -> int:
    """About how many tokens texts have."""
    return round(characters / CHARACTERS_PER_TOKEN.expected)


def sampled(rows: int, of: int) -> Basis:
    """Tokens counted in `rows` rows drawn at random out of `of`, and scaled up.

    Two standard errors of a mean without replacement, 2 s/√n × √(1 - n/N) (Cochran 1977, Sampling Techniques,
    chapter 2), for lengths that scatter as widely as their mean (s = 1).
    """
    error = 2.0 / math.sqrt(max(rows, 1)) * math.sqrt(max(0.0, 1.0 - rows / max(of, 1)))
    return Basis(f"tokens sampled: {rows} of {of} rows", max(0.0, 1.0 - error), 1.0 + error)


def training_seconds(manifest: Manifest, tokens: Span) -> Span:
    """Time on the accelerator for the steps with so many tokens: FLOP over the peak that is reached."""
    flop = FLOP_PER_PARAMETER_AND_TOKEN * CATALOGUE[manifest.base_model].architecture.parameters()
    peak = PRICES["accelerators"][manifest.compute.accelerator]["bf16_tflops"] * 1e12
    cases = zip(tokens, reversed(MODEL_FLOPS_UTILISATION), strict=True)
    return Span(*(flop * count / (peak * utilisation) for count, utilisation in cases))


def epochs(manifest: Manifest, examples: int) -> float:
    """Passes over the data, from `epochs` or `max_steps`."""
    if manifest.training.epochs is not None:
        return manifest.training.epochs
    return (manifest.training.max_steps or 0) * batch_size(manifest, examples) / max(examples, 1)


def steps(manifest: Manifest, examples: int) -> int:
    """Optimizer steps of the run, as the trainer takes them."""
    per_epoch = math.ceil(examples / batch_size(manifest, examples))
    return manifest.training.max_steps or max(1, round((manifest.training.epochs or 0) * per_epoch))


def batch_size(manifest: Manifest, examples: int) -> int:
    """Examples an optimizer step. `auto`: about 20 steps an epoch, from 4 to 32 examples a step."""
    asked = manifest.training.batch_size
    return asked if isinstance(asked, int) else max(4, min(32, examples // 20))


def cost_usd(accelerator: str, seconds: float) -> float:
    """List price of a Cloud Run Job with this accelerator for that long."""
    price = PRICES["accelerators"][accelerator]
    per_second = (
        price["usd_per_second"]
        + price["vcpu"] * PRICES["vcpu_usd_per_second"]
        + price["memory_gib"] * PRICES["memory_gib_usd_per_second"]
    )
    return float(per_second * seconds)


def estimate(manifest: Manifest, tokens_per_epoch: int, examples: int, *, basis: Basis = FROM_CHARACTERS) -> Estimate:
    """Memory, time and cost of the run, without what it waits in queues and without attempts that die.

    A run that takes longer than `compute.timeout` is trained in several executions, each with a start-up of its own.
    Exports are made in the last one, after the last step.
    """
    accelerator = manifest.compute.accelerator
    tokens = tokens_per_epoch * epochs(manifest, examples)
    memory = gpu_memory_span(manifest)
    training = training_seconds(manifest, Span(tokens * basis.low, tokens, tokens * basis.high))
    number = steps(manifest, examples)
    at_the_end = exports.total_seconds(manifest)
    executions = attempts_needed(number, training.expected / number, _usable_s(manifest), at_the_end.expected)
    cases = zip(STARTUP_S, exports.fetch_seconds(manifest), training, at_the_end, strict=True)
    seconds = Span(*(max(1, executions) * (startup + fetch) + s + end for startup, fetch, s, end in cases))
    gpu_memory_gb = round(memory.expected / 1e9, 2)
    return Estimate(
        gpu_memory_gb=gpu_memory_gb,
        gpu_memory_gb_range=(round(memory.low / 1e9, 2), round(memory.high / 1e9, 2)),
        duration_s=round(seconds.expected),
        duration_s_range=(round(seconds.low), round(seconds.high)),
        cost_usd=round(cost_usd(accelerator, seconds.expected), 4),
        cost_usd_range=(
            round(cost_usd(accelerator, seconds.low), 4),
            round(cost_usd(accelerator, seconds.high), 4),
        ),
        accelerator=accelerator,
        steps=number,
        executions=executions,
        tokens=round(tokens),
        tokens_per_epoch=tokens_per_epoch,
        examples=examples,
        fits=gpu_memory_gb <= PRICES["accelerators"][accelerator]["memory_gb"],
        basis=basis.text,
        export_s={form: round(span.expected) for form, span in exports.seconds(manifest).items()},
        scratch_gb=round(exports.scratch_bytes(manifest).expected / 1e9, 2),
    )


def objections(manifest: Manifest, planned: Estimate) -> list[Problem]:
    """Why the run cannot be started as planned, each with the settings that would change that."""

    def again(changed: Manifest) -> Estimate:
        return estimate(changed, planned.tokens_per_epoch, planned.examples)

    compute = manifest.compute
    found = []
    if not planned.fits:
        found.append(
            problem(
                "does_not_fit",
                needed_gb=planned.gpu_memory_gb,
                available_gb=PRICES["accelerators"][compute.accelerator]["memory_gb"],
                accelerator=compute.accelerator,
                suggestion=advice.to_fit(manifest, lambda changed: again(changed).fits),
            )
        )
    if planned.cost_usd > compute.max_cost_usd:
        enough_usd = math.ceil(round(planned.cost_usd * 10_000) / 100) / 100
        suggestion = advice.to_afford(
            manifest, enough_usd, lambda changed: again(changed).cost_usd <= changed.compute.max_cost_usd
        )
        found.append(
            problem("too_expensive", cost=f"{enough_usd:.2f}", limit=compute.max_cost_usd, suggestion=suggestion)
        )
    if not _has_time_for(manifest, _step_s(manifest, planned)):
        enough_s = timeout_for(_start_s(manifest) + _step_s(manifest, planned))
        suggestion = advice.to_take_a_step(
            manifest, enough_s, lambda changed: _has_time_for(changed, _step_s(changed, again(changed)))
        )
        found.append(problem("too_long", duration=round(enough_s), timeout=compute.timeout_s, suggestion=suggestion))
    return found + list(_of_exports(manifest, planned))


def _of_exports(manifest: Manifest, planned: Estimate) -> Iterator[Problem]:
    """Why what is asked for besides the adapter cannot be made."""
    forms = " and ".join(exports.forms(manifest))
    if not _scratch_fits(manifest):
        yield problem(
            "exports_do_not_fit",
            forms=forms,
            needed_gb=planned.scratch_gb,
            available_gb=round(_instance_bytes(manifest) / 1e9, 2),
            suggestion=advice.to_export(manifest, _scratch_fits),
        )
    if not _has_time_to_export(manifest):
        enough_s = timeout_for(_start_s(manifest) + exports.total_seconds(manifest).expected)
        suggestion = advice.to_export(manifest, _has_time_to_export, enough_s)
        yield problem(
            "exports_too_long",
            forms=forms,
            duration=round(enough_s),
            timeout=manifest.compute.timeout_s,
            suggestion=suggestion,
        )


def _scratch_fits(manifest: Manifest) -> bool:
    return exports.scratch_bytes(manifest).expected <= _instance_bytes(manifest)


def _instance_bytes(manifest: Manifest) -> float:
    """Memory of the job's instance, of files and processes together."""
    return float(PRICES["accelerators"][manifest.compute.accelerator]["memory_gib"] * (1 << 30))


def _has_time_to_export(manifest: Manifest) -> bool:
    return not exports.forms(manifest) or _has_time_for(manifest, exports.total_seconds(manifest).expected)


def _has_time_for(manifest: Manifest, seconds: float) -> bool:
    """Whether an execution has so much time after its start-up."""
    return 0 < _usable_s(manifest) >= seconds


def cautions(manifest: Manifest, planned: Estimate) -> list[Problem]:
    """What is good to know of a run that can be started as planned."""
    if planned.executions < 2:
        return []
    work_s = _step_s(manifest, planned) * planned.steps + exports.total_seconds(manifest).expected
    at_once_s = timeout_for(_start_s(manifest) + work_s)
    suggestion = advice.to_finish_at_once(
        manifest,
        at_once_s,
        lambda changed: estimate(changed, planned.tokens_per_epoch, planned.examples).executions == 1,
    )
    return [
        problem(
            "takes_several_attempts",
            duration=round(planned.duration_s),
            count=planned.executions,
            timeout=manifest.compute.timeout_s,
            suggestion=suggestion,
        )
    ]


def _usable_s(manifest: Manifest) -> float:
    """What an execution has for steps, and at the end for exports."""
    timeout_s = manifest.compute.timeout_s
    return timeout_s - leave_before_s(timeout_s) - _start_s(manifest)


def _start_s(manifest: Manifest) -> float:
    """Until an execution's first step."""
    return STARTUP_S.expected + exports.fetch_seconds(manifest).expected


def _step_s(manifest: Manifest, planned: Estimate) -> float:
    tokens = planned.tokens_per_epoch * epochs(manifest, planned.examples)
    return training_seconds(manifest, Span(tokens, tokens, tokens)).expected / planned.steps
