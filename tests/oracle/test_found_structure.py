"""The stream of families that nobody listed: found on random models, and proven; what is not the whole state is refused."""

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from found import FOUND, HEAD, POST, SIZES, drawn, model_of, prompts
from tiny import tiny_model

from mechdrift.engine.selfcheck import check_ablating_everywhere, check_shifting, require_whole_state, self_check
from mechdrift.errors import Unmeasurable
from mechdrift.models import structure
from mechdrift.models.sites import blocks, width_of, writes
from mechdrift.models.structure import structure_of


@pytest.mark.parametrize("family", FOUND)
def test_a_family_is_found_and_proven(family: str) -> None:
    """An intervention at a block moves exactly what it should, and nothing before it."""
    model, expected = model_of(family), FOUND[family][1]
    found = structure_of(model)
    assert len(found.blocks) == 4
    assert {block.names for block in found.blocks} == expected
    assert {round(block.factor, 6) for block in found.blocks} == {0.22 if family == "granite" else 1.0}
    self_check(model, prompts())
    direction = torch.randn(width_of(model), generator=torch.Generator().manual_seed(2))
    for layer in range(3):
        check_shifting(model, prompts()[1], direction, layer)
    check_ablating_everywhere(model, prompts()[1], direction)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_found_in_16_bits_too(dtype: torch.dtype) -> None:
    found = structure_of(model_of("olmo3").to(dtype))
    assert {block.names for block in found.blocks} == {POST}


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen3_moe"])
def test_a_listed_family_is_found_as_it_is_listed(family: str) -> None:
    model = tiny_model(family)
    listed, found = structure_of(model), structure.found(model)
    assert [block.module for block in found.blocks] == [block.module for block in listed.blocks]
    assert [block.writes for block in found.blocks] == [block.writes for block in listed.blocks]
    assert found.norm is listed.norm


def test_the_decoder_of_a_model_that_sees_is_read() -> None:
    """Gemma 3 as it is published."""
    text = SIZES | HEAD | {"sliding_window": 8}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision | {"patch_size": 14}, mm_tokens_per_image=4)
    torch.manual_seed(0)
    model = drawn(transformers.AutoModelForCausalLM.from_config(config))
    assert blocks(model) == list(model.model.language_model.layers)
    assert [module for block in blocks(model)[:1] for module in writes(model, block)] == [
        getattr(blocks(model)[0], name) for name in POST
    ]
    self_check(model, prompts())


def side_channel(model: Any) -> None:
    """Block 2 also reads what block 0 was given."""
    kept: list[Any] = []
    layers = model.model.layers
    layers[0].register_forward_pre_hook(lambda _module, args: kept.append(args[0]))
    layers[2].mlp.register_forward_hook(lambda _module, _args, output: output + 0.3 * kept[-1])


def shared_keys() -> Any:
    """The last two of Gemma 4's blocks take their keys and values from earlier ones."""
    return gemma4(num_kv_shared_layers=2, hidden_size_per_layer_input=8)


def gemma4(**more: int) -> Any:
    """A tiny Gemma 4."""
    sizes = SIZES | HEAD | {"sliding_window": 8, "vocab_size_per_layer_input": 258} | more
    kinds = ["sliding_attention", "full_attention"] * 2
    config = transformers.Gemma4TextConfig(**sizes | {"layer_types": kinds, "global_head_dim": 8})
    torch.manual_seed(0)
    return drawn(transformers.Gemma4ForCausalLM(config))


def planted(fault: Callable[[Any], None]) -> Any:
    model = tiny_model("llama")
    fault(model)
    return model


@pytest.mark.parametrize("make", [lambda: planted(side_channel), shared_keys], ids=["planted", "gemma4"])
def test_a_stream_that_is_not_the_whole_state_is_refused(make: Callable[[], Any]) -> None:
    """The residual identity holds; a swap of whole block outputs does not arrive."""
    model = make()
    self_check(model, prompts())
    with pytest.raises(Unmeasurable, match=r"after block \d is not the whole state: with another prompt's put there"):
        require_whole_state(model, prompts()[-1])


def test_what_a_config_says_of_side_channels_is_named() -> None:
    with pytest.raises(Unmeasurable, match=r"its config has num_kv_shared_layers 2 and hidden_size_per_layer_input 8\)"):
        require_whole_state(gemma4(num_kv_shared_layers=2, hidden_size_per_layer_input=8), prompts()[-1])


def test_a_block_may_scale_all_that_leaves_it() -> None:
    """Gemma 4's layer_scalar, which is 1 in a new model."""
    model = gemma4(num_kv_shared_layers=0, hidden_size_per_layer_input=0)
    for number, block in enumerate(model.model.layers):
        block.layer_scalar.fill_(0.7 + 0.1 * number)
    found = structure_of(model)
    assert {block.names for block in found.blocks} == {POST}
    assert [block.scale for block in found.blocks] == pytest.approx([0.7, 0.8, 0.9, 1.0])
    self_check(model, prompts())
    require_whole_state(model, prompts()[-1])
    direction = torch.randn(width_of(model), generator=torch.Generator().manual_seed(2))
    check_shifting(model, prompts()[1], direction, 1)
    check_ablating_everywhere(model, prompts()[1], direction)


def scaled(model: Any) -> None:
    """What leaves is scaled, each axis by another number: no sum of what a block's modules give is what it adds."""
    for block in model.model.layers:
        block.register_forward_hook(lambda _module, _args, output: output * torch.linspace(0.99, 1.01, output.shape[-1]))


def first_again(model: Any) -> None:
    """Block 0 runs once more before block 1, as looped models run theirs."""
    layers = model.model.layers
    layers[1].register_forward_pre_hook(lambda _module, args, more: (layers[0](*args, **more), None)[1], with_kwargs=True)


def silent(model: Any) -> None:
    """An MLP that gives next to nothing: a trained one may write where a random prompt does not show it."""
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight.mul_(1e-9)


def faint(model: Any) -> None:
    """An MLP whose writes are hardly more than rounding: the sum holds within its tolerance, but that it writes is not shown."""
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight.mul_(5e-8)


FAULTS = {
    "faint": (faint, "block 0: whether mlp writes to the residual stream cannot be told"),
    "twice": (first_again, "block 0 runs more than once in a forward"),
    "scaled": (scaled, "block 0: no sum of up to 3 of its modules' outputs"),
    "silent": (silent, "block 0: whether mlp writes to the residual stream cannot be told"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_found_is_said(fault: str) -> None:
    plant, words = FAULTS[fault]
    with pytest.raises(Unmeasurable, match=words):
        structure.found(planted(plant))


def test_an_encoder_has_no_stream_to_read() -> None:
    config = transformers.BertConfig(**SIZES | {"is_decoder": True})
    with pytest.raises(Unmeasurable, match="no final norm: nothing takes the last block's output"):
        structure_of(transformers.BertLMHeadModel(config).eval())


@pytest.mark.parametrize("fault", [None, scaled])
def test_what_is_known_of_a_model_does_not_keep_it_in_memory(fault: Callable[[Any], None] | None) -> None:
    """Neither what was found nor why nothing was: another model may need the room."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("smollm3", **SIZES)).eval()
    if fault:
        fault(model)
    with nullcontext() if fault is None else pytest.raises(Unmeasurable):
        structure_of(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
