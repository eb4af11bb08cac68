"""What the engine does on families that nobody listed: their head, their last MLP, and the fastest way to sweep that is exact."""

from typing import Any

import pytest
import torch
from found import FOUND, model_of, prompts

from mechdrift.engine.last_mlp import Ablation, read_last_mlp
from mechdrift.engine.recording import record_columns
from mechdrift.engine.selfcheck import check_last_mlp, self_check
from mechdrift.engine.stored_sweep import fastest_exact
from mechdrift.engine.sweep import Pairs, sweep
from mechdrift.engine.sweep_naive import sweep_naive
from mechdrift.engine.sweep_restarted import sweep_restarted
from mechdrift.errors import Unmeasurable
from mechdrift.models.ending import ending_of, mixing
from mechdrift.models.head import head_of
from mechdrift.models.sites import blocks, routers

VOCABULARY = 258
# By transformers' own code: the matrix behind the MLP's neurons, and the norm after it.
DOWN = {"bloom": "mlp.dense_4h_to_h", "opt": "fc2", "phi": "mlp.fc2"}
AFTER = {"glm4": "post_mlp_layernorm", "olmo3": "post_feedforward_layernorm"}
FACTORS = {"cohere": 0.0625, "granite": 1 / 8}
"""Of the logits: Cohere's logit_scale as its config has it, one over Granite's logits_scaling."""
# BLOOM adds a slope to its scores itself; linear attention does not go through transformers' table.
RESTARTED = {"bloom", "qwen3_5_text"}


def pairs() -> Pairs:
    """Two pairs that differ from their third token on."""
    one, two = prompts()[2], prompts()[1]
    return Pairs([[*one[:2], 9, *one[3:]], [*two[:2], 11, *two[3:]]], [one, two], [(5, 9), (7, 100)], [2, 1])


@pytest.mark.parametrize("family", FOUND)
def test_the_head_is_the_matrix_times_the_familys_factor(family: str) -> None:
    model = model_of(family)
    assert head_of(model).factor == pytest.approx(FACTORS.get(family, 1.0))
    assert head_of(model).cap is None


@pytest.mark.parametrize("family", [family for family in FOUND if family != "gpt_oss"])
def test_the_last_mlp_is_found_and_its_ablations_are_the_models(family: str) -> None:
    model = model_of(family)
    block, ending = blocks(model)[-1], ending_of(model)
    assert ending.down is block.get_submodule(DOWN.get(family, "mlp.down_proj"))
    assert ending.after is (getattr(block, AFTER[family]) if family in AFTER else None)
    assert mixing(model, 3) == [True, False]
    ablations = [Ablation((5,), (2.0,)), Ablation((1, 5), (0.5, -3.0))]
    check_last_mlp(model, read_last_mlp(model, VOCABULARY), prompts()[1], [1, 5], ablations)


def test_experts_have_no_such_matrix_and_their_routers_are_found() -> None:
    model = model_of("gpt_oss")
    assert routers(model) == [block.mlp.router for block in blocks(model)]
    with pytest.raises(Unmeasurable, match="the last MLP is a mixture of experts"):
        ending_of(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_experts_that_rounding_changes_are_no_fault_of_a_batch(dtype: torch.dtype) -> None:
    self_check(model_of("gpt_oss").to(dtype), prompts())


@pytest.mark.parametrize("family", FOUND)
def test_the_fastest_exact_way_is_taken_and_is_exact(family: str) -> None:
    """With the model's own activations, and with another's."""
    model = model_of(family)
    way, why = fastest_exact(model, pairs())
    assert way is (sweep_restarted if family in RESTARTED else sweep)
    assert bool(why) == (family in RESTARTED)
    for source in (None, record_columns(model_of(family, 1), pairs().clean, pairs().first)):
        found, expected = way(model, pairs(), source=source), sweep_naive(model, pairs(), source=source)
        for name in ("patched", "clean", "corrupt"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=3e-5, equal_nan=True)
        moved = (found.patched - found.corrupt[:, None, None]).nan_to_num().abs()
        assert (moved.amax(dim=(0, 2)) > 1e-3).all(), "patches at every block did something"


def test_a_restarted_sweep_runs_each_block_only_behind_the_patch() -> None:
    """Of 4 blocks, 25 + 8 tokens: per prompt three whole forwards, and of every cell the blocks behind its own."""
    model, asked = model_of("qwen3_5_text"), pairs()
    runs = [0] * 4

    def count(layer: int) -> Any:
        return lambda *_: runs.__setitem__(layer, runs[layer] + 1)

    mixers = [getattr(block, "self_attn", None) or block.linear_attn for block in blocks(model)]
    handles = [mixer.register_forward_hook(count(layer)) for layer, mixer in enumerate(mixers)]
    found = sweep_restarted(model, asked)
    for handle in handles:
        handle.remove()
    # Each pair: its clean prompt twice, its corrupt one once; then a batch of cells for every block before this one.
    assert runs == [2 * (3 + layer) for layer in range(4)]
    cells = [23, 6]  # tokens from the first that differs
    assert found.cells == sum(3 * width + 1 for width in cells)
    assert found.tokens == sum(
        4 * 3 * length + (3 + 2 + 1) * width * length for length, width in zip((25, 8), cells, strict=True)
    )
    assert not any("forward" in vars(block) or block._forward_hooks for block in blocks(model))


def test_a_head_that_is_more_than_a_matrix_is_refused() -> None:
    model = model_of("smollm3")
    model.lm_head.register_forward_hook(lambda _module, _args, logits: logits + logits.roll(1, -1))
    assert head_of(model).factor == 1.0, "a head's own hooks are the head"
    other = model_of("smollm3")
    other.register_forward_hook(lambda _module, _args, output: output.__setitem__("logits", output.logits.sin()))
    with pytest.raises(Unmeasurable, match="the logits are not the head's matrix"):
        head_of(other)


@pytest.mark.parametrize("mixes", ["attention", "nothing"])
def test_attention_and_mlp_are_told_apart_by_what_they_look_at(mixes: str) -> None:
    """Not by their names: exchanged, they are still known; and where no write mixes tokens that is said."""
    model: Any = model_of("smollm3")
    block = blocks(model)[-1]
    if mixes == "nothing":
        block.self_attn.register_forward_hook(
            lambda _module, _args, more, output: (more["hidden_states"], *output[1:]), with_kwargs=True
        )
        with pytest.raises(Unmeasurable, match="the last block has 2 writes that look at their own token alone"):
            ending_of(model)
    else:
        block.mlp.register_forward_hook(lambda _module, _args, output: output.cumsum(1))
        assert mixing(model, 3) == [True, True]
        with pytest.raises(Unmeasurable, match="the last block has 0 writes that look at their own token alone"):
            ending_of(model)


def test_experts_that_drop_tokens_by_their_batch_are_caught() -> None:
    """Tokens beyond a batch's capacity get nothing: a prompt's answer then depends on its batch mates."""
    model = model_of("gpt_oss")

    def dropped(states: torch.Tensor) -> torch.Tensor:
        """A capacity of 30 tokens a batch, which no prompt has alone."""
        flat = states.flatten(0, -2).clone()
        flat[30:] = 0
        return flat.view_as(states)

    self_check(model, prompts())
    for block in blocks(model):
        block.mlp.register_forward_hook(lambda _module, _args, output: (dropped(output[0]), *output[1:]))
    with pytest.raises(Unmeasurable, match="differs between a padded batch and one prompt"):
        self_check(model, prompts())
