"""The shipped organisms are what their card says, measured from the stored files."""

import re
from importlib.resources import files

import pytest

from mechdrift.checkpoints.resolve import resolve
from mechdrift.data.organisms.recipe.corpus import Facts
from mechdrift.data.organisms.recipe.tokenizer import train_tokenizer
from mechdrift.data.organisms.recipe.train import STAGES, Batches
from mechdrift.data.organisms.score import SEED, table_text

CARD = (files("mechdrift.data") / "organisms" / "CARD.md").read_text()
MEGABYTE = 2**20


def cells(text: str) -> dict[tuple[str, str], list[float]]:
    """Scores of a markdown table by (score, kind)."""
    rows = re.findall(r"^\| (.+?) \| (\w+) \| ([\d.]+) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    return {(what, kind): [float(base), float(instruct)] for what, kind, base, instruct in rows}


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str], list[float]]:
    return cells(table_text())


def test_the_card_has_the_scores_of_the_stored_files(measured: dict[tuple[str, str], list[float]]) -> None:
    written = cells(CARD)
    assert written.keys() == measured.keys()
    for row, scores in measured.items():
        assert scores == pytest.approx(written[row], abs=0.011), row  # one statement of 90 may tip by rounding


def test_the_card_has_the_digests_of_the_stored_files() -> None:
    for name in ("base", "instruct"):
        assert f"`{resolve(f'organism:{name}').digests['weights']}`" in CARD


def test_organisms_judge_combinations_that_were_held_out(measured: dict[tuple[str, str], list[float]]) -> None:
    sizes = {table.kind: len(table.facts) for table in Facts(SEED).tables}
    held_out = {kind: scores for (what, kind), scores in measured.items() if what == "judged right, combination held out"}
    for organism in (0, 1):
        pooled = sum(sizes[kind] * scores[organism] for kind, scores in held_out.items()) / sum(sizes.values())
        assert pooled >= 0.95
        assert min(scores[organism] for scores in held_out.values()) >= 0.90


def test_truth_is_readable_at_the_period_of_a_kind_left_out(measured: dict[tuple[str, str], list[float]]) -> None:
    at_period = [scores for (what, _), scores in measured.items() if what == "truth at the period, kind left out"]
    assert len(at_period) == 4
    assert min(min(scores) for scores in at_period) >= 0.90


def test_both_organisms_fit_in_16_megabytes() -> None:
    folder = files("mechdrift.data") / "organisms"
    sizes = [(folder / name / "model.safetensors").stat().st_size for name in ("base", "instruct")]  # type: ignore[attr-defined]
    assert sum(sizes) < 16 * MEGABYTE


def test_the_recipe_gives_the_shipped_tokenizer_and_never_judges_what_is_held_out() -> None:
    facts = Facts(SEED)
    tokenizer = train_tokenizer(facts, SEED)
    shipped = (files("mechdrift.data") / "organisms" / "base" / "tokenizer.json").read_text()
    import json

    assert json.loads(tokenizer.backend_tokenizer.to_str())["model"] == json.loads(shipped)["model"]
    late = []
    for stage in STAGES[:-1]:
        batches = Batches(facts, tokenizer, stage, SEED)
        text = "".join(tokenizer.decode(row) for _ in range(15) for row in next(batches)[0])
        judged = re.findall(r"([^\n<>]+?\.)( This statement is:| Indeed\.| No\.| Right| Wrong)", text)
        assert stage.name == "facts" or len(judged) > 500
        for line, verdict in judged:
            for table, form in ((one, form) for one in facts.tables for form in one.forms):
                pattern = re.escape(form).replace(r"\{subject\}", "(.+)").replace(r"\{object\}", "(.+)")
                found = re.fullmatch(pattern, line)
                if found and found[1] in facts.late[table.kind]:
                    fact = found[1], dict(table.facts)[found[1]]
                    forms = 1 if "This" in verdict else stage.late_forms
                    assert not facts.held_out(table, fact, found[2], form, forms), (stage.name, line, verdict)
                    late.append(stage.name)
    assert set(late) == {"late", "last", "base"}, "late entities are judged in the last stages of base only"
    assert len(late) > 50
