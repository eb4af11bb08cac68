"""Tiers: what a lower one asks is among what a higher one asks, and no gated row gets fewer entities than it needs."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.findings.knowledge.readings import a_fair_share as pairs_of
from mechdrift.findings.refusal.readings import a_fair_share as instructions_of
from mechdrift.findings.registry import registered
from mechdrift.findings.tiers import TIERS
from mechdrift.organisms.recipe.families import LLAMA, QWEN
from mechdrift.prompts.instructions import shipped_instructions
from mechdrift.prompts.statements import Statement, shipped_statements
from mechdrift.prompts.texts import sample
from mechdrift.settings.values import TIER_NAMES
from mechdrift.verdict.profiles import load_profile

FEWEST = 60  # test entities of a gated row
SHIPPED = shipped_statements()
UP = list(pairwise(TIERS.values()))


class Sampled:
    """As much of a pair as is looked at."""

    def __init__(self, table: str, unit: str) -> None:
        self.sampled = (table, unit)


def test_the_option_names_them_all_from_least_to_most() -> None:
    assert tuple(TIERS) == TIER_NAMES


@pytest.mark.parametrize(("lower", "higher"), UP)
def test_a_lower_tier_asks_some_of_a_higher_ones(lower: Any, higher: Any) -> None:
    assert set(lower.statements(SHIPPED)) < set(higher.statements(SHIPPED))
    instructions = shipped_instructions()
    assert set(sample(SHIPPED, instructions, lower.texts).all) < set(sample(SHIPPED, instructions, higher.texts).all)
    pairs: list[Any] = [Sampled(table, f"{n}/{table}") for table in ("a", "b", "c") for n in range(400)]
    assert set(pairs_of(pairs, lower.units)) < set(pairs_of(pairs, higher.units))
    for split in ("fit", "choose", "test"):
        many = [one for one in instructions if one.harmful and one.split == split]
        assert set(instructions_of(many, lower.instructions[split])) <= set(instructions_of(many, higher.instructions[split]))
    assert higher.left_out <= lower.left_out


@given(st.integers(1, 200))
def test_blocks_of_a_lower_tier_are_among_a_higher_ones(count: int) -> None:
    requested = [set(tier.layers(count)) for tier in TIERS.values()]
    assert requested[0] <= requested[1] <= requested[2] == set(range(count))
    for tier, layers in zip(TIERS.values(), requested, strict=True):
        assert len(layers) == min(count, tier.blocks or count)
    if count >= 8:
        assert min(requested[1]) < count / 4
        assert max(requested[1]) >= count / 2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["fit", "choose", "test"]), st.integers(0, 99)), max_size=300))
def test_statements_of_an_entity_come_together_and_the_order_is_no_matter(drawn: list[Any]) -> None:
    every = [Statement(f"{n}.", True, str(entity), kind, split) for n, (kind, split, entity) in enumerate(drawn)]
    tier = TIERS["smoke"]
    found = tier.statements(every)
    assert set(found) == set(tier.statements(every[::-1]))
    assert {(s.kind, s.split, s.entity) for s in found}.isdisjoint({(s.kind, s.split, s.entity) for s in set(every) - set(found)})
    for (_, split), entities in Counter(
        (s.kind, s.split) for s in {(s.kind, s.split, s.entity): s for s in found}.values()
    ).items():
        assert entities <= (tier.entities[split] or entities)


@pytest.mark.parametrize("family", [QWEN, LLAMA])
@pytest.mark.parametrize("name", TIER_NAMES)
def test_gated_rows_have_enough_entities(family: Any, name: str) -> None:
    """Of the organisms, whose known kinds are said in their recipe; and kinds are pooled."""
    tier = TIERS[name]
    requested = {(s.kind, s.entity) for s in tier.statements(SHIPPED) if s.split == "test" and s.kind in family.kinds}
    assert len(requested) >= FEWEST
    assert tier.units >= FEWEST
    assert tier.instructions["test"] >= FEWEST or not tier.includes("refusal.harmful")


def test_commit_asks_all_of_what_the_organisms_know() -> None:
    known = [s for s in SHIPPED if s.kind in QWEN.kinds]
    assert list(TIERS["commit"].statements(known)) == known
    assert TIERS["nightly"].statements(SHIPPED) == tuple(SHIPPED)


@pytest.mark.parametrize("tier", TIERS.values())
def test_the_examples_of_few_shot_prompts_are_the_same_in_every_tier(tier: Any) -> None:
    fit = [s for s in SHIPPED if s.split == "fit"]
    assert [s for s in tier.statements(SHIPPED) if s.split == "fit"] == fit


def test_what_is_left_out_is_a_finding_and_smoke_keeps_gates_of_two_papers_claims() -> None:
    findings, profile = registered(), load_profile("base-to-post", None)
    for tier in TIERS.values():
        assert tier.left_out <= findings.keys()
    gated = {name for name in findings if profile.rule(name).role == "gate"} - TIERS["smoke"].left_out
    assert {name.partition(".")[0] for name in gated} == {"knowledge", "truth"}
    assert not TIERS["commit"].left_out
