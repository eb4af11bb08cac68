"""Replies that think first: which go on, for how long, and in how many rounds."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.thinking import FOLLOWED, FURTHER, Budget, GoingOn, Thought, in_rounds
from mechdrift.prompts.thoughts import shipped_markers

PLAIN = Arm("plain")
TOKENIZER = tiny_tokenizer()
ROOM = 10_000


def spelled(text: str) -> list[int]:
    """The tokens of a text: bytes."""
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


class Script:
    """A model whose replies are written down: it goes on wherever it is stopped."""

    def __init__(self, texts: Sequence[str]) -> None:
        """By the first token of the prompt."""
        self.wholes = [spelled(text) for text in texts]
        self.prompts = [[number] for number in range(len(texts))]
        self.rounds: list[tuple[int, int]] = []

    def __call__(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """The next tokens of each, and how many were asked for how long."""
        self.rounds.append((len(prompts), tokens))
        for prompt in prompts:
            assert list(prompt[1:]) == self.wholes[prompt[0]][: len(prompt) - 1]
        return [self.wholes[prompt[0]][len(prompt) - 1 :][:tokens] for prompt in prompts]


def made(
    texts: Sequence[str], budget: Budget, inside: bool = False, room: int = ROOM, arm: Arm = PLAIN
) -> tuple[list[tuple[str, Thought]], list[tuple[int, int]]]:
    """Each reply as it is read, with its thought; and the rounds."""
    script = Script(texts)
    going_on = GoingOn(TOKENIZER, shipped_markers(), [inside] * len(texts), [room] * len(texts), budget)
    replies = in_rounds(script, arm, script.prompts, budget.first, going_on)
    read = [going_on.within(arm, place, reply) for place, reply in enumerate(replies)]
    return [(TOKENIZER.decode(reply), thought) for reply, thought in read], script.rounds


def thought_of(length: int) -> str:
    """A think block of so many tokens."""
    return "<think>" + "m" * (length - 15) + "</think>"


def test_what_does_not_think_has_one_round() -> None:
    found, rounds = made(["Sure, here you are.", "x" * 100, ""], Budget(16, 1000))
    assert found == [("Sure, here you a", Thought()), ("x" * 16, Thought()), ("", Thought())]
    assert rounds == [(3, 16)]


def test_only_replies_still_thinking_go_on() -> None:
    """Three of four replies think; the one that is over within the first round has the rest of its answer in the second."""
    texts = ["Sure.", thought_of(20) + "y" * 50, thought_of(40) + "y" * 50, thought_of(200) + "y" * 50]
    found, rounds = made(texts, Budget(32, 1000))
    assert [thought for _, thought in found] == [Thought(), *(Thought(n, "closed") for n in (20, 40, 200))]
    assert [text for text, _ in found] == ["Sure.", *(text[: len(text) - 50 + 32] for text in texts[1:])]
    # All 32; then the second 20 for the rest of its answer, the others, which still think, 32; then the third 8, the fourth 64;
    # then that 128, which are all of its thought and answer.
    assert rounds == [(4, 32), (3, 32), (2, 64), (1, 128)]


def test_a_prompt_that_ends_within_a_thought() -> None:
    found, _ = made(["Hmm.</think>Sure.", "m" * 100 + "</think>Sure.", "It stops here"], Budget(16, 1000), inside=True)
    assert found == [
        ("Hmm.</think>Sure.", Thought(12, "closed")),
        ("m" * 100 + "</think>Sure.", Thought(108, "closed")),
        ("It stops here", Thought(13, "inside")),
    ]


def test_a_budget_that_is_spent_is_said_with_what_would_have_done() -> None:
    """More than a tenth are cut: a few are followed, for the figure alone. They stay unfinished."""
    texts = [thought_of(300) + "Sure."] * 20
    found, rounds = made(texts, Budget(16, 128))
    assert [(len(text), thought.end) for text, thought in found] == [(128, "late")] * FOLLOWED + [(128, "cut")] * (20 - FOLLOWED)
    assert {thought.tokens for _, thought in found} == {300, 128}
    assert max(count for count, tokens in rounds[4:]) == FOLLOWED
    endless, rounds = made(["<think>" + "m" * 10_000], Budget(16, 128))
    assert endless[0][1] == Thought(FURTHER * 128, "cut")
    assert sum(tokens for _, tokens in rounds) == FURTHER * 128


def test_few_that_are_cut_are_not_followed() -> None:
    found, rounds = made([thought_of(300) + "Sure."] + ["Sure."] * 10, Budget(16, 128))
    assert found[0][1] == Thought(128, "cut")
    assert rounds == [(11, 16), (1, 16), (1, 32), (1, 64)]


def test_a_thought_that_ended_late_within_a_round_is_late() -> None:
    """A budget below the answer's: what was written anyway is looked at, and counts by the budget."""
    found, _ = made([thought_of(40) + "Sure."] * 3, Budget(64, 32))
    assert {thought for _, thought in found} == {Thought(40, "late")}


