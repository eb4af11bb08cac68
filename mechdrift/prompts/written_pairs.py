"""The user's own pairs."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import is_empty, refuse_mostly_empty
from mechdrift.prompts.data_files.facts import WrittenFact, fact_of, has_facts, partners
from mechdrift.prompts.data_files.sample import MOST, Sample
from mechdrift.prompts.data_files.table import Table, read_table
from mechdrift.prompts.data_files.text_formats import Row
from mechdrift.prompts.data_files.used import BEYOND, EMPTY, Used
from mechdrift.prompts.pair_layout import Named, Question, found_pairs, judged, lay_out
from mechdrift.prompts.pairs import Encode, Form, Found, Start, components
from mechdrift.prompts.statements import Split, Statement, split_entities

WHAT, OPTION = "pairs file", "--mechdrift-pairs"
Cells = tuple[str, str, tuple[str, str] | None, str]
"""Clean, corrupt, answers and entity of a row."""


@dataclass(frozen=True)
class WrittenPair:
    """A pair of the user's."""

    clean: str
    """A true statement, or a prompt where answers are given."""
    corrupt: str
    """A false statement with the same token layout, or a prompt."""
    answers: tuple[str, str] | None
    """What the two prompts should continue with; None where statements are to be judged."""
    entity: str
    """What it is about: the unit of sampling. Rows that share an entity or a text are about one."""
    kind: str
    """The data set it belongs to."""
    split: Split
    """Of its entity; fit: examples for judging."""

    @property
    def form(self) -> Form:
        """How it asks."""
        return "cloze" if self.answers else "judged"


@dataclass(frozen=True)
class Pairs:
    """The pairs of a file."""

    all: tuple[WrittenPair, ...]
    """By kinds, in the order of the file."""
    used: Used
    """What was taken and left out."""


def read_pairs(given: str | Path, seed: int = 0) -> Pairs:
    """The user's own pairs, from a table (`data_files.table`).

    Columns: `clean` and `corrupt` are needed. With `correct` and `other` they are prompts, and those their continuations with the
    space that belongs there; without, they are a true and a false statement, to be judged. `entity` (default: the clean text)
    and `kind` (default: the file's name) are optional. Rows of a kind that share an entity or a text, directly or through others,
    have one entity and one split. A table of facts (`data_files.facts`) gives prompts: two facts with one prompt and other
    objects are a pair. Rows without texts are left out and counted. Raises InputError, with the line, for anything else.
    """
    table = read_table(str(given), WHAT, OPTION, "pair", of_column=False)
    rows, left_out = _of_facts(table) if has_facts(table.columns) else _of_rows(table)
    left_out = +(table.left_out + left_out)
    read: dict[str, list[Cells]] = defaultdict(list)
    for kind, cells in rows:
        read[kind].append(cells)
    if not read:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"{WHAT} {given}: none left ({why})", "pairs of texts", "give another file")
    pairs = []
    for kind, group in sorted(read.items()):
        of = components([{("entity", entity), clean, corrupt} for clean, corrupt, _, entity in group])
        names: dict[int, str] = {}
        for number, cells in zip(of, group, strict=True):
            names[number] = min(names.get(number, cells[-1]), cells[-1])
        splits = split_entities(names.values(), seed)
        pairs += [
            WrittenPair(*cells[:3], entity=names[number], kind=kind, split=splits[names[number]])
            for number, cells in zip(of, group, strict=True)
        ]
    texts = ["\t".join((pair.clean, pair.corrupt, *(pair.answers or ()))) for pair in pairs]
    return Pairs(tuple(pairs), Used.of(table.source, texts, left_out))


def _of_rows(table: Table) -> tuple[list[tuple[str, Cells]], Counter[str]]:
    """Pairs as they stand in rows, with their kinds. Raises InputError."""
    left_out: Counter[str] = Counter()
    kept: Sample[tuple[str, Cells]] = Sample(MOST)
    kinds: dict[tuple[bool, str], str] = {}
    rows = 0
    for place, row in table.rows:
        rows += 1
        where = f"{WHAT} {place}"
        if {"clean", "corrupt"} <= row.keys() and is_empty(row["clean"]) and is_empty(row["corrupt"]):
            left_out[EMPTY] += 1
            continue
        kind, cells = _written(row, where, table.spec.stem)
        *_, answers, entity = cells
        if (first := kinds.setdefault((answers is None, entity), kind)) != kind:
            raise InputError(
                f"{where}: entity {entity!r} is of kind {first!r} and of kind {kind!r}",
                "one kind for all rows about an entity",
                "give them one kind, or name the entities apart",
            )
        kept.add(entity, (kind, cells))
        if entity not in kept:
            del kinds[answers is None, entity]
    refuse_mostly_empty(WHAT, table.spec.given, "clean", left_out[EMPTY], rows)
    left_out[BEYOND.format(most=MOST)] += kept.beyond
    return kept.items, left_out


