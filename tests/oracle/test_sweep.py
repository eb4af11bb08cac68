"""Activation patching: the fast way against whole forwards on every family, and those against the outside."""

from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import VARIANTS, tiny_model

from mechdrift.engine import sweep as engine
from mechdrift.engine.packed import packed_attention
from mechdrift.engine.recording import record_blocks, record_columns
from mechdrift.engine.selfcheck import tolerance_of
from mechdrift.engine.sweep import Pairs, bytes_per_token, sweep
from mechdrift.engine.sweep_naive import _patched, check_sweep, difference, sweep_naive
from mechdrift.errors import Unmeasurable
from mechdrift.models.families import FAMILIES
from mechdrift.models.sites import blocks

# As a share of the largest value, in float32: sums round in another order, at most 6.3e-7 seen over the families; the rest is
# room for the pairs that hypothesis finds. A wrong token, layer or mask is off by .01 and more.
CLOSE = 1e-5


def case(*shapes: tuple[int, int], seed: int = 0, same: int = 0) -> Pairs:
    """Pairs of random tokens, each of a length and a first token; beyond that so many more are the same."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(2, 258, (count,), generator=generator).tolist()

    corrupt = [tokens(length) for length, _ in shapes]
    clean = [
        prompt[: start + same] + tokens(max(0, len(prompt) - start - same))
        for prompt, (_, start) in zip(corrupt, shapes, strict=True)
    ]
    answers = [(tokens(1)[0], tokens(1)[0]) for _ in shapes]
    return Pairs(corrupt, clean, answers, [start for _, start in shapes])


MIXED = case((9, 4), (7, 6), (9, 3), (12, 0))


@cache
def model_of(family: str, seed: int = 0) -> Any:
    return tiny_model(family, seed)


def widths(pairs: Pairs) -> list[int]:
    """Tokens that are swept, pair by pair."""
    return [pairs.width(pair) for pair in range(len(pairs.corrupt))]


def assert_same(found: Any, expected: Any, share: float = CLOSE) -> None:
    for name in ("patched", "clean", "corrupt"):
        wanted = getattr(expected, name)
        largest = float(wanted[~wanted.isnan()].abs().max())
        torch.testing.assert_close(getattr(found, name), wanted, rtol=0, atol=share * max(1.0, largest), equal_nan=True)


shapes = st.lists(
    st.integers(1, 12).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length - 1))), min_size=1, max_size=4
)


@pytest.mark.parametrize("family", VARIANTS)
@settings(max_examples=8)
@given(
    shapes=shapes,
    seed=st.integers(0, 99),
    same=st.sampled_from([0, 0, 1, 4]),
    across=st.booleans(),
    room=st.sampled_from([1, 60, 10**6]),
)
def test_fast_equals_naive(family: str, shapes: list[tuple[int, int]], seed: int, same: int, across: bool, room: int) -> None:
    """Whatever the lengths, the first tokens, the batch and the budget; with the model's own activations or another's.

    Also where sweeping begins before the prompts differ.
    """
    model, pairs = model_of(family), case(*shapes, seed=seed, same=same)
    source = record_columns(model_of(family, 5), pairs.clean, pairs.first) if across else None
    budget = room * bytes_per_token(model, max(map(len, pairs.corrupt)))
    assert_same(sweep(model, pairs, budget_bytes=budget, source=source), sweep_naive(model, pairs, source=source))


def test_columns_before_the_first_token_that_differs_are_not_run_unless_another_models_are_patched_in() -> None:
    """Only the columns from there on are cells; the rest is the corrupt prompt's value to the bit."""
    model, late, early = model_of("llama"), MIXED, replace(MIXED, first=[2, 4, 1, 0])
    found, expected = sweep(model, early), sweep(model, late)
    assert (found.cells, found.tokens) == (expected.cells, expected.tokens)
    for pair, before in enumerate((2, 2, 2, 0)):
        assert (found.patched[pair, :, :before] == found.corrupt[pair]).all()
        width = widths(late)[pair]
        torch.testing.assert_close(found.patched[pair, :, before : before + width], expected.patched[pair, :, :width])
        assert found.patched[pair, :, before + width :].isnan().all()
    source = record_columns(model_of("llama", 5), early.clean, early.first)
    across = sweep(model, early, source=source)
    assert across.cells == sum(2 * width + 1 for width in widths(early))
    assert (across.patched[0, :2, :2] - across.corrupt[0]).abs().min() > 1e-4


