"""Refusal: whether it works, whether it is one direction, and whether one model's direction works in the other."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import pytest
from safetensors.numpy import save

from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.engine.generate.arms import Generator
from mechdrift.engine.generate.scored import Reply
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.fixtures import Beside, Judge, Pair
from mechdrift.measures import refusal as measures
from mechdrift.measures.drift import Drift
from mechdrift.measures.refusal_separation import separation
from mechdrift.prompts.instructions import Instructions
from mechdrift.suites.refusal import Refusal, read_refusal
from mechdrift.tiers import Tier


@pytest.fixture(scope="session")
def refusal(
    pair: Pair,
    recordings: Recorder,
    instructions: Instructions,
    generator: Generator,
    tier: Tier,
    must_refuse: measures.Which,
    mechdrift_reply_classifier: ReplyClassifier | None,
    mechdrift_beside: Beside | None,
    mechdrift_keeps_replies: bool,
) -> Refusal:
    """Replies and directions of both models; post's direction lies beside the record, and replies if that is requested."""
    replies: list[Reply] = []

    def read() -> Refusal:
        replies.clear()  # replies of a batch that did not fit
        keep = replies if mechdrift_keeps_replies else None
        return read_refusal(pair, recordings, instructions, generator, tier, mechdrift_reply_classifier, keep, must_refuse)

    found = recordings.at_one_batch(read)
    if mechdrift_beside is not None and not isinstance(found.site, Unmeasurable):
        direction = found.fitted_natively[1].direction(found.site)
        metadata = {
            "checkpoint": pair.post.pinned,
            "site": str(found.site),
            "use": "mechdrift bake SPEC --direction FILE --out DIR",
        }
        mechdrift_beside(".refusal-direction.safetensors", save({"direction": direction}, metadata))
    if mechdrift_beside is not None and mechdrift_keeps_replies:
        lines = "".join(json.dumps(asdict(one)) + "\n" for one in replies)
        mechdrift_beside(".replies.jsonl", lines.encode())
    return found


def _effect(read: Refusal, does: measures.Does) -> Drift:
    measures.require_refusal(read.read)
    read.require("post", f"own {does}")
    return measures.effect(read.read, does)


def _transfer(read: Refusal, does: measures.Does, direction: measures.Way) -> Drift:
    measures.require_refusal(read.read)
    read.require("post" if direction == "forward" else "base", f"own {does}", f"other {does}")
    return measures.transfer(read.read, does, direction)


def _odds(read: Refusal, does: measures.Does) -> Drift:
    read.require("post")
    if read.read.outcomes_by:
        measures.require_refusal(read.read)
    else:
        measures.require_refusal_at_first(read.read.must_refuse, read.first)
    return measures.odds(read.read, does, *read.odds[does])


def _similarity(read: Refusal, form: str) -> Drift:
    base, post, note = read.directions(form)
    return measures.similarity(read.read, base, post, note, read.by_block(form))


def _separation(read: Refusal, direction: Literal["own", "base"]) -> Drift:
    base, post = read.separated()
    return separation(read.read, base, post, direction)


ROWS: list[tuple[str, dict[str, str], Callable[[Refusal], Drift]]] = [
    ("harmful", {}, lambda read: measures.rate(read.read, "harmful")),
    ("harmless", {}, lambda read: measures.rate(read.read, "harmless")),
    ("answered", {}, lambda read: measures.answered(read.read)),
    ("ablation", {}, lambda read: _effect(read, "ablation")),
    ("addition", {}, lambda read: _effect(read, "addition")),
    ("change_harmful", {}, lambda read: measures.change(read.read, "harmful")),
    ("change_harmless", {}, lambda read: measures.change(read.read, "harmless")),
    ("change_answered", {}, lambda read: measures.change(read.read, "harmless", "complied")),
    ("direction", {"form": "native"}, lambda read: _similarity(read, "native")),
    ("direction", {"form": "matched"}, lambda read: _similarity(read, "matched")),
    ("ablation_transfer", {"direction": "forward"}, lambda read: _transfer(read, "ablation", "forward")),
    ("ablation_transfer", {"direction": "backward"}, lambda read: _transfer(read, "ablation", "backward")),
    ("addition_transfer", {"direction": "forward"}, lambda read: _transfer(read, "addition", "forward")),
    ("addition_transfer", {"direction": "backward"}, lambda read: _transfer(read, "addition", "backward")),
    ("separation", {"direction": "own"}, lambda read: _separation(read, "own")),
    ("separation", {"direction": "base"}, lambda read: _separation(read, "base")),
    ("odds_ablation", {}, lambda read: _odds(read, "ablation")),
    ("odds_addition", {}, lambda read: _odds(read, "addition")),
]


@pytest.fixture
def measured(request: pytest.FixtureRequest, refusal: Refusal) -> Drift:
    """One measure."""
    measure: Callable[[Refusal], Drift] = request.param
    return measure(refusal)


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param(
            measure, marks=pytest.mark.finding(f"refusal.{name}", **parameters), id="-".join([name, *parameters.values()])
        )
        for name, parameters, measure in ROWS
    ],
    indirect=True,
)
def test_refusal_works_and_stays_where_it_was(measured: Drift, drift: Judge) -> None:
    """Each claim about refusal."""
    drift.judge(measured)
