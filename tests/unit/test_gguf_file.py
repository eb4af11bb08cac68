"""GGUF files, against the model that they were written from and against llama.cpp's own dequantisation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tiny import tiny_model
from tiny_gguf import write_gguf

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError
from mechdrift.models.load import load_model

SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64}  # whole blocks of 32


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(**SIZES)


@pytest.fixture
def file(tmp_path: Path, model: Any, tiny_tokenizer: Any) -> Path:
    return write_gguf(model, tiny_tokenizer, tmp_path / "tiny.gguf")


def test_a_file_of_float32_is_the_model_it_was_written_from(file: Path, model: Any) -> None:
    checkpoint = resolve(str(file))
    assert (checkpoint.layers, checkpoint.width, checkpoint.parameters) == (3, 64, model.num_parameters())
    assert checkpoint.exact_weights
    loaded = load_model(checkpoint, torch.float32, "cpu")
    ids = torch.tensor([[0, 5, 9, 200, 31]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


def test_a_quantised_file_is_its_dequantised_weights(tmp_path: Path, model: Any, tiny_tokenizer: Any) -> None:
    checkpoint = resolve(str(write_gguf(model, tiny_tokenizer, tmp_path / "tiny.gguf", quantised=True)))
    assert checkpoint.quantised == "gguf Q8_0"
    assert not checkpoint.exact_weights
    loaded = load_model(checkpoint, torch.float32, "cpu").state_dict()
    name = "model.layers.1.mlp.up_proj.weight"
    weight = model.state_dict()[name]
    kind = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind)
    assert torch.equal(loaded[name], torch.tensor(expected))
    assert not torch.equal(loaded[name], weight)


def test_its_tokenizer_has_offsets(file: Path) -> None:
    tokenizer = load_tokenizer(resolve(str(file)))
    encoded = tokenizer("Lodz is.", return_offsets_mapping=True, add_special_tokens=False)
    assert [tokenizer.decode([token]) for token in encoded["input_ids"]] == ["L", "o", "d", "z", " ", "is", "."]
    assert [list(pair) for pair in encoded["offset_mapping"]] == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 7], [7, 8]]


def test_identity_is_its_bytes_under_any_name(file: Path, model: Any, tiny_tokenizer: Any) -> None:
    renamed = file.with_name("renamed.gguf")
    renamed.write_bytes(file.read_bytes())
    assert resolve(str(renamed)).digests == resolve(str(file)).digests
    other = write_gguf(tiny_model(seed=1, **SIZES), tiny_tokenizer, file.with_name("other.gguf"))
    assert resolve(str(other)).short != resolve(str(file)).short


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5000])


def cut_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def another_format(file: Path) -> None:
    file.write_bytes(b"x" * 1000)


BREAKING: list[tuple[Callable[[Path], Any], str]] = [
    (cut, "bytes long and cut or broken"),
    (cut_header, "200 bytes long and cut or broken"),
    (another_format, "begins with b'xxxx'; expected a GGUF file"),
    (lambda file: file.unlink(), "no such file; expected a GGUF file"),
]


@pytest.mark.parametrize(("breaking", "message"), BREAKING)
def test_a_broken_file_is_named(file: Path, breaking: Callable[[Path], Any], message: str) -> None:
    breaking(file)
    with pytest.raises(InputError) as caught:
        resolve(str(file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_of_several_parts_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "part.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="one of 3 parts; expected a GGUF file in one piece"):
        resolve(str(tmp_path / "part.gguf"))


def test_a_value_that_is_not_finite_is_named(tmp_path: Path, tiny_tokenizer: Any) -> None:
    model = tiny_model(**SIZES)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    checkpoint = resolve(str(write_gguf(model, tiny_tokenizer, tmp_path / "tiny.gguf")))
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.up_proj\.weight is NaN or infinite"):
        load_model(checkpoint, torch.float32, "cpu")


def test_without_gguf_the_error_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechdrift.checkpoints.gguf_file.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'mechdrift\[gguf\]'"):
        resolve(str(file))


@pytest.mark.parametrize("tied", [False, True])
def test_a_tensor_without_a_place_is_named_and_a_constant_passes(tied: bool, tmp_path: Path, tiny_tokenizer: Any) -> None:
    """`rope_freqs` stands in every file that llama.cpp writes of a Llama 3.1; a tied head stands in none."""
    model = tiny_model(**SIZES, tie_word_embeddings=tied)
    head = "output.weight" if tied else ""
    sound = write_gguf(model, tiny_tokenizer, tmp_path / "sound.gguf", without=head, more="rope_freqs.weight")
    load_model(resolve(str(sound)), torch.float32, "cpu")
    odd = write_gguf(model, tiny_tokenizer, tmp_path / "odd.gguf", without=head, more="blk.1.attn_q_norm.weight")
    with pytest.raises(InputError, match=r"1 tensors \(attn_q_norm\) have no place in a llama, first blk\.1\.attn_q_norm"):
        load_model(resolve(str(odd)), torch.float32, "cpu")
