"""Few-shot prompts: who is shown, in which order."""

import pytest

from mechdrift.errors import Unmeasurable
from mechdrift.prompts.judgement import SUFFIX, judgement_prompts
from mechdrift.prompts.statements import Statement, shipped_statements


def test_prompts_show_two_true_and_two_false_fit_statements_of_the_kind() -> None:
    statements = shipped_statements()
    prompts = judgement_prompts(statements)
    assert set(prompts) == {s for s in statements if s.split == "test"}
    fit = {s.text: s for s in statements if s.split == "fit"}
    for statement, prompt in prompts.items():
        *examples, last = prompt.split("\n")
        assert last == statement.text + SUFFIX
        shown = [fit[line.rpartition(SUFFIX)[0]] for line in examples]
        assert [line.rpartition(" ")[2] for line in examples] == [str(s.label).upper() for s in shown]
        assert sorted(s.label for s in shown) == [False, False, True, True]
        assert {s.kind for s in shown} == {statement.kind}


def test_the_order_is_drawn_per_entity_and_shared_by_its_statements() -> None:
    prompts = judgement_prompts(shipped_statements())
    orders = {s: prompt.split("\n")[:-1] for s, prompt in prompts.items() if s.kind == "cities"}
    for statement, order in orders.items():
        assert all(other == order for s, other in orders.items() if s.entity == statement.entity)
    assert len({tuple(order) for order in orders.values()}) > 10  # of 24


def test_too_few_examples_are_unmeasurable() -> None:
    statements = [Statement(f"{i}.", i % 2 == 0, str(i), "k", "test" if i else "fit") for i in range(6)]
    with pytest.raises(Unmeasurable, match="needs 2"):
        judgement_prompts(statements)
