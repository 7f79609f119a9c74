"""The names that other tools give to the manifest's settings. Tables; they are applied in schemas/canonical.py.

A name is accepted where the canonical name may stand, and at the top level; the settings of `training` and `lora` may
stand at the top level too. Whatever is accepted does something: settings of other tools that AdaptML decides itself
are refused with that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from schemas.manifest import Compute, Dataset, EarlyStopping, Evaluation, Lora, Manifest, Settings, Training

UNSET: Final = object()
"""What a reader returns where the other tool's value means: not set."""
Reader = Callable[[Any], Any]
"""Another tool's value in ours. Raises ValueError with what was expected."""


def _as_it_is(value: Any) -> Any:
    return value


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("expected true or false")


def _if_true(then: Any, otherwise: Any) -> Reader:
    return lambda value: then if _truth(value) else otherwise


def _on_inputs(value: Any) -> Any:
    return "completions" if value == "auto" or not _truth(value) else "all"


def _times_ours(value: Any) -> Any:
    """OpenAI scales its own default learning rate; this scales ours."""
    try:
        return Training.model_fields["learning_rate"].default * float(str(value))
    except ValueError as error:
        raise ValueError("expected a number") from error


def _quantized(value: Any) -> Any:
    if value in (4, "4"):
        return "qlora"
    raise ValueError("expected 4: qlora holds the base model in 4 bits")


def _scheduler(value: Any) -> Any:
    return "constant" if value == "constant_with_warmup" else value


def _all_modules(value: Any) -> Any:
    return "all-linear" if value == "all" else value


@dataclass(frozen=True)
class Alias:
    """Names that mean the setting `target`."""

    target: str
    names: str
    """Separated by spaces."""
    tools: str
    """Who calls it that."""
    read: Reader = _as_it_is
    note: str = ""
    """How its values are read."""

    @property
    def path(self) -> tuple[str, ...]:
        """The target's names."""
        return tuple(self.target.split("."))

    @property
    def setting(self) -> str:
        """The setting that it sets, or is a part of."""
        return self.target.partition("/")[0]


# Not settings of their own: parts from which batch_size and method are made.
MICRO = "training.batch_size/micro"
ACCUMULATION = "training.batch_size/accumulation"
FAMILY = "method/family"

ALIASES: tuple[Alias, ...] = (
    Alias("name", "suffix", "OpenAI, Together"),
    Alias("name", "run_name", "transformers, LLaMA-Factory"),
    Alias("base_model", "model", "OpenAI, Together"),
    Alias("base_model", "model_name model_name_or_path", "TRL, LLaMA-Factory"),
    Alias("base_model", "base_model_name base_model_name_or_path", "PEFT"),
    Alias("dataset.train", "train training_file train_file", "OpenAI, Together, transformers"),
    Alias("dataset.validation", "validation validation_file eval_file", "OpenAI, Together, transformers"),
    Alias(
        "dataset.validation_split", "validation_split val_set_size validation_size val_size", "Axolotl, LLaMA-Factory"
    ),
    Alias("method", "adapter", "Axolotl"),
    Alias("method", "load_in_4bit", "Axolotl, transformers", _if_true("qlora", "lora"), "true: `qlora`, false: `lora`"),
    Alias("method", "quantization_bit", "LLaMA-Factory", _quantized, "4: `qlora`"),
    Alias(FAMILY, "finetuning_type", "LLaMA-Factory", note="`lora`; with 4-bit quantization that is `qlora`"),
    Alias("lora.r", "lora_r rank lora_rank", "Axolotl, Together, LLaMA-Factory"),
    Alias("lora.alpha", "lora_alpha", "PEFT, Axolotl, Together, LLaMA-Factory"),
    Alias("lora.dropout", "lora_dropout", "PEFT, Axolotl, Together, LLaMA-Factory"),
    Alias("lora.target_modules", "lora_target_modules", "Axolotl"),
    Alias("lora.target_modules", "trainable_modules lora_trainable_modules", "Together"),
    Alias("lora.target_modules", "lora_target", "LLaMA-Factory", _all_modules, "`all`: `all-linear`"),
    Alias("lora.target_modules", "lora_target_linear", "Axolotl", _if_true("all-linear", UNSET), "true: `all-linear`"),
    Alias("training.epochs", "num_epochs n_epochs num_train_epochs", "Axolotl, OpenAI, Together, transformers"),
    Alias("training.learning_rate", "lr", "common"),
    Alias("training.learning_rate", "learning_rate_multiplier", "OpenAI", _times_ours, "times our default"),
    Alias(
        "training.lr_scheduler", "lr_scheduler_type", "transformers", _scheduler, "`constant_with_warmup`: `constant`"
    ),
    Alias("training.max_grad_norm", "gradient_clipping", "DeepSpeed"),
    Alias(MICRO, "micro_batch_size", "Axolotl", note="times `gradient_accumulation_steps`"),
    Alias(MICRO, "per_device_train_batch_size", "transformers", note="times `gradient_accumulation_steps`"),
    Alias(
        ACCUMULATION, "gradient_accumulation_steps", "transformers, Axolotl", note="times the micro-batch; default 1"
    ),
    Alias("training.max_seq_length", "max_length", "TRL"),
    Alias("training.max_seq_length", "sequence_len", "Axolotl"),
    Alias("training.max_seq_length", "cutoff_len", "LLaMA-Factory"),
    Alias("training.max_seq_length", "max_seq_len model_max_length", "transformers"),
    Alias("training.packing", "sample_packing", "Axolotl"),
    Alias("training.seed", "random_seed random_state", "Together, PEFT's users"),
    Alias(
        "training.train_on",
        "train_on_inputs",
        "Axolotl, Together",
        _on_inputs,
        "true: `all`, false or auto: `completions`",
    ),
    Alias("training.train_on", "train_on_prompt", "LLaMA-Factory", _on_inputs, "true: `all`, false: `completions`"),
    Alias(
        "training.train_on",
        "completion_only_loss assistant_only_loss",
        "TRL",
        _if_true("completions", "all"),
        "true: `completions`, false: `all`",
    ),
    Alias("training.early_stopping.patience", "early_stopping_patience", "Axolotl, transformers"),
    Alias("labels", "metadata", "OpenAI"),
)

