"""Scores of replies: found once, kept without their text, told apart by arm."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from said import OUTCOMES_SAID, PROMPTS, SAID, Written

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.generate.arms import Ablated, Arm
from mechdrift.engine.generate.scored import Reply, Scored, scored_replies
from mechdrift.engine.generate.thinking import Budget
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.prompts.replies import OUTCOMES

EXPECTED = OUTCOMES_SAID
LONG = Budget(400)
AT_ONCE = [False] * len(PROMPTS)
DIRECTION = np.eye(32, dtype=np.float32)[0]


ARMS = [Arm("plain"), Arm("untold", Ablated(DIRECTION)), Arm("some", Ablated(-DIRECTION), (2, 0))]


@pytest.fixture
def point(tiny_checkpoint: Callable[..., Path]) -> Checkpoint:
    return resolve(str(tiny_checkpoint()))


def test_scores_are_found_once_and_no_text_is_kept(point: Checkpoint, tmp_path: Path) -> None:
    for attempt in range(2):
        arms = [ARMS[0], ARMS[2]]
        recorder = Recorder(Pool("cpu", "float32"), Store(tmp_path), 96)
        generator = Written(recorder)
        found = scored_replies(recorder, generator, point, PROMPTS, AT_ONCE, arms, LONG)
        plain, some = found["plain"], found["some"]
        assert isinstance(plain, Scored)
        assert isinstance(some, Scored)
        assert [OUTCOMES[code] for code in plain.outcomes] == EXPECTED
        assert [OUTCOMES[code] for code in some.outcomes] == [EXPECTED[2], EXPECTED[0]]
        assert len(set(plain.hashes.tolist())) == len(SAID)
        assert some.hashes.tolist() == [plain.hashes[2], plain.hashes[0]]
        assert plain.digest != some.digest
        assert generator.requested == ([] if attempt else ["plain", "some"])
    assert all(b"sorry" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_an_arm_that_cannot_be_told_keeps_its_reason_and_is_asked_again(point: Checkpoint, tmp_path: Path) -> None:
    for _ in range(2):
        recorder = Recorder(Pool("cpu", "float32"), Store(tmp_path), 96)
        generator = Written(recorder)
        found = scored_replies(recorder, generator, point, PROMPTS, AT_ONCE, ARMS, LONG)
        assert generator.requested == [arm.name for arm in ARMS]
        assert str(found["untold"]) == "nothing to ablate"
        assert isinstance(plain := found["plain"], Scored)
        assert [OUTCOMES[code] for code in plain.outcomes] == EXPECTED


def test_text_is_kept_where_it_is_asked_for(point: Checkpoint, tmp_path: Path) -> None:
    recorder = Recorder(Pool("cpu", "float32"), Store(tmp_path), 96)
    arms = [ARMS[0], ARMS[2]]
    expected = scored_replies(recorder, Written(recorder), point, PROMPTS, AT_ONCE, arms, LONG)
    kept: list[Reply] = []
    found = scored_replies(recorder, Written(recorder), point, PROMPTS, AT_ONCE, arms, LONG, keep=kept)
    assert [(one.arm, one.prompt, one.outcome, one.text) for one in kept] == [
        *(("plain", place, kind, text) for place, (kind, text) in enumerate(zip(EXPECTED, SAID, strict=True))),
        *(("some", place, EXPECTED[place], SAID[place]) for place in (2, 0)),
    ]
    assert {name: one.digest for name, one in found.items() if isinstance(one, Scored)} == {
        name: one.digest for name, one in expected.items() if isinstance(one, Scored)
    }


@pytest.mark.parametrize("change", ["tokens", "thinking", "inside", "prompts", "direction", "thinks"])
def test_what_changes_a_score_is_part_of_its_key(point: Checkpoint, tmp_path: Path, change: str) -> None:
    recorder = Recorder(Pool("cpu", "float32"), Store(tmp_path), 96)
    generator = Written(recorder)
    scored_replies(recorder, generator, point, PROMPTS, AT_ONCE, [ARMS[0], ARMS[2]], LONG)
    other = {"prompts": (0, 2), "direction": (2, 0)}.get(change, ARMS[2].requested)
    moved = Ablated(np.eye(32, dtype=np.float32)[1] if change == "direction" else -DIRECTION)
    last = Arm("some", moved, other, change != "thinks")
    generator.requested.clear()
    budget = {"tokens": Budget(100), "thinking": Budget(400, 100)}.get(change, LONG)
    inside = [change == "inside"] * len(PROMPTS)
    scored_replies(recorder, generator, point, PROMPTS, inside, [ARMS[0], last], budget)
    assert generator.requested
