"""One base model in memory, and answers of it without and with an adapter."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel

from adaptml.objects import ObjectGone, ObjectStore
from adaptml.publishing import CHECKSUMS
from schemas import layout
from schemas.catalogue import CATALOGUE, BaseModelRow
from schemas.errors import Refused, problem
from schemas.manifest import Dataset, Manifest
from schemas.playground import Answers, Question
from trainer import models_bucket, prepared
from trainer.evaluate import greedy, stop_tokens
from trainer.model import chat_tokenizer, load_base
from trainer.prepared import MODELS_DIR

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTERS_KEPT = 4
"""Beside the base model; the one that was asked longest ago goes first."""


class SideBySide:
    """Answers one question at a time. Another base model takes the place of the one that was there."""

    def __init__(
        self, objects: ObjectStore, artifacts_bucket: str, models_bucket_name: str | None, adapters: Path
    ) -> None:
        """`adapters` is a folder for those that were fetched."""
        self._folder = adapters
        self._objects = objects
        self._artifacts = artifacts_bucket
        self._models_bucket = models_bucket_name
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._loaded: tuple[str, str] | None = None
        self._model: Any = None
        self._tokenizer: Any = None
        self._adapters: dict[str, None] = {}

    def ask(self, question: Question) -> Answers:
        """Raises Refused where there is no such version, or its base model is not at hand."""
        folder = self._fetched(question)
        row = _base_of(folder)
        self._load(row, question, folder)
        began = time.monotonic()
        prompt = _rendered(row, question)
        stops = stop_tokens(self._model, self._tokenizer, _end_of_turn(row))
        texts = []
        for with_adapter in (False, True):
            with contextlib.nullcontext() if with_adapter else self._model.disable_adapter():
                texts += greedy(self._model, self._tokenizer, [prompt], stops, self._device, question.max_new_tokens)
        return Answers(base=texts[0], adapter=texts[1], seconds=round(time.monotonic() - began, 2))

    def _fetched(self, question: Question) -> Path:
        """The adapter's two files; a version never changes, so they are fetched once."""
        folder = self._folder / _label(question)
        if (folder / WEIGHTS).exists():
            return folder
        prefix = layout.version_prefix(question.tenant, question.name, question.version)
        try:
            sums = prepared.parse(self._objects.read(self._artifacts, f"{prefix}{CHECKSUMS}").decode())
            files = {file: self._objects.read(self._artifacts, f"{prefix}{file}") for file in (CONFIG, WEIGHTS)}
        except (ObjectGone, ValueError):
            files, sums = {}, {}
        if not files or any(sha256(content).hexdigest() != sums.get(file) for file, content in files.items()):
            adapter = f"{question.tenant}/{question.name}"
            raise Refused([problem("version_not_ready", version=f"v{question.version}", adapter=adapter)])
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():  # the weights last, and at once: who finds them finds both
            partial = folder / f"{file}.partial"
            partial.write_bytes(content)
            partial.rename(folder / file)
        return folder

    def _load(self, row: BaseModelRow, question: Question, folder: Path) -> None:
        if self._loaded != (row.id, question.method):
            self._model, self._adapters, self._loaded = None, {}, None  # its memory first
            self._bring(row, question.method)
            base, self._tokenizer = load_base(row, quantise=question.method == "qlora", device=self._device)
            self._model = PeftModel.from_pretrained(base, folder, adapter_name=_label(question))
            self._model.eval()
            self._loaded = (row.id, question.method)
        elif _label(question) not in self._adapters:
            self._model.load_adapter(folder, adapter_name=_label(question))
        self._model.set_adapter(_label(question))
        self._adapters.pop(_label(question), None)
        self._adapters[_label(question)] = None
        while len(self._adapters) > ADAPTERS_KEPT:
            oldest = next(iter(self._adapters))
            del self._adapters[oldest]
            self._model.delete_adapter(oldest)

    def _bring(self, row: BaseModelRow, method: Literal["qlora", "lora"]) -> None:
        """Sees to it that the base model lies where it is looked for, as before a training."""
        as_trained = Manifest(name="playground", base_model=row.id, dataset=Dataset(train=["-"]), method=method)
        there = models_bucket.has_what_it_needs(prepared.models_dir() / row.folder, as_trained)
        if there or self._models_bucket is None:
            return
        into = Path(tempfile.mkdtemp(prefix="adaptml-models-"))
        models_bucket.fetch(self._objects, self._models_bucket, row, as_trained, into, lambda: None)
        os.environ[MODELS_DIR] = str(into)


def _base_of(folder: Path) -> BaseModelRow:
    """The catalogue's model that the adapter was trained on; the name in the file is never looked up anywhere else."""
    name = json.loads((folder / CONFIG).read_text("utf-8")).get("base_model_name_or_path")
    if name not in CATALOGUE:
        raise Refused([problem("base_model_unavailable", model=name)])
    return CATALOGUE[name]


def _rendered(row: BaseModelRow, question: Question) -> str:
    """The prompt as the model was trained to read it: by its chat template, if it has one."""
    if row.chat is None:
        return "\n".join(filter(None, (question.system, question.prompt)))
    system = [{"role": "system", "content": question.system}] if question.system else []
    return chat_tokenizer(row).render([*system, {"role": "user", "content": question.prompt}], None, answer_next=True)


def _end_of_turn(row: BaseModelRow) -> str:
    return row.family.end_of_turn if row.family is not None else ""


def _label(question: Question) -> str:
    return f"{question.tenant}--{question.name}--v{question.version}"
