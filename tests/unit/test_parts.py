"""Whatever transformers may read beside the weights is in a checkpoint's identity; what nothing reads is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer
from tiny_gguf import write_gguf
from transformers.utils import CHAT_TEMPLATE_FILE, LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE

from mechdrift.checkpoints.parts import copy_parts
from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError

READ = {
    "config": ["config.json", "config.4.30.0.json"],
    "generation": ["generation_config.json"],
    "template": [
        CHAT_TEMPLATE_FILE,
        LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE,
        "additional_chat_templates/default.jinja",
        "additional_chat_templates/rag.jinja",
    ],
    "tokenizer": [
        *("tokenizer.json", "tokenizer.4.45.0.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("tokenizer.model", "spiece.model", "tiktoken.model", "vocab.json", "vocab.txt", "merges.txt", "tekken.json"),
        *("processor_config.json", "quantize_config.json", "qwen.tiktoken"),
    ],
}
NOT_READ = ("README.md", "LICENSE.txt", "trainer_state.json", "eval_results.json", "mechdrift-verdict.json", "training_args.bin")


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint(), tmp_path / "checkpoint"))


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in READ.items() for name in names])
def test_each_file_is_in_its_part_of_the_identity(folder: Path, part: str, name: str) -> None:
    before = resolve(str(folder))
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    # JSON with a space at its end is the same JSON: only bytes tell.
    path.write_bytes((path.read_bytes() if path.is_file() else b"{}") + b" ")
    after = resolve(str(folder))
    assert [key for key in before.digests if before.digests[key] != after.digests[key]] == [part]
    assert after.short != before.short


@pytest.mark.parametrize("name", NOT_READ)
def test_what_nothing_reads_is_no_part_of_it(folder: Path, name: str) -> None:
    before = resolve(str(folder))
    (folder / name).write_text("{}")
    assert resolve(str(folder)).digests == before.digests


def test_a_file_that_moves_from_one_name_to_another_is_another_checkpoint(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    path = folder / "additional_chat_templates" / "rag.jinja"
    path.write_text("{{ messages }}")
    before = resolve(str(folder))
    path.rename(path.with_name("default.jinja"))
    assert resolve(str(folder)).digests["template"] != before.digests["template"]


def test_copies_are_whole(folder: Path, tmp_path: Path) -> None:
    for name in ("additional_chat_templates/rag.jinja", "generation_config.json", "vocab.txt", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_parts(folder, copy)
    shutil.copyfile(folder / "model.safetensors", copy / "model.safetensors")
    assert resolve(str(copy)).digests == resolve(str(folder)).digests
    assert not (copy / "README.md").exists()


def test_what_lies_beside_a_gguf_file_counts_and_nothing_else(tmp_path: Path) -> None:
    path = write_gguf(tiny_model(), tiny_tokenizer(), tmp_path / "model.gguf")
    alone = resolve(str(path))
    assert set(alone.digests) == {"weights"}
    (tmp_path / "README.md").write_text("words")
    assert resolve(str(path)).digests == alone.digests
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    beside = resolve(str(path))
    assert set(beside.digests) == {"weights", "generation", "tokenizer"}
    assert beside.short != alone.short


def test_an_adapter_beside_a_gguf_file_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tiny_model(), tiny_tokenizer(), tmp_path / "model.gguf")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match=r"adapter_config\.json lies beside it"):
        resolve(str(path))
