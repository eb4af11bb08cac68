"""What transformers saves is whole, in every family and layout; without any one of its tensors, or with one more, it is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from misfit import add_block, add_value_head
from safetensors.torch import load_file, save_file
from tiny import VARIANTS, tiny_model, tiny_tokenizer, write_tiny

from mechdrift.checkpoints.misplaced import in_order
from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError
from mechdrift.models.load import load_model

WEIGHTS = "model.safetensors"
# What transformers merges, splits and renames on load; blocks that it ignores; and every family of the house.
FAMILIES = sorted({*VARIANTS, "deepseek_v3", "glm4_moe", "qwen2_moe", "gptj", "bloom", "olmoe", "jamba", "granitemoe"})


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    held = load_file(folder / WEIGHTS)
    change(held)
    save_file(held, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_whole_as_saved_and_not_with_a_tensor_less_or_more(family: str, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", family)
    resolve(str(folder))
    names = in_order(load_file(folder / WEIGHTS))
    for name in (names[0], names[len(names) // 2], names[-1]):
        held = load_file(folder / WEIGHTS)
        taken = held.pop(name)
        save_file(held, folder / WEIGHTS, {"format": "pt"})
        with pytest.raises(InputError, match="1 tensors missing, first ") as caught:
            resolve(str(folder))
        assert f"first {name};" in str(caught.value)
        save_file(held | {name: taken}, folder / WEIGHTS, {"format": "pt"})
    beyond = f"{names[-1]}_of_mine"
    rewrite(folder, lambda held: held.update({beyond: torch.ones(3)}))
    with pytest.raises(InputError, match=rf"1 tensors \(.*\) have no place in a {family.partition('-')[0]}, first"):
        resolve(str(folder))


@pytest.mark.parametrize(("family", "last"), [("deepseek_v3", 61), ("glm4_moe", 46), ("glm4_moe", 92)])
def test_a_block_that_transformers_ignores_passes_and_another_does_not(family: str, last: int, tmp_path: Path) -> None:
    """DeepSeek-V3, GLM-4.5-Air and GLM-4.5 are published with a block for predicting a second token."""
    folder = write_tiny(tmp_path / "model", family)
    plain = resolve(str(folder))
    add_block(last)(folder)
    checkpoint = resolve(str(folder))
    assert checkpoint.parameters > plain.parameters
    assert checkpoint.notes == ()
    model = load_model(checkpoint, torch.float32, "cpu")
    assert len(model.model.layers) == 3
    add_block(last + 1)(folder)
    with pytest.raises(InputError, match=rf"first model\.layers\.{last + 1}\."):
        resolve(str(folder))


def test_layouts_of_gpt2_with_and_without_its_prefix_and_its_masks(tmp_path: Path) -> None:
    """As the first of them was published: a base model, its causal masks among its weights, the head tied."""
    folder = tmp_path / "model"
    tiny_model("gpt2").transformer.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert "wte.weight" in load_file(folder / WEIGHTS)
    mask = torch.tril(torch.ones(1, 1, 512, 512))
    rewrite(folder, lambda held: held.update({f"h.{n}.attn.bias": mask.clone() for n in range(3)}))
    rewrite(folder, lambda held: held.update({f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(3)}))
    bare = load_model(resolve(str(folder)), torch.float32, "cpu")
    with_prefix = load_model(resolve(str(write_tiny(tmp_path / "prefixed", "gpt2"))), torch.float32, "cpu")
    for name, weight in with_prefix.state_dict().items():
        torch.testing.assert_close(bare.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("gpt_neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.masked_bias"]),
        ("gpt_neox", ["gpt_neox.layers.0.attention.rotary_emb.inv_freq"]),
        ("gptj", ["transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"]),
        ("gpt_neo", ["transformer.h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"]),
        ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq"]),
    ],
)
def test_constants_that_older_code_stored_pass(family: str, names: list[str], tmp_path: Path) -> None:
    """As Pythia, GPT-J, GPT-Neo and Llama 2 were published."""
    types: dict[str, Any] = {"attention_types": [[["global", "local"], 1], [["global"], 1]]} if family == "gpt_neo" else {}
    folder = write_tiny(tmp_path / "model", family, **types)
    rewrite(folder, lambda held: held.update({name: torch.ones(1, 1, 8, 8) for name in names}))
    assert resolve(str(folder)).notes == ()


def test_a_base_model_whose_head_is_not_tied_has_none(tmp_path: Path) -> None:
    tiny_model().model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"1 tensors missing, first lm_head\.weight"):
        resolve(str(tmp_path))


def test_a_tied_head_passes_where_it_equals_the_embedding_in_whatever_precision(tmp_path: Path) -> None:
    """Trainers that gather a state dict store both. Values of bfloat16 are values of float32."""
    folder = write_tiny(tmp_path / "model", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    embedding = load_file(folder / WEIGHTS)["model.embed_tokens.weight"].bfloat16()
    rewrite(folder, lambda held: held.update({"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.clone()}))
    resolve(str(folder))
    head = embedding.float()
    rewrite(folder, lambda held: held.update({"lm_head.weight": head}))
    resolve(str(folder))
    head[200, 5] += 1
    rewrite(folder, lambda held: held.update({"lm_head.weight": head}))
    with pytest.raises(InputError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight; expected one matrix"):
        resolve(str(folder))


def test_a_value_head_is_noted_and_a_bias_of_zeros_changes_nothing(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    add_value_head(folder)
    bias = "model.layers.0.mlp.up_proj.bias"
    rewrite(folder, lambda held: held.update({bias: torch.zeros(48)}))
    assert resolve(str(folder)).notes == (f"{folder}: 2 tensors of a value head (v_head) are left out: replies do not need them",)
    load_model(resolve(str(folder)), torch.float32, "cpu")
    rewrite(folder, lambda held: held.update({bias: torch.ones(48)}))
    with pytest.raises(InputError, match=rf"1 tensors \(up_proj\) have no place in a llama, first {bias}"):
        resolve(str(folder))


def test_an_index_of_one_file_passes(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "model"))
    placed = dict.fromkeys(load_file(folder / WEIGHTS), WEIGHTS)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    resolve(str(folder))


def test_files_of_another_layout_beside_it_pass(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """As Mistral's models are published, in two formats."""
    folder = Path(shutil.copytree(tiny_checkpoint(max_shard_size="30KB"), tmp_path / "model"))
    save_file({"norm.weight": torch.ones(3)}, folder / "consolidated.safetensors")
    resolve(str(folder))


def test_shapes_cost_no_memory_for_weights(tmp_path: Path) -> None:
    """A header of 70 billion weights over a file with a hole for its data: the shapes are held against the config in no time."""
    config = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, LlamaConfig, LlamaForCausalLM

    from mechdrift.checkpoints.shards import Tensor
    from mechdrift.checkpoints.stored import Place
    from mechdrift.checkpoints.whole import check_whole

    large = LlamaConfig(**config, num_key_value_heads=8, vocab_size=128256)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in LlamaForCausalLM(large).state_dict().items()}
    stored = {name: Place(tmp_path, Tensor(name, "BF16", shape, 0, 0)) for name, shape in shapes.items()}
    assert sum(place.tensor.elements for place in stored.values()) > 7e10
    check_whole("large", stored, large, MODEL_FOR_CAUSAL_LM_MAPPING)
    stored["model.norm.weight"] = Place(tmp_path, Tensor("model.norm.weight", "BF16", (8191,), 0, 0))
    with pytest.raises(InputError, match=r"1 tensors of another shape, first model\.norm\.weight: \[8191\]; expected \[8192\]"):
        check_whole("large", stored, large, MODEL_FOR_CAUSAL_LM_MAPPING)
