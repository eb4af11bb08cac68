"""True and false statements, in kinds, split by entity."""

import csv
import hashlib
import random
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Split = Literal["fit", "choose", "test"]
SPLIT_SHARES: tuple[tuple[Split, float], ...] = (("fit", 0.2), ("choose", 0.2), ("test", 0.6))


@dataclass(frozen=True)
class Statement:
    """One sentence that is true or false."""

    text: str
    """The bare sentence, ending in a period."""
    label: bool
    """Whether it is true."""
    entity: str
    """What it is about: the unit of sampling, so all statements about it share a split."""
    kind: str
    """The data set it belongs to, for example `cities`."""
    split: Split
    """fit: directions and probes; choose: layers and coefficients; test: every reported number."""
    value: str = ""
    """What it says of the entity, for example a country; empty where that is not known."""
    negated: bool = False
    """Whether it denies something: `Paris is not in Spain.` is negated and true."""


@dataclass(frozen=True)
class Fact:
    """One row of a table, true as it stands."""

    subject: str
    """What its sentences begin with or are about."""
    object: str
    """What is true of it."""
    false_object: str = ""
    """What is false of it; empty where any other object of the table is."""
    negated: str = ""
    """The subject as negated sentences have it, where the negation is part of it."""
    entity: str = ""
    """The unit of sampling."""
    question: str = ""
    """A question whose answer is the object; empty where there is none."""

    def sentence(self, form: str, value: str) -> str:
        """A sentence of this form that says value of the subject; it begins with a capital."""
        text = form.format(subject=self.subject, negated=self.negated, object=value)
        return text[0].upper() + text[1:]


@dataclass(frozen=True)
class FactTable:
    """A table of facts with its card."""

    kind: str
    """Name of the table and of its statements' kind."""
    forms: tuple[str, ...]
    """Sentence forms with {subject} and {object}; every entity appears in one of them."""
    negated_forms: tuple[str, ...]
    """The same forms negated, in the same order; {negated} where the tables' rows have their own negation."""
    facts: tuple[Fact, ...]
    """The rows."""
    card: dict[str, object]
    """Title, source, licence, n and sha256, as in the card file."""


@cache
def fact_tables() -> tuple[FactTable, ...]:
    """All shipped fact tables, sorted by kind."""
    folder = files("mechdrift.data") / "facts"
    cards = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    tables = []
    for entry in cards:
        card = tomllib.loads(entry.read_text(encoding="utf-8"))
        lines = (folder / f"{card['kind']}.csv").read_text(encoding="utf-8").splitlines()
        kind, question = card.pop("kind"), card.pop("question", "")
        defaults = [{"entity": row["subject"], "question": question.format(**row)} for row in csv.DictReader(lines)]
        facts = tuple(Fact(**(default | row)) for default, row in zip(defaults, csv.DictReader(lines), strict=True))
        tables.append(FactTable(kind, tuple(card.pop("forms")), tuple(card.pop("negated_forms")), facts, card))
    return tuple(tables)


def split_entities(entities: Iterable[str], seed: int) -> dict[str, Split]:
    """Assign entities to fit, choose and test by the rank of their hash: stable under reordering of the table."""
    ranked = sorted(set(entities), key=lambda entity: hashlib.sha256(f"{seed}/{entity}".encode()).digest())
    splits: dict[str, Split] = {}
    done, share = 0, 0.0
    for split, part in SPLIT_SHARES:
        share += part
        end = round(share * len(ranked))
        splits |= dict.fromkeys(ranked[done:end], split)
        done = end
    return splits


def exchange_objects(objects: list[str], rng: random.Random) -> list[str]:
    """Give every row another row's object: a permutation, so that each object is false as often as it is true.

    Raises ValueError when one object fills more than half of the rows.
    """
    if max(objects.count(value) for value in set(objects)) * 2 > len(objects):
        raise ValueError("one object fills more than half of the rows: no false statement for each")
    given = objects.copy()
    rng.shuffle(given)
    while clashes := [row for row, value in enumerate(given) if value == objects[row]]:
        row = clashes[0]
        # Any swap that repairs this row without spoiling the other is as good as another.
        partners = [p for p in range(len(given)) if given[p] != objects[row] and given[row] != objects[p]]
        other = rng.choice(partners)
        given[row], given[other] = given[other], given[row]
    return given


def table_statements(table: FactTable, seed: int = 0, negated: bool = False) -> list[Statement]:
    """One true and one false statement for every fact, the form by turns; or the same two negated, and so with labels exchanged.

    False objects come from the fact's own row or from the same kind and split, so nothing leaks between splits.
    """
    splits = split_entities((fact.entity for fact in table.facts), seed)
    forms = table.negated_forms if negated else table.forms
    statements = []
    for split, _ in SPLIT_SHARES:
        facts = [fact for fact in table.facts if splits[fact.entity] == split]
        if all(fact.false_object for fact in facts):
            wrong = [fact.false_object for fact in facts]
        else:
            wrong = exchange_objects([fact.object for fact in facts], random.Random(f"{seed}/{table.kind}/{split}"))
        for number, (fact, other) in enumerate(zip(facts, wrong, strict=True)):
            form = forms[number % len(forms)]
            for value, right in ((fact.object, True), (other, False)):
                text = fact.sentence(form, value)
                statements.append(Statement(text, right is not negated, fact.entity, table.kind, split, value, negated))
    return statements


def shipped_statements(seed: int = 0) -> list[Statement]:
    """The statements of every shipped table, each affirmed and negated."""
    return [
        statement for table in fact_tables() for negated in (False, True) for statement in table_statements(table, seed, negated)
    ]
