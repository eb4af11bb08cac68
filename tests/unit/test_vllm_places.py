"""Blocks and writes found inside vLLM's models: on real blocks of transformers, called the ways in which vLLM calls its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_model

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.batched import acting
from mechdrift.engine.generate.vllm_generator import arm_request
from mechdrift.engine.generate.vllm_model import intervene
from mechdrift.engine.generate.vllm_places import blocks_of, write_of
from mechdrift.engine.steer import ablating
from mechdrift.engine.weights.orthogonal import without
from mechdrift.models.families import FAMILIES
from mechdrift.models.structure import structure_of

UNIT = np.random.default_rng(0).standard_normal(32).astype("f4")
UNIT /= np.linalg.norm(UNIT)
ARMS = [Arm("ablated", Ablated(UNIT)), Arm("added", Added(UNIT, 1, 4.0))]
IDS = torch.arange(1, 12)[None] * 7 % 258
SAME = 1e-5  # of logits of size 1 to 10, in float32, whose sums round in another order

# Not in the table; granite multiplies what it adds, glm4 has norms after it, cohere adds both at once, the last is a hybrid.
UNLISTED: dict[str, dict[str, Any]] = {
    "cohere": {},
    "glm4": {"head_dim": 8},
    "granite": {"residual_multiplier": 0.22, "embedding_multiplier": 12.0},
    "qwen3_5_text": {"head_dim": 8, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    "smollm3": {},
}


@pytest.fixture
def checkpoint(tiny_checkpoint: Callable[..., Path]) -> Checkpoint:
    return resolve(str(tiny_checkpoint()))


def request(model: Any, checkpoint: Checkpoint, arm: Arm, **other: Any) -> dict[str, Any]:
    """What vLLM's processes are asked for, by hooks."""
    writes = [block.names for block in structure_of(model).blocks]
    return arm_request(checkpoint, arm, writes, hooks=True) | {"last": []} | other


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits[0]
    return found


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
@pytest.mark.parametrize("family", UNLISTED)
def test_families_that_no_table_has_do_in_vllm_what_they_do_in_transformers(
    checkpoint: Checkpoint, family: str, arm: Arm
) -> None:
    """On transformers' own code, by which vLLM runs what it has no code of its own for."""
    assert family not in FAMILIES
    model = tiny_model(family, **UNLISTED[family])
    plain = logits(model)
    with acting(model, arm):
        expected = logits(model)
    assert intervene(model, request(model, checkpoint, arm)) == "hooks"
    assert torch.allclose(logits(model), expected, atol=SAME, rtol=SAME)
    assert not torch.allclose(plain, expected, atol=1e-2)
    assert intervene(model, {"direction": None}) == ""
    assert torch.equal(logits(model), plain)


class Fused(torch.nn.Module):  # type: ignore[misc]
    """A block of transformers that is called as most of vLLM's are: it gives what its MLP wrote, and the stream before that."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        for name, child in block.named_children():
            setattr(self, name, child)

    def forward(self, positions: Any, hidden_states: Any, residual: Any, **more: Any) -> Any:
        """As vLLM calls it."""
        residual = hidden_states if residual is None else residual + hidden_states
        residual = residual + self.self_attn(self.input_layernorm(residual), **more)[0]
        return self.mlp(self.post_attention_layernorm(residual)), residual


class Engine(torch.nn.Module):  # type: ignore[misc]
    """A tiny Llama of such blocks, beside lists that are as long and are no blocks."""

    def __init__(self) -> None:
        super().__init__()
        own = tiny_model("llama")
        self.lm_head, self.tower = own.lm_head, torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
        self.model = torch.nn.Module()
        self.model.embed_tokens, self.model.norm, self.model.rotary_emb = (
            getattr(own.model, name) for name in ("embed_tokens", "norm", "rotary_emb")
        )
        self.model.layers = torch.nn.ModuleList(Fused(block) for block in own.model.layers)
        self.model.layers[1].mlp.experts = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(3))

    def forward(self, input_ids: Any, **_more: Any) -> Any:
        """As a model of transformers is called."""
        positions = torch.arange(input_ids.shape[1])[None]
        states, residual = self.model.embed_tokens(input_ids), None
        more = {"position_embeddings": self.model.rotary_emb(states, positions), "attention_mask": None}
        for block in self.model.layers:
            states, residual = block(positions=positions, hidden_states=states, residual=residual, **more)
        return type("Output", (), {"logits": self.lm_head(self.model.norm(states + residual))})()


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_what_a_block_passes_on_apart_is_one_stream(checkpoint: Checkpoint, arm: Arm) -> None:
    own, engine = tiny_model("llama"), Engine()
    assert torch.allclose(logits(engine), logits(own), atol=SAME, rtol=SAME)
    with acting(own, arm):
        expected = logits(own)
    intervene(engine, request(own, checkpoint, arm))
    assert torch.allclose(logits(engine), expected, atol=SAME, rtol=SAME)


def test_hooks_on_block_outputs_alone_would_be_another_intervention() -> None:
    """A block's MLP reads what its attention wrote: so an ablation hooks each write, or is refused."""
    model = tiny_model("granite", **UNLISTED["granite"])
    with acting(model, ARMS[0]):
        expected = logits(model)
    with ablating(model, torch.tensor(UNIT), range(3)):
        model.model.layers[0].register_forward_pre_hook(lambda _m, args: (without(args[0], torch.tensor(UNIT), -1), *args[1:]))
        assert not torch.allclose(logits(model), expected, atol=1e-2)


def test_the_blocks_are_neither_experts_nor_an_image_tower() -> None:
    engine = Engine()
    holder, found = blocks_of(engine, 3)
    assert holder is engine.model
    assert found == list(engine.model.layers)
    wrapped = torch.nn.Module()
    wrapped.tower, wrapped.text = torch.nn.ModuleList(torch.nn.Linear(999, 99) for _ in range(3)), engine
    wrapped.get_language_model = lambda: engine  # as vLLM's models that read more than text have it
    assert blocks_of(wrapped, 3)[1] == found


def test_a_depth_that_no_list_has_is_refused_with_the_lengths_there_are() -> None:
    with pytest.raises(RuntimeError, match=r"no list of 7 blocks; its lists have \[3\] entries"):
        blocks_of(Engine(), 7)


def test_modules_are_found_under_vllms_other_names_or_refused_by_name() -> None:
    block = torch.nn.Module()
    block.attn = torch.nn.Linear(4, 4)
    block.block_sparse_moe = torch.nn.Sequential(torch.nn.Linear(4, 4))
    assert write_of(block, "self_attn") is block.attn
    assert write_of(block, "mlp.0") is block.block_sparse_moe[0]
    with pytest.raises(RuntimeError, match=r"no 'conv', which writes .* they have attn, block_sparse_moe"):
        write_of(block, "conv")


class PPMissingLayer(torch.nn.Identity):  # type: ignore[misc]
    """What vLLM has in the place of a block of another process."""


def test_a_process_acts_on_its_own_blocks_of_a_pipeline(checkpoint: Checkpoint) -> None:
    model = tiny_model("smollm3")
    asked = [request(model, checkpoint, arm) for arm in ARMS]
    model.model.layers[1] = PPMissingLayer()
    for one, hooked in zip(asked, (5, 1), strict=True):  # what enters, and two writes in each of two blocks
        assert intervene(model, one) == "hooks"
        assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == hooked
