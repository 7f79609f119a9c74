from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from schemas.catalogue import FAMILIES
from tests.unit import families
from tests.unit.exported import change
from tests.unit.tiny import unhurried
from trainer.export_vocabulary import WORDS, Encoder, NotAlike, Vocabulary, vocabulary


def lay(family: str, folder: Path) -> Path:
    (folder / "tokenizer.json").write_text(families.bare(family).to_str(), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(families.config(family)), "utf-8")
    return folder


def read(folder: Path, family: str, more_rows: int = 5) -> Vocabulary:
    rows = families.bare(family).get_vocab_size() + more_rows
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return vocabulary(folder, tokenizer, rows=rows, end_of_turn=FAMILIES[family].end_of_turn)


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(family: str, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return read(lay(family, tmp_path_factory.mktemp(family)), family)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
@unhurried
def test_the_files_tokens_are_the_models_own(family: str, made: Vocabulary, text: str) -> None:
    """▁ itself, which SentencePiece's tokenizers write for a space, is in no text."""
    own = families.bare(family)
    if own.normalizer is not None and family.startswith("qwen"):
        text = own.normalizer.normalize_str(text)  # llama.cpp leaves composed characters as they are
    assert Encoder(made)(text) == own.encode(text, add_special_tokens=False).ids


def test_a_rendered_conversation_has_the_models_own_tokens(family: str, made: Vocabulary) -> None:
    turns = [{"role": "user", "content": "The quick fox?"}, {"role": "assistant", "content": "Over the dog."}]
    text = families.chat(family).render(turns)
    assert Encoder(made)(text) == families.bare(family).encode(text, add_special_tokens=False).ids


def test_special_tokens_and_what_is_put_before_a_text(family: str, made: Vocabulary) -> None:
    own = families.bare(family)
    known = {"eos": own.token_to_id(families.EOS[family])}
    known |= {"bos": own.token_to_id(families.BOS[family])} if family in families.BOS else {}
    known |= {"pad": own.token_to_id(families.PAD[family])} if family in families.PAD else {}
    assert made.ids.items() >= known.items()
    end = own.token_to_id(FAMILIES[family].end_of_turn)
    assert end in (made.ids["eos"], made.ids.get("eot"))
    assert made.adds_bos == (family in {"llama3", "gemma", "gemma3", "mistral"})
    assert made.adds_space == (family == "mistral")
    assert made.template == families.template(family)
    controls = {made.tokens[i] for i, kind in enumerate(made.types) if kind == TokenType.CONTROL}
    assert controls >= set(FAMILIES[family].control_tokens)


def test_rows_without_a_word_are_unused(made: Vocabulary) -> None:
    assert made.types[-5:] == [TokenType.UNUSED] * 5
    assert len(made.tokens) == len(set(made.tokens)) == len(made.types)


@pytest.mark.parametrize("name", WORDS)
def test_the_way_to_cut_words_is_recognised_by_its_steps(name: str, tmp_path: Path) -> None:
    def cut(content: dict[str, Any]) -> None:
        content["normalizer"] = None
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [step(*one) for one in WORDS[name]]}
        content["model"]["ignore_merges"] = name == "llama-bpe"

    change(lay("chatml", tmp_path) / "tokenizer.json", cut)
    assert read(tmp_path, "chatml").pre == name


def step(kind: str, how: Any) -> dict[str, Any]:
    match kind:
        case "Digits":
            return {"type": kind, "individual_digits": how}
        case "Split":
            return {"type": kind, "pattern": {"Regex": how}, "behavior": "Isolated", "invert": False}
        case _:
            return {"type": kind, "add_prefix_space": False, "trim_offsets": True, "use_regex": how}


@pytest.mark.parametrize(
    ("kind", "how", "said"),
    [
        ("chatml", {"pre_tokenizer": {"type": "Whitespace"}}, "no name for words cut by Whitespace"),
        ("chatml", {"pre_tokenizer": step("Split", r"\w+|\W")}, "no name for the tokenizer's way of cutting words"),
        (
            "mistral",
            {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁▁"}},
            "makes other tokens",
        ),
        ("gemma", {"normalizer": {"type": "Prepend", "prepend": "▁"}}, "makes other tokens"),
    ],
)
def test_a_tokenizer_that_gguf_cannot_hold_is_told(kind: str, how: dict[str, Any], said: str, tmp_path: Path) -> None:
    change(lay(kind, tmp_path) / "tokenizer.json", lambda content: content.update(how))
    with pytest.raises(NotAlike, match=said):
        read(tmp_path, kind)


def test_more_tokens_than_rows_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotAlike, match="more tokens than the embedding"):
        read(lay("chatml", tmp_path), "chatml", more_rows=-1)
