"""Facts as CounterFact and its relatives have them: a subject, a prompt that it stands in, what is true of it and what is not.

Known by their columns: `requested_rewrite` (an object with prompt, subject, target_true and target_new), the same flat
(`subject`, `prompt`, `target_true`, and `target_new` or `target_false`), or triples (`subject`, `relation`, `object`, optionally
`false_object`).
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import checked, is_empty, normal
from mechdrift.prompts.data_files.text_formats import Row
from mechdrift.prompts.statements import exchange_objects, split_entities

NESTED = "requested_rewrite"
FLAT = frozenset({"subject", "prompt", "target_true"})
TRIPLES = frozenset({"subject", "relation", "object"})
FALSE_TARGETS = ("target_new", "target_false", "false_object")
IDENTIFIER = re.compile(r"P\d+|\w*_\w*|[a-z]+([A-Z][a-z]*)+")  # P103, capital_of, capitalOf: a name of a relation, no words
TRIED = 8  # of those that wait for a partner: nearly all have the same object, or they would be pairs
NO_FALSE, NO_PARTNER, PARTS = "without a false object", "without a partner", "without a subject, a prompt or a target"
NOT_ONCE = "without the subject once in the prompt"


@dataclass(frozen=True)
class WrittenFact:
    """A fact of the user's."""

    subject: str
    """What it is about; where it stands in the prompt is its span."""
    before: str
    """The prompt up to the subject."""
    after: str
    """The prompt after the subject: the object follows it."""
    true: str
    """What is true of the subject."""
    false: str
    """What is not; empty where another fact's object has to serve."""
    kind: str
    """Its relation, or the file's name."""

    @property
    def prompt(self) -> str:
        """The prompt, which begins with a capital."""
        text = f"{self.before}{self.subject}{self.after}".strip()
        return text[0].upper() + text[1:]

    def sentence(self, value: str) -> str:
        """What says this of the subject; it ends in one period."""
        return f"{self.prompt} {value.removesuffix('.')}."


def has_facts(columns: Sequence[str]) -> bool:
    """Whether a table is one of facts."""
    return not {"statement", "clean"} & {*columns} and (NESTED in columns or set(columns) >= FLAT or set(columns) >= TRIPLES)


def fact_of(where: str, row: Row, name: str) -> tuple[WrittenFact | None, str]:
    """A row's fact, or why it is left out; name: of its kind, where the row has no relation. Raises InputError."""
    cells = _flat(where, row)
    subject, true = _text(where, cells, "subject"), _text(where, cells, "target_true") or _text(where, cells, "object")
    relation = _text(where, cells, "relation_id") or _text(where, cells, "relation")
    form = _text(where, cells, "prompt") or _form(where, _text(where, cells, "relation"))
    if not (subject and true and form):
        return None, PARTS
    if form.count("{}") == 1:
        before, after = form.split("{}")
    elif form.count(subject) == 1:
        before, after = form.split(subject)
    else:
        return None, NOT_ONCE
    false = next((text for column in FALSE_TARGETS if (text := _text(where, cells, column))), "")
    if normal(false) == normal(true):
        false = ""
    return WrittenFact(subject, before, after.rstrip(), true, false, _text(where, cells, "kind") or relation or name), ""


def _flat(where: str, row: Row) -> Row:
    """A row with the cells of CounterFact's `requested_rewrite` as its own. Raises InputError."""
    if NESTED not in row:
        return row
    nested = row[NESTED]
    if not isinstance(nested, dict):
        raise InputError(
            f"{where}: {type(nested).__name__} in column {NESTED}",
            "an object, which CSV cannot have",
            "save it as JSON or Parquet",
        )
    targets = {name: value.get("str") for name, value in nested.items() if isinstance(value, dict)}
    return row | nested | targets


def _text(where: str, cells: Row, column: str) -> str:
    """A cell's text; empty where there is none. Raises InputError."""
    value = cells.get(column)
    if is_empty(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: {type(value).__name__} in column {column}", "text", "fix the row")
    return checked(where, str(value).strip(), "row")


def _form(where: str, relation: str) -> str:
    """A triple's prompt: its relation with {} for the subject, or words that follow the subject. Raises InputError."""
    if IDENTIFIER.fullmatch(relation):
        raise InputError(
            f"{where}: relation {relation[:40]!r} is no words",
            "words between subject and object ('is the capital of'), or words with {} for the subject",
            "write them out, or add a column prompt",
        )
    return relation if "{}" in relation or not relation else f"{{}} {relation}"


def statements_of(facts: Sequence[WrittenFact], seed: int) -> tuple[list[tuple[WrittenFact, str, bool, str]], Counter[str]]:
    """(fact, what is said of it, whether that is true, the sentence), a true and a false one of each fact; and what is left out.

    A fact without a false object is given another's of the same kind and split, so that nothing leaks between splits.
    """
    left_out: Counter[str] = Counter()
    kinds: dict[str, list[WrittenFact]] = defaultdict(list)
    for fact in facts:
        kinds[fact.kind].append(fact)
    made = []
    for kind, group in kinds.items():
        splits = split_entities((fact.subject for fact in group), seed)
        lacking: dict[str, list[int]] = defaultdict(list)
        for number, fact in enumerate(group):
            if not fact.false:
                lacking[splits[fact.subject]].append(number)
        false = [fact.false for fact in group]
        for split, numbers in sorted(lacking.items()):
            numbers, surplus = _without_surplus(numbers, [group[number].true for number in numbers])
            left_out[NO_FALSE] += surplus
            if numbers:
                objects = [group[number].true for number in numbers]
                exchanged = exchange_objects(objects, random.Random(f"{seed}/{kind}/{split}"))
                for number, value in zip(numbers, exchanged, strict=True):
                    false[number] = value
        for fact, wrong in zip(group, false, strict=True):
            if wrong:
                made += [(fact, fact.true, True, fact.sentence(fact.true)), (fact, wrong, False, fact.sentence(wrong))]
    return made, left_out


def _without_surplus(numbers: list[int], objects: list[str]) -> tuple[list[int], int]:
    """Rows of which no object has more than half, so that each can be given another's; how many rows are not among them."""
    ((commonest, count),) = Counter(objects).most_common(1)
    surplus = max(0, 2 * count - len(objects))
    of_it = [number for number, value in zip(numbers, objects, strict=True) if value == commonest]
    dropped = set(of_it[count - surplus :]) if surplus else set()
    return [number for number in numbers if number not in dropped], surplus


def partners(facts: Sequence[WrittenFact]) -> tuple[list[tuple[WrittenFact, WrittenFact]], Counter[str]]:
    """Facts of one kind and prompt, two and two, with other objects; each is used once, and those without a partner are counted.

    Partners are alike in length, since a pair needs as many tokens on both sides.
    """
    groups: dict[tuple[str, str, str], list[WrittenFact]] = defaultdict(list)
    for fact in facts:
        groups[fact.kind, fact.before, fact.after].append(fact)
    pairs: list[tuple[WrittenFact, WrittenFact]] = []
    alone: Counter[str] = Counter()
    for group in groups.values():
        waiting: list[WrittenFact] = []
        for fact in sorted(group, key=lambda one: (len(one.subject.split()), len(one.subject), one.subject)):
            first_ones = waiting[:TRIED]
            fits = (
                n for n, one in enumerate(first_ones) if normal(one.true) != normal(fact.true) and one.subject != fact.subject
            )
            if (place := next(fits, None)) is None:
                waiting.append(fact)
            else:
                pairs.append((waiting.pop(place), fact))
        alone[NO_PARTNER] += len(waiting)
    return pairs, alone
