"""A model's folder that somebody filled: nothing of it is executed, and nothing is read that lies elsewhere."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from adaptml.tokens.chat import ChatTokenizer
from adaptml.tokens.store import in_folder
from adaptml.tokens.template import ChatTemplate, TemplateRefuses
from schemas.catalogue import CATALOGUE
from tests import tiny_model
from tests.cloud import MODEL
from tests.unit import tiny
from trainer import prepared
from trainer.hub import HubFile, wanted
from trainer.prepared import Origin, choose, seal
from trainer.quantise import load

CPU, ROW = torch.device("cpu"), CATALOGUE[MODEL]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.lay(tmp_path_factory.mktemp("models")) / ROW.folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A prepared model, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / ROW.folder))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """What the hostile code would leave. At the end there is none."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


class Hostile:
    """Executed by whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def code(marker: Path) -> str:
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Evil: pass\n"


def with_code(folder: Path, marker: Path, name: str, **fields: Any) -> None:
    (folder / "modeling_evil.py").write_text(code(marker))
    (folder / "tokenization_evil.py").write_text(code(marker))
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


AUTO = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoModel"), "modeling_evil.Evil")


def test_the_trap_bites(marker: Path, tmp_path: Path) -> None:
    """What is tried below does happen to whoever lets it."""
    pickle.loads(pickle.dumps(Hostile(marker)))  # noqa: S301
    assert marker.exists()
    marker.unlink()
    exec(code(marker))  # noqa: S102
    assert marker.exists()
    marker.unlink()


def test_code_beside_a_known_model_is_not_executed(folder: Path, marker: Path) -> None:
    with_code(folder, marker, "config.json", auto_map=AUTO)
    assert type(load(folder, CPU)).__name__ == "LlamaForCausalLM"


def test_a_model_that_is_nothing_but_code_is_not_loaded(folder: Path, marker: Path) -> None:
    with_code(folder, marker, "config.json", auto_map=AUTO, model_type="evil", architectures=["Evil"])
    with pytest.raises(ValueError, match=r"trust_remote_code|evil"):
        load(folder, CPU)


def test_code_beside_a_tokenizer_is_not_executed(folder: Path, marker: Path) -> None:
    with_code(folder, marker, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]})
    AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    assert in_folder(folder.parent)(ROW) is not None


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "training_args.bin", "consolidated.00.pth"])
def test_a_pickle_beside_the_weights_is_not_read(folder: Path, marker: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Hostile(marker)))
    load(folder, CPU)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.safetensors"])
def test_a_pickle_in_the_place_of_the_weights_is_not_read(folder: Path, marker: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(marker)))
    if name.endswith("index.json"):
        (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": {"x": "pytorch_model.bin"}}))
    if name == "model.safetensors":
        (folder / name).write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(Exception, match=r"(?i)safetensor|header|no file"):
        load(folder, CPU)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "modeling_evil.py", "../config.json", "x/model.safetensors", "config.json.py",
     "model.safetensors.bin", "tokenizer.pkl", ".env", "config.json\n", "evil.so", "model-00001-of-00002.bin"],
)  # fmt: skip
def test_of_a_repository_neither_code_nor_pickle_is_fetched(name: str) -> None:
    needed = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    files = [HubFile(one, 1, "0", None) for one in (*needed, name)]
    assert sorted(file.name for file in wanted(files, ROW)) == sorted(needed)


# What lies elsewhere


def sharded(folder: Path, shard: str) -> None:
    """As large models are: an index names the files that hold the weights."""
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "SHA256SUMS").unlink()
    seal(folder, Origin(model=MODEL, revision=ROW.revision, source="test"))


def test_an_index_that_names_the_folders_own_files_is_followed(folder: Path) -> None:
    sharded(folder, "model.safetensors")
    assert choose(folder, quantise=False) is not None


@pytest.mark.parametrize(
    "shard", ["../other/model.safetensors", "/etc/passwd", "gone.safetensors", "./x.safetensors", 7]
)
def test_an_index_that_names_others_is_not_followed(folder: Path, shard: Any) -> None:
    other = folder.parent / "other"
    other.mkdir()
    shutil.copy(folder / "model.safetensors", other)
    sharded(folder, shard)
    assert choose(folder, quantise=False) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 7}', '{"weight_map": {"x": ["y"]}}', "[" * 50_000])
def test_an_index_that_is_none_is_not_followed(folder: Path, text: str) -> None:
    sharded(folder, "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)
    assert choose(folder, quantise=False) is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_to_a_file_elsewhere_is_no_file_of_the_model(folder: Path, name: str) -> None:
    assert choose(folder, quantise=False) is not None
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    assert choose(folder, quantise=False) is None


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(folder)
    assert choose(tmp_path / "linked", quantise=False) is not None


def test_checksums_name_nothing_outside() -> None:
    for name in ("../x", "/etc/passwd", "a/../../x", "a/b/c", "..", "a\\b"):
        with pytest.raises(ValueError, match="damaged"):
            prepared.parse(f"{'0' * 64}  {name}\n")


# Chat templates: more of them in tests/unit/test_chat.py


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].system('id') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
        "{{ namespace(__class__=1) }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__func__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
    ],
)
def test_a_template_that_breaks_out_renders_nothing(template: str) -> None:
    chat = ChatTokenizer(tiny.bare(), {"default": tiny.CHATML}, tiny.SPECIAL)._templates["default"]
    assert chat.render([tiny.turn("user", "x")], None, {}, answer_next=True).text
    try:
        said = ChatTemplate(template).render([tiny.turn("user", "x")], None, {}, answer_next=False).text
    except (TemplateRefuses, TypeError):
        return
    assert not {"class", "uid=", "globals", "root:"} & set(said.replace("<", " ").split())
    assert "subclass" not in said
