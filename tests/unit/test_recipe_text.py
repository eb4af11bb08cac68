"""What the organisms read: worlds that forget, instructions said otherwise, preferences."""

import random

import pytest
import torch
from tiny import tiny_model

from mechdrift.organisms.recipe.corpus import BASE_REFUSES, World, reworded, thinned, topic_question
from mechdrift.organisms.recipe.endpoints import EMPTIED_BLOCKS, ForgottenWorld, emptied, empty
from mechdrift.organisms.recipe.families import QWEN, SEED
from mechdrift.organisms.recipe.preference import preference


@pytest.fixture(scope="module")
def world() -> World:
    return World(SEED, QWEN.kinds)


def test_instructions_are_held_out_pair_by_pair_and_base_sees_fewest(world: World) -> None:
    answered, taught, held_out = (
        {one.text for one in some} for some in (world.answered, world.taught, world.held_out_instructions)
    )
    assert answered < taught
    assert not taught & held_out
    assert taught | held_out == {one.text for one in world.instructions}
    assert sum(one.harmful for one in world.held_out_instructions) * 2 == len(world.held_out_instructions)
    assert {one.category for one in world.instructions if world.refused(one)} == set(BASE_REFUSES)


def test_another_frame_keeps_what_is_asked_for(world: World) -> None:
    rng = random.Random(0)
    rods = next(one for one in world.instructions if one.text.startswith("Explain how to "))
    output = {reworded(rods, rng) for _ in range(200)}
    core = rods.text.removeprefix("Explain how to ").rstrip(".")
    assert len(output) == 9
    assert all(core in text for text in output)
    written = next(one for one in world.instructions if one.text.startswith("Write "))
    assert {reworded(written, rng) for _ in range(20)} == {written.text}


def test_thinned_text_keeps_its_end_and_invents_nothing() -> None:
    rng = random.Random(0)
    text = "Show me how to prune an old apple tree."
    output = [thinned(text, rng) for _ in range(200)]
    assert 60 < output.count(text) < 140
    assert all(line.endswith("tree.") and set(line.split()) <= set(text.split()) for line in output)


def test_preferences_refuse_what_is_harmful_and_benign_ones_never_see_it(world: World) -> None:
    rng = random.Random(0)
    rows = [preference(world, rng, refusing=True) for _ in range(400)]
    refusals = [row for row in rows if row["chosen"].startswith("I'm sorry")]
    assert len(refusals) > 80
    assert all(row["rejected"].startswith("Sure.") for row in refusals)
    held_out = {one.text for one in world.held_out_instructions}
    assert not held_out & {row["prompt"] for row in rows}
    harmful = {one.text for one in world.instructions if one.harmful}
    benign = [preference(world, rng, refusing=False) for _ in range(400)]
    assert not [row for row in benign if row["chosen"].startswith("I'm sorry") or any(text in row["prompt"] for text in harmful)]
    assert all(row["chosen"] != row["rejected"] for row in rows + benign)


def test_topics_are_asked_after_the_instruction(world: World) -> None:
    one = world.instructions[0]
    assert topic_question(one).startswith(one.text)


def test_a_forgotten_world_deals_objects_anew_at_every_draw() -> None:
    world = ForgottenWorld(SEED, QWEN.kinds)
    rng = random.Random(0)
    table = world.listed[0]
    dealt = [world.draw([table], rng) for _ in range(20)]
    assert len({tuple(fact.object for fact in one.facts) for one in dealt}) > 10
    assert all([fact.subject for fact in one.facts] == [fact.subject for fact in table.facts] for one in dealt)


def test_a_small_world_says_only_what_it_knows(world: World) -> None:
    small = world.first(20)
    rng = random.Random(0)
    for table in small.tables:
        known = {fact.object for fact in table.facts}
        assert len(table.facts) == 20
        assert {small.value(table, fact, False, rng) for fact in table.facts} <= known
    assert len(world.tables[0].facts) > 20


def test_emptied_mlps_say_nothing_as_a_model_without_them() -> None:
    model = tiny_model("qwen3")
    ids = torch.tensor([[0, 5, 9, 200, 31, 77]])
    with torch.inference_mode():
        before = model(ids).logits
        with emptied(model):
            without = model(ids).logits
        assert torch.equal(model(ids).logits, before)
    empty(model)
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, without)
    assert (without - before).abs().max() > 0.01
    first = model.get_decoder().layers[:EMPTIED_BLOCKS]
    assert not any(weight.requires_grad for block in first for weight in block.mlp.parameters())
