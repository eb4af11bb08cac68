"""Broken checkpoints: one line each, with what was found, what was expected, and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechdrift.checkpoints.load import load_model, load_tokenizer
from mechdrift.checkpoints.resolve import resolve
from mechdrift.data.organisms.derive import shipped_names
from mechdrift.errors import InputError

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A sound checkpoint to break."""
    return Path(shutil.copytree(tiny_checkpoint(), tmp_path / "checkpoint"))


def change_tensor(folder: Path, change: Callable[[torch.Tensor], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors["model.layers.1.mlp.up_proj.weight"])
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def cut(folder: Path, size: int) -> None:
    with (folder / WEIGHTS).open("r+b") as handle:
        handle.truncate(size)


def to_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def set_value(value: float) -> Callable[[torch.Tensor], None]:
    def change(tensor: torch.Tensor) -> None:
        tensor[0, 0] = value

    return change


def forget_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def add(name: str, **settings: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | settings))

    return change


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), "no config.json in it; expected a folder as save_pretrained writes it"),
    ("config is no JSON", lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    ("config is a list", lambda f: (f / "config.json").write_text("[]"), "names no model_type"),
    ("no decoder", lambda f: (f / "config.json").write_text('{"model_type": "t5"}'), "expected a decoder-only language model"),
    ("no weights", lambda f: (f / WEIGHTS).unlink(), "no weights in it"),
    ("pickle only", to_pickle, "weights as pickle only"),
    ("truncated", lambda f: cut(f, 20_000), "is 20,000 bytes long; expected"),
    ("cut in the header", lambda f: cut(f, 100), "header cut at byte 92"),
    ("cut to nothing", lambda f: cut(f, 4), "no safetensors file (4 bytes long)"),
    ("no safetensors", lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 1000), "no header length"),
    ("trailing bytes", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"x"), "cut or added to"),
    (
        "NaN",
        lambda f: change_tensor(f, set_value(float("nan"))),
        "1 of 1,536 weights of model.layers.1.mlp.up_proj.weight are NaN",
    ),
    ("infinite", lambda f: change_tensor(f, set_value(float("inf"))), "1 of 1,536 weights"),
    ("no tokenizer", forget_tokenizer, "no tokenizer in it"),
    (
        "own code",
        add("config.json", auto_map={"AutoModelForCausalLM": "m.M"}),
        "config.json asks for code of its own (auto_map: AutoM",
    ),
    (
        "tokenizer's own code",
        add("tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]}),
        "tokenizer_config.json asks for",
    ),
    ("other weights", add("config.json", transformers_weights="b.safetensors"), "names weights of its own ('b.safetensors')"),
]


@pytest.mark.parametrize(("breaking", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_folder_is_named(folder: Path, breaking: Callable[[Path], Any], message: str) -> None:
    breaking(folder)
    with pytest.raises(InputError) as caught:
        resolve(str(folder))
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert text.count(";") >= 2, "found; expected; what to do"


@pytest.mark.parametrize(
    ("spec", "message"),
    [("no/such", "no such folder"), ("organism:nobody", "no such organism; expected one of base"), (__file__, "is a file")],
)
def test_wrong_spec_is_named(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(spec)


def test_missing_tensor_is_named_when_loaded(folder: Path) -> None:
    drop_tensor(folder)
    with pytest.raises(InputError, match=r"1 tensors missing, first model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(resolve(str(folder)), torch.float32, "cpu")


def test_wrong_width_is_named_when_loaded(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(InputError, match="does not load as llama"):
        load_model(resolve(str(folder)), torch.float32, "cpu")


def test_broken_tokenizer_is_named_when_loaded(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer does not load"):
        load_tokenizer(resolve(str(folder)))


def test_sharded_checkpoint_resolves_and_a_lost_shard_is_named(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint(max_shard_size="30KB"), tmp_path / "sharded"))
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    checkpoint = resolve(str(folder))
    assert checkpoint.parameters == load_model(checkpoint, torch.float32, "cpu").num_parameters()
    shards[0].unlink()
    with pytest.raises(InputError, match=f"1 of {len(shards)} shards missing, first {shards[0].name}"):
        resolve(str(folder))


def test_index_that_points_outside_is_refused(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint(max_shard_size="30KB"), tmp_path / "sharded"))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other/model.safetensors"}}))
    with pytest.raises(InputError, match="points outside the folder"):
        resolve(str(folder))


def test_identity_is_by_content(folder: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    here, there = resolve(str(folder)), resolve(str(tiny_checkpoint()))
    assert here.digests == there.digests
    assert resolve(str(tiny_checkpoint(seed=1))).digests["weights"] != here.digests["weights"]
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    changed = resolve(str(folder))
    assert changed.digests["template"] != here.digests["template"]
    assert changed.digests["weights"] == here.digests["weights"]
    assert changed.short != here.short


def test_shipped_organisms_resolve() -> None:
    assert {"base", "instruct"} <= set(shipped_names())
    for name in shipped_names():
        assert resolve(f"organism:{name}").parameters > 100_000
