"""Few-shot prompts in which a model judges a statement TRUE or FALSE."""

import random
from collections.abc import Sequence

from mechdrift.errors import Unmeasurable
from mechdrift.prompts.statements import Split, Statement

SUFFIX = " This statement is:"
ANSWERS = {True: " TRUE", False: " FALSE"}
EXAMPLES_OF_EACH_LABEL = 2


def judged_line(text: str, label: bool) -> str:
    """A statement with its judgement, as in the few-shot lines."""
    return f"{text}{SUFFIX}{ANSWERS[label]}"


def judgement_prompt(text: str, examples: Sequence[tuple[str, bool]]) -> str:
    """The examples, one a line, then the statement waiting for its judgement."""
    return "\n".join([*(judged_line(*example) for example in examples), f"{text}{SUFFIX}"])


def judgement_prompts(statements: Sequence[Statement], seed: int = 0, split: Split = "test") -> dict[Statement, str]:
    """A prompt for every statement of a split: four fixed examples of its kind, in an order drawn per entity.

    Examples are of the fit split, so no judged entity is shown; the statements of an entity share the order.
    Raises Unmeasurable when a kind has no two fit statements of each label.
    """
    prompts = {}
    for kind in sorted({statement.kind for statement in statements}):
        examples = _examples([s for s in statements if s.kind == kind and s.split == "fit"], kind, seed)
        for statement in statements:
            if statement.kind == kind and statement.split == split:
                order = random.Random(f"{seed}/{kind}/{statement.entity}").sample(examples, len(examples))
                prompts[statement] = judgement_prompt(statement.text, order)
    return prompts


def _examples(fit: Sequence[Statement], kind: str, seed: int) -> list[tuple[str, bool]]:
    """Two true and two false statements about four entities where the table has that many."""
    rng = random.Random(f"{seed}/{kind}/examples")
    chosen: list[Statement] = []
    for label in (True, False):
        pool = [s for s in fit if s.label is label]
        fresh = [s for s in pool if s.entity not in {c.entity for c in chosen}]
        pool = fresh if len(fresh) >= EXAMPLES_OF_EACH_LABEL else pool
        if len(pool) < EXAMPLES_OF_EACH_LABEL:
            raise Unmeasurable(
                f"kind {kind!r} has {len(pool)} {label} fit statements; a few-shot prompt needs {EXAMPLES_OF_EACH_LABEL}"
            )
        chosen += rng.sample(pool, EXAMPLES_OF_EACH_LABEL)
    return [(s.text, s.label) for s in chosen]
