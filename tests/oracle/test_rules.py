"""The rules that decide what is measured, worked out again from their definitions alone.

Prompts and readings are the product's; what is made of them here is not. Definitions: Du et al. 2025 (probes, transfer), Arditi
et al. 2024 (log-odds), and docs/design for the guards, the dose of an addition, and what a model knows in cloze form.
"""

from collections import defaultdict
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.generate.arms import Added, Arm
from mechdrift.engine.generate.first_token import first_token_under, log_odds
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.findings.hand_set import HandSet
from mechdrift.findings.knowledge.pairs import PairRequest
from mechdrift.findings.knowledge.readings import known_kinds
from mechdrift.findings.refusal.direction import SIDES, Fitted, Site, arms_of, fit, openers_of
from mechdrift.findings.refusal.outcomes import On
from mechdrift.findings.truth.probes import Place, probe_accuracy, probe_transfer
from mechdrift.prompts.chat_forms import ChatPrompts, chat_prompts
from mechdrift.prompts.instructions import shipped_instructions
from mechdrift.prompts.statements import Statement, shipped_statements
from mechdrift.verdict.decide import decide
from mechdrift.verdict.profiles import load_profile

LAYER = 4
KINDS = ("animal_classes", "spanish_words", "element_symbols")


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return Recorder(Pool("cpu", "float32"), Store(tmp_path_factory.mktemp("store")), 4096)


@pytest.fixture(scope="module")
def points() -> tuple[Checkpoint, Checkpoint]:
    return resolve("organism:base"), resolve("organism:instruct")


@pytest.fixture(scope="module")
def statements() -> list[Statement]:
    """A third of the entities: what is compared is arithmetic."""
    chosen = [s for s in shipped_statements() if s.kind in KINDS and not s.negated]
    names = sorted({(s.kind, s.entity) for s in chosen})
    return [s for s in chosen if names.index((s.kind, s.entity)) % 3 == 0]


@pytest.fixture(scope="module")
def activations(recorder: Recorder, points: tuple[Checkpoint, Checkpoint], statements: list[Statement]) -> list[np.ndarray]:
    """Both models' block outputs at the period."""
    texts = [s.text for s in statements]
    return [recorder.blocks(point, recorder.statement_prompts(point, texts, "period")) for point in points]


def logistic_threshold(projection: np.ndarray, labels: np.ndarray) -> float:
    """Where an unpenalised logistic regression changes sides, by Newton's method; if separable, midway of the two nearest."""
    if projection[~labels].max() < projection[labels].min():
        return float(projection[~labels].max() + projection[labels].min()) / 2
    design = np.stack([projection, np.ones_like(projection)], axis=1)
    weights = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ weights))
        weights += np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design, design.T @ (labels - p))
    return float(-weights[1] / weights[0])


def read_by_probe(maker: np.ndarray, reader: np.ndarray, statements: list[Statement]) -> dict[tuple[str, str], float]:
    """Share right of every test entity: fitted on all other kinds' fit split, read on this one's test split, kinds centred."""
    kinds = np.array([s.kind for s in statements])
    splits, labels = np.array([s.split for s in statements]), np.array([s.label for s in statements])
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for held_out in set(kinds):
        rows, truth = [], []
        for kind in sorted(set(kinds) - {held_out}):
            mine = (kinds == kind) & (splits == "fit")
            rows.append(maker[mine] - maker[mine].mean(0))
            truth.append(labels[mine])
        fitted, true = np.concatenate(rows), np.concatenate(truth)
        axis = fitted[true].mean(0) - fitted[~true].mean(0)
        axis /= np.linalg.norm(axis)
        threshold = logistic_threshold(fitted @ axis, true)
        mine = np.flatnonzero((kinds == held_out) & (splits == "test"))
        printed = (reader[mine] - reader[mine].mean(0)) @ axis > threshold
        for index, answer in zip(mine, printed, strict=True):
            right[statements[index].kind, statements[index].entity].append(bool(answer) == statements[index].label)
    return {entity: float(np.mean(hits)) for entity, hits in right.items()}