@pytest.mark.parametrize("family", VARIANTS)
def test_the_check_passes_on_every_family(family: str) -> None:
    model = model_of(family)
    assert check_sweep(model, MIXED) <= tolerance_of(model) / 10


def test_nothing_is_left_on_the_model() -> None:
    model = tiny_model("gemma2")
    ids = torch.tensor([MIXED.corrupt[0]])
    attention, before = model.config._attn_implementation, model(ids).logits
    sweep(model, MIXED)
    assert model.config._attn_implementation == attention
    assert all("forward" not in vars(block.mlp) and not block._forward_hooks for block in blocks(model))
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", [name for name in VARIANTS if not FAMILIES[name.partition("-")[0]].experts])
def test_half_precision_within_the_tolerance_of_the_self_check(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype)
    assert check_sweep(model, MIXED) <= tolerance_of(model)


@pytest.mark.parametrize("family", VARIANTS)
@pytest.mark.parametrize("way", [sweep, sweep_naive])
def test_what_the_ends_must_be(family: str, way: Any) -> None:
    """Clean and corrupt from the model's own logits; the last block's last token is all that the logits see."""
    model = model_of(family)
    found = way(model, MIXED)
    for pair, (correct, other) in enumerate(MIXED.answers):
        for prompt, value in ((MIXED.clean[pair], found.clean[pair]), (MIXED.corrupt[pair], found.corrupt[pair])):
            logits = model(torch.tensor([prompt])).logits[0, -1].detach()
            assert float(value) == pytest.approx(float(logits[correct] - logits[other]), abs=1e-4)
        width = widths(MIXED)[pair]
        last = found.patched[pair, -1, :width]
        assert float(last[-1]) == pytest.approx(float(found.clean[pair]), abs=1e-4)
        torch.testing.assert_close(last[:-1], found.corrupt[pair].expand(width - 1), rtol=0, atol=1e-4)
        assert found.patched[pair, :, width:].isnan().all()
        assert not found.patched[pair, :, :width].isnan().any()


@pytest.mark.parametrize("way", [sweep, sweep_naive])
def test_a_prompt_patched_with_itself_changes_nothing_and_one_that_differs_does(way: Any) -> None:
    model = model_of("llama")
    same = way(model, replace(MIXED, clean=MIXED.corrupt))
    swept = ~same.patched.isnan()
    torch.testing.assert_close(same.patched[swept], same.corrupt[:, None, None].expand_as(same.patched)[swept], rtol=0, atol=1e-4)
    torch.testing.assert_close(same.clean, same.corrupt, rtol=0, atol=1e-4)
    other = way(model, MIXED)
    assert (other.patched[0, 0, :5] - other.corrupt[0]).abs().min() > 1e-3


def test_all_columns_of_a_block_together_give_the_clean_prompt() -> None:
    """The naive way's own hooks, against the clean prompt as it is: every swept token of a block replaced at once."""
    model, pair = model_of("llama"), 0
    given = record_columns(model, MIXED.clean, MIXED.first)[pair]
    expected = sweep_naive(model, MIXED).clean[pair]
    for layer in range(3):
        with torch.inference_mode(), ExitStack() as stack:
            for column in range(widths(MIXED)[pair]):
                stack.enter_context(_patched(model, [(layer, column)], MIXED.first[pair], given))
            found = difference(model, [MIXED.corrupt[pair]], MIXED.answers[pair])
        assert float(found[0]) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.filterwarnings("default")  # nnsight's own dependencies warn
def test_cells_equal_nnsight() -> None:
    from nnsight import NNsight

    model, pair = tiny_model("llama"), 2
    found = sweep(model, MIXED)
    traced = NNsight(model)
    clean, corrupt = torch.tensor([MIXED.clean[pair]]), torch.tensor([MIXED.corrupt[pair]])
    correct, other = MIXED.answers[pair]
    for layer, column in ((0, 0), (0, 3), (1, 2), (1, 5), (2, 5)):
        at = MIXED.first[pair] + column
        with torch.no_grad():
            with traced.trace(clean):
                state = traced.model.layers[layer].output[0, at].save()
            with traced.trace(corrupt):
                traced.model.layers[layer].output[0, at] = state
                logits = traced.output.logits.save()
        expected = float(logits[0, -1, correct] - logits[0, -1, other])
        assert float(found.patched[pair, layer, column]) == pytest.approx(expected, abs=1e-4)


