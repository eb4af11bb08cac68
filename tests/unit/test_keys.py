"""Every component of a key, changed one by one: whatever can change a number gives another entry of the store."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine import stored_recordings as engine
from mechdrift.engine import versions
from mechdrift.engine.generate import scored, vllm_generator
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.classified import ClassifierJudge
from mechdrift.engine.generate.first_token import first_token_under
from mechdrift.engine.generate.judged import EndpointJudge, JudgeEndpoint
from mechdrift.engine.generate.thinking import Budget
from mechdrift.engine.generate.vllm_generator import VllmGenerator
from mechdrift.engine.last_mlp import Ablation
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Part, Store
from mechdrift.engine.stored_last_mlp import LastMLPReader, Neurons
from mechdrift.engine.stored_recordings import Prompts, Recorder, Steering
from mechdrift.engine.stored_sweep import Columns, sweep_through
from mechdrift.engine.sweep import Pairs
from mechdrift.findings.structure import readings as structure
from mechdrift.findings.tiers import TIERS
from mechdrift.prompts.refusals import shipped_card

PROMPTS = Prompts([[0, 5, 6], [0, 7, 8]], [2, 2], [(5, 6), (5, 6)])
UP, ASIDE = np.eye(32, dtype=np.float32)[0], np.eye(32, dtype=np.float32)[1]
ARM = Arm("added", Added(UP, 1, 2.0))
CLASSIFIER = ReplyClassifier("own", Path("own"), "REFUSAL", 0, "1" * 64)
ENDPOINT = JudgeEndpoint("http://localhost:8000/v1", "judge", "1" * 64)


@dataclass
class Spy(Store):
    """A store that knows every recording, of zeros, and remembers the requests."""

    keys: list[str] = field(default_factory=list)

    def get(self, provenance: dict[str, Any], parts: Sequence[Part], label: str = "") -> list[torch.Tensor]:
        """Zeros, whatever is asked."""
        self.keys.append(json.dumps(provenance, sort_keys=True))
        return [torch.zeros(part.shape) for part in parts]


@dataclass(frozen=True)
class Given:
    """What a reading is given."""

    checkpoint: Checkpoint
    other: Checkpoint
    recorder: Recorder
    prompts: Prompts = PROMPTS
    arm: Arm = ARM

    @property
    def keys(self) -> list[str]:
        """Under which the store was asked."""
        store = self.recorder.store
        assert isinstance(store, Spy)
        return store.keys


def replies(given: Given, **changed: Any) -> None:
    result: dict[str, Any] = {
        "inside": False,
        "budget": Budget(4, 8),
        "judge": None,
        "instructions": ("Bake bread.", "Boil rice."),
        "generator": TransformersGenerator(given.recorder),
    } | changed
    scored.scored_replies(
        given.recorder,
        result["generator"],
        given.checkpoint,
        given.prompts.ids,
        [result["inside"]] * len(given.prompts.ids),
        [given.arm],
        result["budget"],
        result["judge"],
        None,
        result["instructions"],
    )


def classified(given: Given, **changed: Any) -> None:
    replies(given, judge=ClassifierJudge(replace(CLASSIFIER, **changed), given.recorder))


def judged(given: Given, instructions: Sequence[str] = ("Bake bread.", "Boil rice."), **changed: Any) -> None:
    replies(given, judge=EndpointJudge(replace(ENDPOINT, **changed), given.recorder), instructions=instructions)


def swept(given: Given, source: bool = False, **changed: Any) -> None:
    ids = given.prompts.ids
    wanted: dict[str, Any] = {
        "corrupt": ids,
        "clean": [[*row[:2], 9] for row in ids],
        "answers": given.prompts.answers,
        "first": [1, 1],
    }
    pairs = Pairs(**wanted | changed)
    columns = Columns(given.recorder, given.other, pairs, {}) if source else None
    sweep_through(given.recorder, given.checkpoint, pairs, columns)


def last_mlp(given: Given) -> LastMLPReader:
    return LastMLPReader(given.recorder, given.checkpoint, given.prompts, 258)


def steered(given: Given, layers: tuple[int, ...] = (1,), size: float = 1.0, at: int = 2) -> None:
    move = Steering(layers, np.full((2, 32), size, dtype=np.float32), [[at], [at]])
    given.recorder.steered_logits(given.checkpoint, given.prompts, [move])


def structured(given: Given, seed: int = 0, shortcut: bool = True, tier: str = "commit") -> None:
    structure.read_structure(Pair(given.checkpoint, given.other), given.recorder, seed, TIERS[tier], shortcut)


READINGS: dict[str, Callable[[Given], object]] = {
    "blocks": lambda given: given.recorder.blocks(given.checkpoint, given.prompts),
    "logits": lambda given: given.recorder.logits(given.checkpoint, given.prompts),
    "steered logits": steered,
    "columns": lambda given: given.recorder.columns(given.checkpoint, given.prompts.ids, given.prompts.positions),
    "losses": lambda given: given.recorder.losses(given.checkpoint, given.prompts),
    "sweep": swept,
    "sweep across": lambda given: swept(given, source=True),
    "first token": lambda given: first_token_under(given.recorder, given.checkpoint, given.prompts.ids, [5], [given.arm]),
    "replies": replies,
    "last MLP": lambda given: last_mlp(given).activations(Neurons(given.prompts, (1, 2))),
    "neuron table": lambda given: last_mlp(given).table(),
}
"""All that one checkpoint is read by."""


@pytest.fixture
def given(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Given:
    here, other = (resolve(str(tiny_checkpoint(seed=seed))) for seed in (0, 1))
    return Given(here, other, Recorder(Pool("cpu", "float32"), Spy(tmp_path), 4096))


def keys(given: Given, read: Callable[[Given], object]) -> list[str]:
    given.keys.clear()
    read(given)
    return list(given.keys)


@contextmanager
def patched(target: object, name: str, value: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, value)
        yield


def _always(answer: str, _asked: str) -> str:
    return answer


def another_version(package: str) -> Callable[[str], str]:
    return lambda name: "0.0.1" if name == package else "1"


# What all recordings of one checkpoint have in common, each with a way to make it another.
COMMON: dict[str, Callable[[Given], Any]] = {
    "dtype": lambda given: patched(given.recorder.pool, "dtype", "bfloat16"),
    "attention": lambda given: patched(engine, "attention_of", lambda _checkpoint: "eager"),
    "device": lambda given: patched(Pool, "device_kind", lambda _pool: "NVIDIA H100"),
    "batch_tokens": lambda given: patched(given.recorder, "batch_tokens", 2048),
    "part_batches": lambda given: patched(engine, "PART_BATCHES", 5),
    "engine": lambda given: patched(engine, "ENGINE", 99),
    "torch": lambda given: patched(versions, "version", another_version("torch")),
    "transformers": lambda given: patched(versions, "version", another_version("transformers")),
}
INSIDE = {"torch": "versions", "transformers": "versions"}


@pytest.mark.parametrize("component", COMMON)
@pytest.mark.parametrize("reading", READINGS)
def test_a_component_changes_the_key_of_every_reading(given: Given, reading: str, component: str) -> None:
    with patched(versions, "version", lambda _name: "1"):
        before = keys(given, READINGS[reading])
        with COMMON[component](given):
            after = keys(given, READINGS[reading])
    assert len(before) == len(after) > 0
    assert not {*before} & {*after}


def test_no_component_is_left_out_here(given: Given) -> None:
    (key,) = keys(given, READINGS["logits"])
    tested = {INSIDE.get(component, component) for component in COMMON} | {"checkpoint", "prompts"}
    assert json.loads(key).keys() - {"what"} == tested


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("part", ["weights", "config", "generation", "template", "tokenizer", "adapter"])
def test_another_part_of_the_checkpoint_is_another_key(given: Given, reading: str, part: str) -> None:
    other = replace(given.checkpoint, digests=given.checkpoint.digests | {part: "0" * 64})
    assert not {*keys(given, READINGS[reading])} & {*keys(replace(given, checkpoint=other), READINGS[reading])}


def test_readings_of_the_same_prompts_are_apart(given: Given) -> None:
    every = [key for read in READINGS.values() for key in keys(given, read)]
    # A sweep from another model reads that model's columns too; the last MLP is recorded once for all that is computed from it.
    assert len({*every}) == len(every)


@pytest.mark.parametrize(
    "reading", ["blocks", "logits", "steered logits", "columns", "losses", "sweep", "first token", "replies"]
)
def test_other_tokens_are_another_key(given: Given, reading: str) -> None:
    other = replace(given, prompts=replace(PROMPTS, ids=[[0, 5, 6], [0, 7, 9]]))
    assert not {*keys(given, READINGS[reading])} & {*keys(other, READINGS[reading])}


def test_other_positions_and_answers_are_another_key(given: Given) -> None:
    moved = replace(given, prompts=replace(PROMPTS, positions=[2, 1]))
    wanted = replace(given, prompts=replace(PROMPTS, answers=[(5, 6), (5, 7)]))
    for other, reading in ((moved, "blocks"), (wanted, "logits"), (wanted, "sweep")):
        assert not {*keys(given, READINGS[reading])} & {*keys(other, READINGS[reading])}


CHANGED: dict[str, tuple[Callable[[Given], object], Callable[[Given], object]]] = {
    "steering: layers": (steered, lambda given: steered(given, layers=(0, 1))),
    "steering: vectors": (steered, lambda given: steered(given, size=1.5)),
    "steering: positions": (steered, lambda given: steered(given, at=1)),
    "sweep: clean prompts": (swept, lambda given: swept(given, clean=[[0, 5, 9], [0, 7, 10]])),
    "sweep: first token": (swept, lambda given: swept(given, first=[1, 2])),
    "sweep: another model's activations": (swept, lambda given: swept(given, source=True)),
    "replies: their length": (replies, lambda given: replies(given, budget=Budget(5, 8))),
    "replies: of their thoughts": (replies, lambda given: replies(given, budget=Budget(4, 9))),
    "replies: whether prompts end within a thought": (replies, lambda given: replies(given, inside=True)),
    "replies: whether an arm thinks": (replies, lambda given: replies(replace(given, arm=replace(given.arm, thinks=False)))),
    "replies: a classifier": (replies, classified),
    "replies: its content": (
        classified,
        lambda given: classified(given, digest="2" * 64),
    ),
    "replies: its label": (
        classified,
        lambda given: classified(given, label="NO"),
    ),
    "replies: a judge": (replies, judged),
    "replies: the judge's model": (judged, lambda given: judged(given, model="other")),
    "replies: the judge's question": (judged, lambda given: judged(given, question="2" * 64)),
    "replies: the judge's instructions": (judged, lambda given: judged(given, ("Bake bread.", "Bake rice."))),
    "replies: arm, none": (replies, lambda given: replies(replace(given, arm=Arm("plain")))),
    "replies: arm, ablated": (replies, lambda given: replies(replace(given, arm=Arm("added", Ablated(UP))))),
    "replies: arm, direction": (replies, lambda given: replies(replace(given, arm=Arm("added", Added(ASIDE, 1, 2.0))))),
    "replies: arm, layer": (replies, lambda given: replies(replace(given, arm=Arm("added", Added(UP, 2, 2.0))))),
    "replies: arm, coefficient": (replies, lambda given: replies(replace(given, arm=Arm("added", Added(UP, 1, 2.5))))),
    "replies: arm, whom": (replies, lambda given: replies(replace(given, arm=replace(ARM, requested=(1, 0))))),
    "last MLP: neurons": (
        lambda given: last_mlp(given).activations(Neurons(PROMPTS, (1, 2))),
        lambda given: last_mlp(given).activations(Neurons(PROMPTS, (1, 3))),
    ),
    "last MLP: rows of the head": (
        lambda given: last_mlp(given).table(),
        lambda given: replace(last_mlp(given), tokens=200).table(),
    ),
    "last MLP: ablations": (
        lambda given: last_mlp(given).entropies(Neurons(PROMPTS, (1,)), [Ablation((1,), (0.0,))]),
        lambda given: last_mlp(given).entropies(Neurons(PROMPTS, (1,)), [Ablation((1,), (0.5,))]),
    ),
    "directions: which": (lambda given: last_mlp(given).directions([1]), lambda given: last_mlp(given).directions([2])),
    "nearest: to what": (
        lambda given: last_mlp(given).nearest(UP[None]),
        lambda given: last_mlp(given).nearest(ASIDE[None]),
    ),
    "structure: seed": (structured, lambda given: structured(given, seed=1)),
    "structure: short cut": (structured, lambda given: structured(given, shortcut=False)),
    "structure: blocks": (structured, lambda given: structured(given, tier="smoke")),
    "structure: post": (structured, lambda given: structured(replace(given, other=given.checkpoint))),
    "structure: base": (structured, lambda given: structured(replace(given, checkpoint=given.other))),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_reading_is_asked_is_in_its_key(given: Given, name: str) -> None:
    before, after = (keys(given, read) for read in CHANGED[name])
    assert before
    assert after[-1] not in before


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        (structure, "DRAWS", 5),
        (structure, "VERSION", 99),
        (structure, "version", lambda _name: "0.0.1"),
        (Pool, "device_kind", lambda _pool: "NVIDIA H100"),
    ],
)
def test_structure_has_what_it_depends_on(given: Given, target: object, name: str, value: object) -> None:
    before = keys(given, structured)
    with patched(target, name, value):
        assert not {*before} & {*keys(given, structured)}


def test_replies_have_what_scores_them(given: Given) -> None:
    before = keys(given, replies)
    card = replace(shipped_card(), sha256="0" * 64)
    for name, value in (("SCORER", 99), ("shipped_card", lambda: card), ("version", lambda _name: "0.0.1")):
        with patched(scored, name, value):
            assert not {*before} & {*keys(given, replies)}


def test_the_engine_that_replies_is_in_their_key(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """VLLM's version and the user's arguments: another number of GPUs adds up in another order."""
    monkeypatch.setattr(vllm_generator, "is_installed", lambda name: name == "vllm")
    found: list[str] = []
    engines: list[tuple[str, dict[str, Any]]] = [("0.32", {}), ("0.33", {}), ("0.32", {"tensor_parallel_size": 2})]
    for number, options in engines:
        with patched(vllm_generator, "version", partial(_always, number)):
            found += keys(given, partial(replies, generator=VllmGenerator(given.recorder, options)))
    found += keys(given, replies)
    assert len({*found}) == 4


@pytest.mark.parametrize(
    ("changes", "package"),
    [({"adapter": "adapter"}, "peft"), ({"gguf": "model.gguf"}, "gguf"), ({"quantised": "torchao"}, "torchao")],
)
def test_what_unpacks_or_merges_weights_is_in_the_key(
    given: Given, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], package: str
) -> None:
    monkeypatch.setattr(versions, "is_installed", lambda _name: True)
    point = replace(given.checkpoint, **changes)
    monkeypatch.setattr(versions, "version", lambda _name: "1")
    before = versions.versions_for(point)
    monkeypatch.setattr(versions, "version", another_version(package))
    assert versions.versions_for(point) != before
    assert package not in versions.versions_for(given.checkpoint)