def works(right: dict[tuple[str, str], float]) -> bool:
    """Lower end of the 90% score interval over .70."""
    share, n, z = np.mean(list(right.values())), len(right), stats.norm.ppf(0.95)
    centre, spread = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return bool((centre - spread) / (1 + z**2 / n) > 0.70)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_probes_transfer_as_the_definition_says(
    activations: list[np.ndarray], statements: list[Statement], direction: str
) -> None:
    base, post = (model[:, LAYER].astype(np.float64) for model in activations)
    maker, reader = (base, post) if direction == "forward" else (post, base)
    own, other = read_by_probe(reader, reader, statements), read_by_probe(maker, reader, statements)
    found = probe_transfer(activations[0], activations[1], statements, direction, Place(LAYER))
    assert works(own)
    assert found.estimate == pytest.approx(np.mean(list(other.values())) - np.mean(list(own.values())), abs=1e-9)
    assert found.evidence.n == len(own)
    assert {(i.kind, i.name): (i.base, i.post) for i in found.items} == {e: (own[e], other[e]) for e in own}
    accuracy = probe_accuracy(activations[0], activations[1], statements, Place(LAYER))
    models = [read_by_probe(model, model, statements) for model in (base, post)]
    assert accuracy.estimate == pytest.approx(np.mean(list(models[1].values())) - np.mean(list(models[0].values())), abs=1e-9)


def test_the_guard_of_the_transfer_is_the_model_that_must_have_it(
    activations: list[np.ndarray], statements: list[Statement]
) -> None:
    """Post at chance: a drift by base's and post's own probes, and never a probe at chance against a probe at chance."""
    base, post = activations
    lost = np.random.default_rng(0).normal(size=post.shape).astype(np.float32)
    own = read_by_probe(lost[:, LAYER].astype(float), lost[:, LAYER].astype(float), statements)
    assert not works(own)
    assert works(read_by_probe(base[:, LAYER].astype(float), base[:, LAYER].astype(float), statements))
    found = probe_transfer(base, lost, statements, "forward", Place(LAYER))
    assert abs(found.estimate) < 0.1, "by itself it would have been held"
    profile = load_profile("base-to-post")
    assert decide(found, profile).verdict == decide(probe_accuracy(base, lost, statements, Place(LAYER)), profile).verdict
    assert decide(found, profile).verdict == "drifted"
    with pytest.raises(Unmeasurable, match=r"^gained: post's is right on 0\.\d+, and base's own probe"):
        probe_transfer(lost, post, statements, "forward", Place(LAYER))


