"""The catalogue of base models: data in YAML beside this file, one loader here.

A drop names a model by its id in the catalogue, never by an arbitrary repository: what is not in the catalogue
is not trained, and nothing is fetched from a hub while a run is under way.
"""

from __future__ import annotations

from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from msgspec import yaml
from pydantic import BaseModel, ConfigDict, Field


class Row(BaseModel):
    """A row of data: fixed, and without fields that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Architecture(Row):
    """A decoder's figures, as its config.json names them."""

    model_type: Literal["gemma", "gemma3", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"]
    """Of transformers' AutoConfig."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    """Rows of the embedding, which may be more than the tokenizer has words."""
    tied_embeddings: bool
    qkv_bias: bool = False
    """Whether q, k and v add a bias."""
    qk_norm: bool = False
    """Whether each head's query and key are normed."""
    block_norms: int = 2
    """Norms over the hidden state in a block."""
    sliding_window: int | None = None
    """How far back the local layers look, where a model has local layers."""

    @property
    def query(self) -> int:
        """Width of all heads' queries together."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all heads' keys together, and of their values."""
        return self.kv_heads * self.head_dim

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Name → (in, out) features of each linear layer of one decoder block."""
        return {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key),
            "v_proj": (self.hidden, self.key),
            "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    def linear_parameters(self) -> int:
        """Weights of all linear layers of all blocks: what QLoRA quantises."""
        return self.layers * sum(i * o for i, o in self.linear_shapes().values())

    def bias_parameters(self) -> int:
        """Biases of the linear layers, which stay as they are when their weights are quantised."""
        return self.layers * (self.query + 2 * self.key) if self.qkv_bias else 0

    def embedding_parameters(self) -> int:
        """Parameters of the embedding and, where it is not tied, the output layer."""
        return self.vocab * self.hidden * (1 if self.tied_embeddings else 2)

    def norm_parameters(self) -> int:
        """Parameters of the norms: those of the blocks, and one at the end."""
        of_heads = 2 * self.head_dim if self.qk_norm else 0
        return self.layers * (self.block_norms * self.hidden + of_heads) + self.hidden

    def parameters(self) -> int:
        """All parameters of the decoder."""
        return self.linear_parameters() + self.bias_parameters() + self.embedding_parameters() + self.norm_parameters()

    def lora_parameters(self, r: int, target_modules: list[str]) -> int:
        """Parameters of a LoRA of rank r: r × (in + out) for each target of each block (Hu et al. 2021, section 4)."""
        shapes = self.linear_shapes()
        return self.layers * sum(r * sum(shapes[name]) for name in target_modules)


class ChatFamily(Row):
    """How a family of chat templates writes a conversation; the fields are described in families.yaml."""

    control_tokens: tuple[str, ...]
    bos: str | None
    end_of_turn: str
    system: Literal["turn", "user", "last_user", "refused"]
    tools: bool


class BaseModelRow(Row):
    """One base model of the catalogue."""

    id: str
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    licence: str
    gated: bool
    context: int
    chat: str | None
    """The family of its chat template; None where it has none and takes plain texts only."""
    left_out: tuple[str, ...] = ()
    """Parts of a model of more than text that are not needed to train on text."""
    architecture: Architecture

    @property
    def folder(self) -> str:
        """Where its weights lie below the models folder."""
        return self.id.replace("/", "--")

    @property
    def family(self) -> ChatFamily | None:
        """What its chat template writes."""
        return None if self.chat is None else FAMILIES[self.chat]

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """What its chat template writes and no text may hold: it would end or forge a turn."""
        return () if self.family is None else self.family.control_tokens

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


def _data(name: str) -> Any:
    return yaml.decode((resources.files(__name__) / name).read_bytes())


FAMILIES = MappingProxyType({name: ChatFamily.model_validate(row) for name, row in _data("families.yaml").items()})
CATALOGUE = MappingProxyType({row["id"]: BaseModelRow.model_validate(row) for row in _data("models.yaml")})
