"""The catalogue of base models: data in YAML beside this file, one loader here.

A drop names a model by its id in the catalogue, never by an arbitrary repository: what is not in the catalogue
is not trained, and nothing is fetched from a hub while a run is under way.
"""

from __future__ import annotations

from importlib import resources
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML


class Architecture(BaseModel):
    """A decoder's figures, as its config.json names them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Name → (in, out) features of each linear layer of one decoder block."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, q),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (q, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    def linear_parameters(self) -> int:
        """Parameters of all linear layers of all blocks: what QLoRA quantises."""
        return self.layers * sum(i * o for i, o in self.linear_shapes().values())

    def embedding_parameters(self) -> int:
        """Parameters of the embedding and, where it is not tied, the output layer."""
        return self.vocab * self.hidden * (1 if self.tied_embeddings else 2)

    def norm_parameters(self) -> int:
        """Parameters of the norms: two a block and one at the end."""
        return self.hidden * (2 * self.layers + 1)

    def parameters(self) -> int:
        """All parameters of the base model."""
        return self.linear_parameters() + self.embedding_parameters() + self.norm_parameters()

    def lora_parameters(self, r: int, target_modules: list[str]) -> int:
        """Parameters of a LoRA of rank r: r × (in + out) for each target of each block (Hu et al. 2021, section 4)."""
        shapes = self.linear_shapes()
        return self.layers * sum(r * sum(shapes[name]) for name in target_modules)


class BaseModelRow(BaseModel):
    """One base model of the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    revision: str | None = None
    licence: str
    gated: bool
    context: int
    control_tokens: tuple[str, ...]
    """What its chat template writes and no text may hold: it would end or forge a turn."""
    architecture: Architecture

    @property
    def folder(self) -> str:
        """Where its weights lie below the models folder."""
        return self.id.replace("/", "--")

    def target_modules(self, asked: str | list[str]) -> list[str]:
        """The names of the layers that `lora.target_modules` asks for."""
        match asked:
            case "attention":
                return ["q_proj", "k_proj", "v_proj", "o_proj"]
            case "all-linear":
                return list(self.architecture.linear_shapes())
            case str():
                return [asked]
            case _:
                return list(asked)


def _load() -> dict[str, BaseModelRow]:
    yaml = YAML(typ="safe", pure=True)
    rows = yaml.load((resources.files(__name__) / "models.yaml").read_text("utf-8"))
    return {row["id"]: BaseModelRow.model_validate(row) for row in rows}


CATALOGUE = MappingProxyType(_load())