def test_both_directions_are_added_at_the_steered_models_own_length(
    recorder: Recorder, points: tuple[Checkpoint, Checkpoint]
) -> None:
    """And what is then read is transformers' own forward with that vector added to a block's output at every token."""
    site = Site(2, 0)
    fitted: list[Fitted] = []
    outside: list[dict[On, np.ndarray]] = []
    prompts: dict[On, ChatPrompts] = {}
    for point in points:
        sides: dict[On, ChatPrompts] = {}
        for on in SIDES:
            texts = [i.text for i in shipped_instructions() if i.split == "fit" and i.harmful == (on == "harmful")][:24]
            sides[on] = prompts[on] = chat_prompts(point, recorder.pool.tokenizer(point), texts, "native", 32)
        fitted.append(fit(recorder, point, sides))
        model = recorder.pool.model(point, sides["harmful"].ids[:2])
        rows = {}
        for on, requested in sides.items():
            with torch.inference_mode():
                states = [model(torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0, -1] for ids in requested.ids]
            rows[on] = torch.stack(states).double().numpy()[fitted[-1].kept[on]]
        outside.append(rows)
    differences = [rows["harmful"].mean(0) - rows["harmless"].mean(0) for rows in outside]
    cosine = differences[0] @ differences[1] / np.prod([np.linalg.norm(d) for d in differences])
    assert abs(cosine) < 0.9, "else a projection would do as much as the whole length"
    post = points[1]
    arms = {arm.name: arm for arm in arms_of(fitted[1], fitted[0], site, 1, 1)}
    length = np.linalg.norm(differences[1])
    for name, difference in (("own addition", differences[1]), ("other addition", differences[0])):
        does = arms[name].does
        assert isinstance(does, Added)
        vector = length * difference / np.linalg.norm(difference)
        np.testing.assert_allclose(does.coefficient * does.direction, vector, rtol=0, atol=2e-3 * float(length))
        ids = prompts["harmless"].ids[:3]
        openers = openers_of(recorder, post, prompts["harmless"])
        found = first_token_under(recorder, post, ids, openers, [Arm(name, does)])[0, :, 0]
        model = recorder.pool.model(post, ids)
        moved = torch.tensor(vector, dtype=torch.float32)
        handle = model.model.layers[2].register_forward_hook(lambda _m, _i, out, by=moved: out + by)
        with torch.inference_mode():
            logits = [model(torch.tensor([prompt])).logits[0, -1].double().numpy() for prompt in ids]
        handle.remove()
        truth = [np.logaddexp.reduce(row[list(openers)]) - np.logaddexp.reduce(np.delete(row, openers)) for row in logits]
        np.testing.assert_allclose(found, truth, atol=2e-2)


@pytest.mark.parametrize("short_of_one", ["1e-3", "1e-9", "1e-30"])
def test_log_odds_of_what_is_nearly_certain(short_of_one: str) -> None:
    """p_R = 1 - 1e-9 is 1 in float32: the odds are those of the logits, by arithmetic of 60 digits."""
    with localcontext(prec=60):
        left = Decimal(short_of_one)
        others = [(left * Decimal(share)).ln() for share in ("0.5", "0.3", "0.2")]
        refusing = [((1 - left) * Decimal(share)).ln() for share in ("0.6", "0.4")]
        truth = float(((1 - left) / left).ln())
        logits = torch.tensor([[float(value) for value in (*refusing, *others)]], dtype=torch.float32)
    assert float(log_odds(logits, [0, 1])[0]) == pytest.approx(truth, rel=1e-6)
    assert float(log_odds(logits, [2, 3, 4])[0]) == pytest.approx(-truth, rel=1e-6)


def test_what_base_knows_in_cloze_form(recorder: Recorder, points: tuple[Checkpoint, Checkpoint]) -> None:
    """A pair is known where the right object gains on the other from the corrupt to the clean prompt, whichever is likelier."""
    base = resolve("organism:drift-knowledge-forgotten@1")  # prefers the right object by a hair, and mostly another to both
    asking = PairRequest.of(Pair(base, points[1]), "cloze", 0, (), HandSet())
    model = recorder.pool.model(base, [[1, 2, 3]])
    known: list[str] = []
    by_preference: list[str] = []
    for kind in asking.kinds:
        units: dict[Any, list[tuple[bool, bool]]] = defaultdict(list)
        for pair in asking.found(recorder, base, [kind], "choose").pairs:
            with torch.inference_mode():
                rows = [model(torch.tensor([ids])).logits[0, -1].double() for ids in (pair.clean, pair.corrupt)]
            clean, corrupt = (float(row[pair.answers[0]] - row[pair.answers[1]]) for row in rows)
            units[pair.unit].append((clean > corrupt, clean > 0 > corrupt))
        for found, which in ((known, 0), (by_preference, 1)):
            if units and works({(kind, str(u)): float(np.mean([hit[which] for hit in hits])) for u, hits in units.items()}):
                found.append(kind)
    assert known_kinds(recorder, base, asking) == known
    assert set(by_preference) < set(known), "else the other rule would say the same"
