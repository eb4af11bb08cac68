"""Broken checkpoints: one line each, with what was found, what was expected, and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError
from mechdrift.models.load import load_model
from mechdrift.organisms.derive import shipped_names

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


def leave_a_hole(folder: Path) -> None:
    """Shift every tensor by a byte: as long as the header says, but not what safetensors writes."""
    raw = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [offset + 1 for offset in entry["data_offsets"]]
    result = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(result).to_bytes(8, "little") + result + b"x" + raw[8 + length :])


def shard_as_fsdp(folder: Path) -> None:
    """As a Trainer with sharded FSDP leaves a checkpoint: no config, and weights in another format."""
    (folder / "pytorch_model_fsdp_0").mkdir()
    (folder / "pytorch_model_fsdp_0" / ".metadata").write_bytes(b"a pickle")
    (folder / "pytorch_model_fsdp_0" / "__0_0.distcp").write_bytes(b"weights")
    (folder / WEIGHTS).unlink()
    (folder / "config.json").unlink()


def shard_as_zero(folder: Path) -> None:
    """As DeepSpeed leaves a checkpoint of ZeRO 3."""
    (folder / "global_step500").mkdir()
    (folder / "global_step500" / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"a pickle")
    (folder / "zero_to_fp32.py").write_text("raise SystemExit('ran')")
    (folder / WEIGHTS).unlink()


def to_root(folder: Path) -> None:
    """The output folder of a Trainer that was stopped before it saved the model itself."""
    for step in (500, 1000, 90):
        shutil.copytree(folder, folder.with_name(f"checkpoint-{step}"))
    shutil.rmtree(folder)
    folder.mkdir()
    for step in (500, 1000, 90):
        folder.with_name(f"checkpoint-{step}").rename(folder / f"checkpoint-{step}")
    (folder / "checkpoint-of-mine").mkdir()


def forget_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def to_empty_index(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')


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
    ("no tokenizer", forget_tokenizer, "no tokenizer in it (a trainer writes one if it is given processing_class)"),
    ("a hole in the weights", leave_a_hole, "no safetensors file (tensor"),
    ("FSDP", shard_as_fsdp, "FSDP shards, not merged; expected model.safetensors; run: accelerate merge-weights "),
    ("ZeRO", shard_as_zero, "DeepSpeed ZeRO shards, not merged; expected model.safetensors; run: python "),
    ("a trainer's root", to_root, "with 3 checkpoints and no model of its own; expected one checkpoint; type "),
    ("index without files", to_empty_index, "names no file"),
    (
        "own code",
        add("config.json", model_type="own", auto_map={"AutoModelForCausalLM": "m.M"}),
        "config.json asks for code of its own (auto_map: AutoM",
    ),
    ("no classes", add("tokenizer_config.json", auto_map=1), "tokenizer_config.json: auto_map is 1; expected classes by name"),
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
    [("./no/such", "no such folder"), ("organism:nobody", "no such organism; expected one of base"), (__file__, "is a file")],
)
def test_wrong_spec_is_named(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(spec)


def test_what_was_taken_away_since_is_named_when_loaded(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    drop_tensor(folder)
    with pytest.raises(InputError, match=r"1 tensors missing, first model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(checkpoint, torch.float32, "cpu")


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


def test_the_latest_checkpoint_of_a_run_is_named_and_resolves(folder: Path) -> None:
    to_root(folder)
    with pytest.raises(InputError, match="which is the latest") as caught:
        resolve(str(folder))
    named = str(caught.value).partition("; type ")[2].partition(",")[0]
    assert named == f"{folder}/checkpoint-1000"
    assert resolve(named).parameters > 0


def test_a_merge_command_names_the_shards_however_they_are_typed(folder: Path) -> None:
    shard_as_fsdp(folder)
    command = f"run: accelerate merge-weights {folder}/pytorch_model_fsdp_0 {folder} (then name {folder}"
    for spec in (folder, folder / "pytorch_model_fsdp_0"):
        with pytest.raises(InputError) as caught:
            resolve(str(spec))
        assert command in str(caught.value)
    (folder / "pytorch_model_fsdp_0").rename(folder / "fsdp")
    shard_as = folder / "zero"
    shard_as.mkdir()
    (shard_as / WEIGHTS).write_bytes(b"")
    (shard_as / "config.json").write_text("{}")
    shard_as_zero(shard_as)
    command = f"run: python {shard_as}/zero_to_fp32.py {shard_as} {shard_as} --safe_serialization"
    for spec in (shard_as, shard_as / "global_step500"):
        with pytest.raises(InputError) as caught:
            resolve(str(spec))
        assert command in str(caught.value)


@pytest.mark.parametrize("family", ["gpt2", "bloom", "llama"])
def test_blocks_and_width_are_found_under_the_familys_own_names(tiny_checkpoint: Callable[..., Path], family: str) -> None:
    folder = tiny_checkpoint(family)
    names = set(json.loads((folder / "config.json").read_text()))
    assert (family == "llama") == ({"num_hidden_layers", "hidden_size"} <= names)
    checkpoint = resolve(str(folder))
    assert (checkpoint.model_type, checkpoint.layers, checkpoint.width) == (family, 3, 32)


def test_blocks_and_width_of_a_nested_text_config(tmp_path: Path, folder: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = sizes | {"num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 258}
    vision = sizes | {"image_size": 28, "patch_size": 14}
    Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision)).save_pretrained(tmp_path / "gemma3")
    shutil.copy(folder / "tokenizer.json", tmp_path / "gemma3")
    assert not sizes.keys() & json.loads((tmp_path / "gemma3" / "config.json").read_text()).keys()
    checkpoint = resolve(str(tmp_path / "gemma3"))
    assert (checkpoint.model_type, checkpoint.layers, checkpoint.width) == ("gemma3", 3, 32)


def test_code_of_a_checkpoints_own_is_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="no code of a checkpoint is run"):
        resolve(str(folder))


def test_a_class_that_transformers_has_is_taken_in_the_place_of_code(folder: Path) -> None:
    """As Phi-3 and its fine-tunes are published: the same weights, and nothing of the code is even looked at."""
    plain = resolve(str(folder))
    for name, code in (
        ("config.json", {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.T", None]}),
    ):
        add(name, auto_map=code)(folder)
    (folder / "own.py").write_text("raise SystemExit('ran')")
    named = resolve(str(folder))
    assert (named.digests["weights"], named.layers) == (plain.digests["weights"], plain.layers)
    assert type(load_model(named, torch.float32, "cpu")) is type(load_model(plain, torch.float32, "cpu"))
    assert load_tokenizer(named)("a")["input_ids"] == load_tokenizer(plain)("a")["input_ids"]


def test_shipped_organisms_resolve() -> None:
    assert {"base", "instruct"} <= set(shipped_names())
    for name in shipped_names():
        assert resolve(f"organism:{name}").parameters > 100_000