def _of_facts(table: Table) -> tuple[list[tuple[str, Cells]], Counter[str]]:
    """Prompts of two facts each, with their kinds. Raises InputError."""
    left_out: Counter[str] = Counter()
    kept: Sample[WrittenFact] = Sample(MOST)
    for place, row in table.rows:
        fact, reason = fact_of(f"{WHAT} {place}", row, table.spec.stem)
        if fact is None:
            left_out[reason] += 1
        else:
            kept.add(fact.subject, fact)
    left_out[BEYOND.format(most=MOST)] += kept.beyond
    pairs, alone = partners(kept.items)
    left_out.update(alone)
    return [
        (one.kind, (one.prompt, other.prompt, (f" {one.true}", f" {other.true}"), f"{one.kind}: {one.subject} / {other.subject}"))
        for one, other in pairs
    ], left_out


def _written(row: Row, where: str, name: str) -> tuple[str, Cells]:
    """Kind, and (clean, corrupt, answers, entity), of a row of the user's; name: of the kind, where the row has none."""
    if missing := {"clean", "corrupt"} - row.keys():
        raise InputError(
            f"{where}: no {' and no '.join(sorted(missing))}",
            "columns clean,corrupt[,correct,other,entity,kind], or facts: subject,prompt,target_true",
            "name the columns so",
        )
    cells = {column: _cell(row, column, where) for column in ("clean", "corrupt", "correct", "other", "entity", "kind")}
    clean, corrupt = cells["clean"].strip(), cells["corrupt"].strip()
    if not clean or not corrupt or clean == corrupt:
        raise InputError(f"{where}: clean {clean!r}, corrupt {corrupt!r}", "two different texts", "fix the line")
    correct, other = cells["correct"], cells["other"]
    if bool(correct) != bool(other) or (correct and correct == other):
        raise InputError(f"{where}: correct {correct!r}, other {other!r}", "two different answers, or none", "fix the line")
    if not correct:
        for text in (clean, corrupt):
            if not text.endswith("."):
                raise InputError(
                    f"{where}: {text[-20:]!r} has no period at its end",
                    "a sentence ending in '.', or columns correct,other",
                    "fix the line",
                )
            if len(text.splitlines()) > 1 or "\t" in text:
                raise InputError(f"{where}: {text[:40]!r} is no single line", "one sentence, without tabs", "fix the line")
    return cells["kind"] or name, (clean, corrupt, (correct, other) if correct else None, cells["entity"] or clean)


def _cell(row: Row, column: str, where: str) -> str:
    """A cell's text; empty where there is none. Line breaks and tabs may belong to a prompt, other control characters to none."""
    value = row.get(column)
    if not isinstance(value, str | int | float | None) or isinstance(value, bool):
        raise InputError(f"{where}: {column} is {str(value)[:40]!r}", "text", "fix the line")
    text = "" if value is None else str(value)
    if bad := [character for character in text if character not in "\n\r\t" and unicodedata.category(character) in ("Cc", "Cs")]:
        raise InputError(f"{where}: {column} holds the character {bad[0]!r}", "printable text", "take it out")
    return text


def written_pairs(
    pairs: Sequence[WrittenPair], encode: Encode, seed: int = 0, split: Split = "test", start: Start = "difference"
) -> Found:
    """The user's pairs of a split that this tokenizer gives one layout; columns are knowledge, others and last.

    start: where columns begin. Raises Unmeasurable where statements are to be judged and a kind has no examples for it in its
    fit split.
    """
    chosen = [pair for pair in pairs if pair.split == split]
    examples = [
        Statement(text, label, pair.entity, pair.kind, pair.split)
        for pair in pairs
        if pair.answers is None and pair.split == "fit"
        for text, label in ((pair.clean, True), (pair.corrupt, False))
    ]
    not_requested = [(pair.clean, pair.corrupt, pair.entity, pair.kind) for pair in chosen if pair.answers is None]
    prompts = iter(judged(not_requested, examples, seed, split))
    sides = [
        (Question(pair.clean, pair.answers), Question(pair.corrupt, pair.answers)) if pair.answers else next(prompts)
        for pair in chosen
    ]
    named = [Named(pair.entity, pair.kind, (pair.clean, pair.corrupt), (pair.entity,)) for pair in chosen]
    return found_pairs(lay_out(sides, encode, start), named, split, len(chosen), Counter())