@pytest.mark.parametrize(("arm", "budget"), [(Arm("plain", thinks=False), Budget(16, 1000)), (PLAIN, Budget(16, 0))])
def test_no_reply_goes_on_where_none_is_to_think(arm: Arm, budget: Budget) -> None:
    found, rounds = made([thought_of(40) + "Sure."], budget, arm=arm)
    assert found[0][1] == Thought(16, "cut")
    assert rounds == [(1, 16)]


def test_a_context_that_is_full_ends_a_thought() -> None:
    found, rounds = made([thought_of(900) + "Sure."] * 2, Budget(16, 1000), room=100)
    assert [thought for _, thought in found] == [Thought(100, "cut")] * 2
    assert sum(tokens for _, tokens in rounds) == 100


@given(
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 40)), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(1, 100),
)
def test_what_is_read_is_what_one_long_reply_says(lengths: list[tuple[int, int]], reply: int, thinking: int) -> None:
    """Of every length of thought and answer: within the budget as much as is to be, beyond it nothing."""
    texts = [(thought_of(15 + length) if length else "") + "y" * answer for length, answer in lengths]
    found, _ = made(texts, Budget(reply, thinking))
    for (text, thought), (length, answer), whole in zip(found, lengths, texts, strict=True):
        if not length:
            assert (text, thought) == (whole[:reply], Thought())
        elif 15 + length <= thinking:
            assert (text, thought) == (whole[: 15 + length + min(reply, answer)], Thought(15 + length, "closed"))
        else:
            assert thought.end in ("late", "cut")
            assert not thought.over


def test_rounds_are_the_greedy_reply_of_one_piece(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A model's own reply, cut and given again as a prompt, goes on as it would have."""
    from mechdrift.checkpoints.resolve import resolve
    from mechdrift.engine.generate.batched import TransformersGenerator
    from mechdrift.engine.pool import Pool
    from mechdrift.engine.store import Store
    from mechdrift.engine.stored_recordings import Recorder

    class Always(GoingOn):
        def more(self, arm: Arm, replies: Sequence[Sequence[int]], ended: Sequence[bool]) -> dict[int, int]:
            return {place: 3 for place, reply in enumerate(replies) if not ended[place] and len(reply) < 20}

    generator = TransformersGenerator(Recorder(Pool("cpu", "float32"), Store(tmp_path), 64))
    point, prompts = resolve(str(tiny_checkpoint())), [[0, 5, 9], [0, 7], [0, 3, 4, 6, 8]]
    whole = generator.replies(point, prompts, [PLAIN], 20)["plain"]
    always = Always(TOKENIZER, shipped_markers(), [False] * 3, [ROOM] * 3, Budget())
    assert generator.replies(point, prompts, [PLAIN], 5, always)["plain"] == whole
    assert isinstance(whole, list)
    assert any(len(reply) == 20 for reply in whole)