def test_columns_are_the_recorded_blocks() -> None:
    model = model_of("gpt2")
    columns = record_columns(model, MIXED.clean, MIXED.first, batch_tokens=20)
    for column in range(3):
        rows = [pair for pair, width in enumerate(widths(MIXED)) if column < width]
        places = [MIXED.first[pair] + column for pair in rows]
        expected = record_blocks(model, [MIXED.clean[pair] for pair in rows], places, 10**6)
        torch.testing.assert_close(columns[rows, :, column], expected, rtol=1e-5, atol=1e-5)
    assert not columns[1, :, 1:].any()


def least_tokens(pairs: Pairs, depth: int) -> int:
    """docs/design/sweep.md: both prompts in every block, and in block m the cells of the m blocks before."""
    return sum(
        depth * (len(prompt) + width) + depth * (depth - 1) // 2 * (width * (width + 1) // 2)
        for prompt, width in zip(pairs.corrupt, widths(pairs), strict=True)
    )


def test_cost_is_as_documented_and_grows_with_a_small_budget_only_by_the_prompts() -> None:
    model = model_of("llama")
    ample = sweep(model, MIXED)
    cells = sum(2 * width + 1 for width in widths(MIXED))
    assert (ample.cells, ample.tokens) == (cells, least_tokens(MIXED, 3))
    tight = sweep(model, MIXED, budget_bytes=1)  # one column of one pair a pass
    again = sum(3 * (width - 1) * (len(prompt) + width) for prompt, width in zip(MIXED.corrupt, widths(MIXED), strict=True))
    assert (tight.cells, tight.tokens) == (cells, least_tokens(MIXED, 3) + again)
    assert_same(tight, ample)
    naive = sweep_naive(model, MIXED)
    assert naive.cells == sum(3 * width for width in widths(MIXED))


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
@pytest.mark.parametrize("count", [2, 8])
def test_memory_stays_within_the_budget_whatever_the_number_of_pairs(family: str, count: int) -> None:
    """What torch itself says it took and gave back."""
    model, pairs, budget = tiny_model(family), case(*[(40, 20)] * count), 1 << 20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        sweep(model, pairs, budget_bytes=budget)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    assert budget / 10 < held.max() <= budget


def test_progress_counts_pairs() -> None:
    ways: tuple[Any, ...] = (sweep, sweep_naive)
    for way in ways:
        result: list[tuple[int, int]] = []
        way(model_of("llama"), MIXED, progress=lambda done, total, result=result: result.append((done, total)), budget_bytes=1)
        assert result[-1] == (4, 4)


def test_the_check_sees_attention_that_is_not_what_the_packing_takes_it_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that the family's masks have and its attention is not told of."""
    model = tiny_model("mistral")
    monkeypatch.setattr(engine, "packed_attention", without_window)
    assert check_sweep(model, MIXED) > tolerance_of(model)


def without_window(model: Any, packing: Any) -> Any:
    seen = packing.mask
    packing.mask = lambda group, before, _window, device: seen(group, before, None, device)
    return packed_attention(model, packing)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corrupt": [], "clean": [], "answers": [], "first": []}, "no pairs"),
        ({"answers": [(1, 2)]}, "not as many"),
        ({"clean": [[1], *MIXED.clean[1:]]}, "pair 0: 9 tokens against 1"),
        ({"first": [9, 6, 3, 0]}, "pair 0: first token 9 of 9"),
        ({"clean": [[1, *MIXED.clean[0][1:]], *MIXED.clean[1:]]}, "pair 0: its prompts differ before token 4"),
    ],
)
def test_pairs_that_cannot_be_swept_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(Unmeasurable, match=message):
        replace(MIXED, **changed)


@pytest.mark.parametrize("way", [sweep, sweep_naive])
def test_activations_of_another_width_are_refused(way: Any) -> None:
    with pytest.raises(Unmeasurable, match=r"activations of shape .* cannot be patched"):
        way(model_of("llama"), MIXED, source=torch.zeros(4, 3, 12, 16))