WRAPPERS: Mapping[str, str] = {
    "hyperparameters": "training",
    "method": "",
    "method.supervised": "",
    "method.supervised.hyperparameters": "training",
    "training_method": "training",
    "training_type": "lora",
}
"""Mappings of the hosted services around settings → the section whose settings they hold. `auto` there is: not set."""

KINDS: Mapping[str, frozenset[str]] = {
    "method.type": frozenset({"supervised"}),
    "method.dpo": frozenset(),
    "method.reinforcement": frozenset(),
    "training_method.method": frozenset({"sft"}),
    "training_type.type": frozenset({"lora"}),
    "stage": frozenset({"sft"}),
    "rl": frozenset(),
}
"""What says how to learn elsewhere → the values that say what AdaptML does anyway. Others are refused."""

DECIDED: Mapping[str, str] = {
    "where results go": "output_dir logging_dir save_strategy save_steps save_total_limit save_safetensors "
    "save_only_model saves_per_epoch n_checkpoints checkpointing_steps overwrite_output_dir resume_from_checkpoint "
    "auto_resume_from_checkpoints dataset_prepared_path cache_dir push_to_hub hub_*",
    "what is measured and logged": "logging_steps logging_strategy logging_first_step eval_steps eval_strategy "
    "evaluation_strategy evals_per_epoch n_evals report_to log_level plot_loss wandb wandb_* mlflow_* comet_* "
    "neptune_* do_train do_eval load_best_model_at_end metric_for_best_model greater_is_better integrations",
    "precision and memory": "bf16 fp16 tf32 torch_dtype dtype gradient_checkpointing gradient_checkpointing_kwargs "
    "flash_attention flash_attn sdp_attention xformers_attention attn_implementation load_in_8bit bnb_* "
    "quantization_method deepspeed fsdp fsdp_config device_map low_cpu_mem_usage use_cache local_rank group_by_length "
    "pad_to_sequence_len per_device_eval_batch_size eval_batch_size dataloader_* preprocessing_num_workers "
    "dataset_num_proc ddp_* double_quantization use_bnb_nested_quant padding_free overwrite_cache",
    "the optimizer": "optim optimizer optim_args adam_beta1 adam_beta2 adam_epsilon",
    "the adapter's form": "peft_type task_type bias lora_bias inference_mode fan_in_fan_out lora_fan_in_fan_out "
    "use_rslora use_dora init_lora_weights modules_to_save lora_modules_to_save",
    "tokenizer and template": "model_type tokenizer tokenizer_type trust_remote_code template chat_template "
    "special_tokens dataset_text_field is_llama_derived_model strict",
}
"""What AdaptML decides itself → how other tools call settings of it; `*` ends a prefix."""

SECTIONS: Mapping[str, type[Settings]] = {
    "": Manifest,
    "dataset": Dataset,
    "lora": Lora,
    "training": Training,
    "training.early_stopping": EarlyStopping,
    "evaluation": Evaluation,
    "compute": Compute,
}
_FLAT = ("training", "lora")
"""Sections whose settings may stand at the top level."""


@cache
def names_in(section: str) -> Mapping[str, Alias]:
    """Every name that may stand in a section (the top level is "") → what it means."""
    own = {name: Alias(join(section, name), name, "") for name in fields_of(section)}
    if section == "compute":
        own["timeout_s"] = Alias("compute.timeout", "timeout_s", "")  # as a run document has it
    meant = {name: a for a in ALIASES for name in a.names.split() if not section or a.target.startswith(section + ".")}
    flat = {name: Alias(f"{part}.{name}", name, "") for part in _FLAT if not section for name in fields_of(part)}
    return flat | meant | own


def fields_of(section: str) -> list[str]:
    """The canonical names of a section."""
    return [field.alias or name for name, field in SECTIONS[section].model_fields.items()]


def join(section: str, name: str) -> str:
    """section.name; the name alone at the top level."""
    return f"{section}.{name}" if section else name
