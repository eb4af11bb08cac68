"""Recordings against transformers itself, on random models of every family."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from tiny import VARIANTS, tiny_model

from mechdrift.engine.batches import batches_by_length
from mechdrift.engine.recording import Edit, record_blocks, record_columns, record_last_mlp, record_logits, record_under
from mechdrift.engine.selfcheck import self_check
from mechdrift.engine.steer import adding
from mechdrift.errors import Unmeasurable
from mechdrift.models.sites import blocks, final_norm

PROMPTS = [[0, 5, 9, 200, 31], [0, 7], [0, 100, 101, 102, 103, 104, 105, 106], [0, 5, 9, 200, 32], [0, 44, 45]]
POSITIONS = [4, 1, 3, 2, 0]
# float32: a batch of another shape sums in another order; observed 9e-6 at values up to 17.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
SHARED = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


@pytest.mark.parametrize("batch_tokens", [1, 16, 10**6])
def test_blocks_equal_hidden_states(model: Any, batch_tokens: int) -> None:
    """All entries of hidden_states but the last are block outputs; the last has gone through the final norm."""
    recorded = record_blocks(model, PROMPTS, POSITIONS, batch_tokens)
    assert recorded.shape == (5, 3, 32)
    for row, (prompt, position) in enumerate(zip(PROMPTS, POSITIONS, strict=True)):
        with torch.inference_mode():
            states = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
            expected = [state[0, position] for state in states[1:]]
            found = [*recorded[row, :-1], final_norm(model)(recorded[row, -1])]
        for layer in range(3):
            torch.testing.assert_close(found[layer], expected[layer], **TOLERANCE)
        assert not torch.allclose(recorded[row, -1], expected[-1], rtol=0.01), "the last block's output is not after the norm"


@pytest.mark.parametrize("batch_tokens", [1, 16, 10**6])
def test_logits_equal_the_full_forward(model: Any, batch_tokens: int) -> None:
    tokens = [(3, 4), (5, 6), (7, 8), (9, 10), (11, 12)]
    recorded = record_logits(model, PROMPTS, tokens, batch_tokens)
    for row, prompt in enumerate(PROMPTS):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt])).logits[0, -1]
        torch.testing.assert_close(recorded[row, :2], logits[list(tokens[row])], **TOLERANCE)
        torch.testing.assert_close(recorded[row, 2], logits.logsumexp(0), **TOLERANCE)


@pytest.fixture(scope="module")
def few_shot() -> list[list[int]]:
    """Two beginnings, of 20 and 17 tokens, with ends of several lengths, and a prompt that begins like no other."""
    draw = torch.Generator().manual_seed(0)
    starts = [[0, *torch.randint(2, 258, (size,), generator=draw).tolist()] for size in (19, 16)]
    ends = [torch.randint(2, 258, (size,), generator=draw).tolist() for size in (1, 4, 7, 2, 2, 9)]
    return [*(starts[number % 2] + end for number, end in enumerate(ends)), [0, 9, 9, 9]]


@pytest.mark.parametrize("batch_tokens", [1, 60, 10**6])
def test_a_shared_beginning_equals_whole_prompts_one_at_a_time(model: Any, few_shot: list[list[int]], batch_tokens: int) -> None:
    """Blocks, columns, what enters the final norm, and logits; a router may choose another expert where two are almost alike."""
    lasts = [len(prompt) - 1 for prompt in few_shot]
    first = [max(0, last - 1) for last in lasts]
    tokens = [(3, 4)] * len(few_shot)
    blocks_ = record_blocks(model, few_shot, first, batch_tokens, share=True)
    columns = record_columns(model, few_shot, first, batch_tokens, share=True)
    entered = record_last_mlp(model, few_shot, first, (), batch_tokens, share=True)
    logits = record_logits(model, few_shot, tokens, batch_tokens, share=True)
    for row, prompt in enumerate(few_shot):
        with torch.inference_mode():
            found = model(torch.tensor([prompt]), output_hidden_states=True, use_cache=False)
        states = torch.stack([state[0] for state in found.hidden_states[1:-1]])
        torch.testing.assert_close(blocks_[row, :-1], states[:, first[row]], **SHARED)
        torch.testing.assert_close(columns[row, :-1, : lasts[row] - first[row] + 1], states[:, first[row] :], **SHARED)
        normed = final_norm(model)(columns[row, -1, lasts[row] - first[row]])
        torch.testing.assert_close(normed, found.hidden_states[-1][0, -1], **SHARED)
        torch.testing.assert_close(
            entered[row, lasts[row] - first[row], :32], columns[row, -1, lasts[row] - first[row]], **SHARED
        )
        torch.testing.assert_close(logits[row, :2], found.logits[0, -1, [3, 4]], **SHARED)


def test_what_is_shared_goes_through_the_model_once(few_shot: list[list[int]]) -> None:
    """Counted at the embedding: two beginnings and seven ends."""
    model, seen = tiny_model("llama"), []
    model.get_input_embeddings().register_forward_hook(lambda _m, args, _o: seen.append(args[0].numel()))
    record_logits(model, few_shot, [(3, 4)] * len(few_shot), 10**6, share=True)
    ends = 6 * 9  # padded to the longest
    assert sum(seen) == 4 + 2 * 20 + ends < sum(map(len, few_shot))


def test_hooks_come_off_even_after_an_error(model: Any) -> None:
    with pytest.raises(IndexError):
        record_blocks(model, [[0, 10**6]], [1], 16)
    assert not any(layer._forward_hooks for layer in blocks(model))


def test_batches_hold_every_prompt_once_within_the_bound() -> None:
    lengths = [5, 2, 8, 5, 3, 40]
    batches = batches_by_length(lengths, 16)
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 16 or len(batch) == 1 for batch in batches)


def test_self_check_passes(model: Any) -> None:
    self_check(model, PROMPTS)


@pytest.mark.parametrize("layer", [0, 2])
def test_self_check_names_a_block_that_is_not_what_it_seems(model: Any, layer: int) -> None:
    """A block whose output is scaled, as in families with residual multipliers, breaks the residual identity."""
    block = blocks(model)[layer]
    block.register_forward_hook(lambda _m, _i, output: output * 1.01)
    with pytest.raises(Unmeasurable, match=f"block {layer} is not its input plus what attention and MLP write"):
        self_check(model, PROMPTS)


def test_self_check_notices_padding_that_leaks(model: Any) -> None:
    """A model that looks at the padding: its batched outputs are not those of single prompts."""
    embedding = model.get_input_embeddings()
    embedding.register_forward_hook(lambda _m, _i, output: output + output.mean(1, keepdim=True))
    with pytest.raises(Unmeasurable, match="differs between a padded batch and one prompt"):
        self_check(model, PROMPTS)


def test_self_check_notices_nan(model: Any) -> None:
    block = blocks(model)[1]
    block.mlp.register_forward_hook(lambda _m, _i, output: output * float("nan"))
    with pytest.raises(Unmeasurable, match=r"block 1 is not finite in torch\.float32"):
        self_check(model, PROMPTS)


@pytest.mark.parametrize("batch_tokens", [1, 16, 10**6])
def test_one_prefix_for_many_interventions_equals_whole_forwards(model: Any, batch_tokens: int) -> None:
    """Each intervention by itself, on the whole prompt, one at a time, without cache or padding."""
    prompts = PROMPTS[:1] + PROMPTS[2:]
    tokens = [(3, 4)] * len(prompts)
    positions = [[2, 3], [4, 6], [0, 3], [1]]  # the fourth prompt is shorter than what follows the first edit of the third
    shifts = torch.randn(2, len(prompts), 32)

    def edit(number: int) -> Edit:
        def on(model: Any, batch: list[int], before: list[int]) -> AbstractContextManager[None]:
            places = [[place - left for place in positions[i]] for i, left in zip(batch, before, strict=True)]
            return adding(model, [0, 1], shifts[number][batch], places)

        return on

    first = [min(places) for places in positions]
    found = record_under(model, prompts, tokens, [edit(0), edit(1)], first, batch_tokens)
    plain = record_logits(model, prompts, tokens, 10**6)
    for number in range(2):
        for row, prompt in enumerate(prompts):
            with torch.inference_mode(), adding(model, [0, 1], shifts[number][row][None], [positions[row]]):
                logits = model(torch.tensor([prompt]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(found[number, row, :2], logits[[3, 4]], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[number, row, 2], logits.logsumexp(0), rtol=1e-4, atol=1e-4)
        assert (found[number] - plain).abs().max() > 0.1, "the intervention changed something"
