"""The user's own statements, or facts of which statements are made."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import LABEL_WORDS, is_empty, label_of, refuse_mostly_empty
from mechdrift.prompts.data_files.facts import WrittenFact, fact_of, has_facts, statements_of
from mechdrift.prompts.data_files.sample import MOST, Sample
from mechdrift.prompts.data_files.table import Table, read_table
from mechdrift.prompts.data_files.text_formats import Row
from mechdrift.prompts.data_files.used import BEYOND, EMPTY, Used
from mechdrift.prompts.statements import Statement, split_entities

WHAT, OPTION = "statements file", "--mechdrift-statements"


@dataclass(frozen=True)
class Statements:
    """The statements of a file."""

    all: tuple[Statement, ...]
    """By kinds, in the order of the file."""
    used: Used
    """What was taken and left out."""


@dataclass(frozen=True)
class _Written:
    """A row."""

    text: str
    label: bool
    entity: str
    kind: str
    value: str
    negated: bool


def read_statements(given: str | Path, seed: int = 0) -> Statements:
    """The user's own statements, from a table (`data_files.table`).

    Columns: `statement` and `label` (true or false, yes or no, 1 or 0) are needed; `entity` (what the statement is about;
    default: the statement itself), `value` (what it says of it), `kind` (default: the file's name) and `negated` (whether it
    denies something; default: false) are optional. Others are left alone. A table of facts (`data_files.facts`) gives a true and
    a false statement for each. Rows without a statement are left out and counted.
    Raises InputError, with the line, for anything else.
    """
    table = read_table(str(given), WHAT, OPTION, "statement", of_column=False)
    written, left_out = _of_facts(table, seed) if has_facts(table.columns) else _of_rows(table)
    left_out = +(table.left_out + left_out)
    read: dict[str, list[_Written]] = defaultdict(list)
    for one in written:
        read[one.kind].append(one)
    statements = []
    for kind, group in sorted(read.items()):
        if len({one.label for one in group}) < 2:
            raise InputError(f"{WHAT} {given}: kind {kind!r} has one label only", "true and false ones", "add the other")
        splits = split_entities((one.entity for one in group), seed)
        statements += [
            Statement(one.text, one.label, one.entity, kind, splits[one.entity], one.value, one.negated) for one in group
        ]
    if not statements:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"{WHAT} {given}: none left ({why})", "statements, true and false", "give another file")
    return Statements(tuple(statements), Used.of(table.source, [one.text for one in statements], left_out))


def _of_rows(table: Table) -> tuple[list[_Written], Counter[str]]:
    """Statements as they stand in rows. Raises InputError."""
    left_out: Counter[str] = Counter()
    kept: Sample[_Written] = Sample(MOST)
    rows = 0
    for place, row in table.rows:
        rows += 1
        where = f"{WHAT} {place}"
        if missing := {"statement", "label"} - row.keys():
            raise InputError(
                f"{where}: no {' and no '.join(sorted(missing))}",
                "columns statement,label[,entity,value,kind,negated], or facts: subject,relation,object",
                "name the columns so",
            )
        if is_empty(row["statement"]):
            left_out[EMPTY] += 1
            continue
        one = _written(row, where, table.spec.stem)
        kept.add(one.entity, one)
    refuse_mostly_empty(WHAT, table.spec.given, "statement", left_out[EMPTY], rows)
    left_out[BEYOND.format(most=MOST)] += kept.beyond
    return kept.items, left_out


def _written(row: Row, where: str, name: str) -> _Written:
    """A row's statement; name: of its kind, where it has none. Raises InputError."""
    if not isinstance(row["statement"], str):
        raise InputError(f"{where}: {type(row['statement']).__name__} in column statement", "text", "fix the row")
    text, label = row["statement"].strip(), label_of(row["label"])
    if label is None:
        raise InputError(f"{where}: label {row['label']!r}", LABEL_WORDS, "fix the label")
    if bad := [letter for letter in text if letter == "\0" or "\ud800" <= letter <= "\udfff"]:
        raise InputError(f"{where}: the character {bad[0]!r}", "text that UTF-8 can write", "take it out")
    if not text.endswith("."):
        raise InputError(f"{where}: {text[-20:]!r} has no period at its end", "a sentence ending in '.'", "fix the statement")
    negated = False if is_empty(row.get("negated")) else label_of(row["negated"])
    if negated is None:
        raise InputError(f"{where}: negated {row['negated']!r}", LABEL_WORDS, "fix the cell")
    entity, value, kind = ("" if is_empty(row.get(column)) else str(row[column]) for column in ("entity", "value", "kind"))
    return _Written(text, label, entity or text, kind or name, value, negated)


def _of_facts(table: Table, seed: int) -> tuple[list[_Written], Counter[str]]:
    """A true and a false statement for each fact. Raises InputError."""
    left_out: Counter[str] = Counter()
    kept: Sample[WrittenFact] = Sample(MOST // 2)
    for place, row in table.rows:
        fact, reason = fact_of(f"{WHAT} {place}", row, table.spec.stem)
        if fact is None:
            left_out[reason] += 1
        else:
            kept.add(fact.subject, fact)
    left_out[BEYOND.format(most=MOST // 2)] += kept.beyond
    made, without = statements_of(kept.items, seed)
    left_out.update(without)
    return [_Written(text, label, fact.subject, fact.kind, value, False) for fact, value, label, text in made], left_out
