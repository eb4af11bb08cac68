"""Pairs of prompts that differ in what they name and in nothing else, token by token, for activation patching.

The clean prompt names a subject of which something is true, the corrupt one another subject, of which it is false. Tokens are
told apart by the characters that they hold, so the rule is the same for every tokenizer.
"""

import hashlib
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from mechdrift.errors import InputError, Unmeasurable
from mechdrift.prompts.judgement import ANSWERS, SUFFIX, judgement_prompts
from mechdrift.prompts.statements import (
    Fact,
    FactTable,
    Split,
    Statement,
    read_rows,
    split_entities,
    table_statements,
)

Form = Literal["judged", "cloze"]
FORMS: tuple[Form, ...] = ("judged", "cloze")
Pairing = Literal["entities", "statements"]
"""Of a table: each entity used once, or every true statement with a false one, which may recur (as published)."""
Start = Literal["difference", "statement"]
"""Where columns begin: at the first token that differs, or with the last statement (as published)."""
NEGATED = "neg_"  # before a table's kind: the published name of its negated statements
Encode = Callable[[list[str]], tuple[list[list[int]], list[list[tuple[int, int]]]]]
"""Token ids and character offsets of texts: `mechdrift.engine.sites.encode` with a tokenizer."""

SUBJECT, OBJECT, KNOWLEDGE, OTHERS, LAST = "subject", "object", "knowledge", "others", "last"

NO_PARTNER = "no other subject of the same token layout, with another object, left in the split"
NO_FALSE_STATEMENT = "no false statement of the same form, object and token layout in the split"
LENGTHS_DIFFER = "clean and corrupt prompt differ in length"
DIFFER_ELSEWHERE = "tokens differ outside the subject"
SAME_TOKENS = "clean and corrupt prompt are the same tokens"
NOT_TOLD_APART = "no single token distinguishes the two answers"
LONGER = "longer than the context of {context} tokens"


class Span(NamedTuple):
    """Characters of a text, end excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class Asked:
    """One side of a pair, before any tokenizer has seen it."""

    text: str
    """Up to where the answer begins."""
    answers: tuple[str, str]
    """What the pair's clean and its corrupt side should continue with."""
    after: str = ""
    """What follows an answer: it can change which token the answer begins with."""
    subject: Span | None = None
    """Where the subject stands; None where that is not known."""
    object: Span | None = None
    """Where the object stands; None where it is the answer, or not known."""
    start: int = 0
    """The character with which the last statement begins: examples stand before it."""


@dataclass(frozen=True)
class PromptPair:
    """A clean and a corrupt prompt with the same token layout."""

    clean: tuple[int, ...]
    """Token ids of the prompt that should be answered by answers[0]."""
    corrupt: tuple[int, ...]
    """Token ids of the prompt that should be answered by answers[1]; as many."""
    answers: tuple[int, int]
    """Token ids: right after the clean prompt, and right after the corrupt one."""
    first: int
    """Where columns begin: the first position at which the prompts differ, or the first token of the last statement."""
    columns: tuple[str, ...]
    """A name for each position from there on: `subject[-1]` is the subject's last token, `last` the prompt's; user's pairs have
    `knowledge`, for all tokens that differ, `others` and `last`."""
    unit: str
    """The entities that pairs link, directly or through others: the unit of sampling. No entity is in two units of a table."""
    kind: str
    """The data set."""
    split: Split
    """Of all its entities."""
    words: tuple[str, str]
    """The two statements or prompts without their examples, for the reader."""
    entities: tuple[str, ...] = ()
    """What it is about; of a table's pair the clean side's first."""

    @property
    def sampled(self) -> tuple[str, str]:
        """Table and unit: a table's negated statements are about the same entities as the others."""
        return self.kind.removeprefix(NEGATED), self.unit


@dataclass(frozen=True)
class Found:
    """The pairs that one tokenizer allows."""

    pairs: tuple[PromptPair, ...]
    """In an order drawn by the seed, the pairs of a unit together: the first n are a fair sample."""
    entities: int
    """How many entities of the split were tried, or pairs of the user's."""
    dropped: dict[str, int] = field(default_factory=dict)
    """How many of those (entities without a partner, pairs otherwise) fell out, by reason."""

    @property
    def units(self) -> int:
        """Independent units among the pairs."""
        return len({pair.sampled for pair in self.pairs})

    def told(self) -> str:
        """In one line."""
        reasons = "".join(f"; {count} dropped: {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{len(self.pairs)} pairs in {self.units} units of {self.entities} entities{reasons}"

    def require(self, units: int) -> None:
        """Raise Unmeasurable, with the counts, unless there are so many units."""
        if self.units < units:
            raise Unmeasurable(f"{self.told()}; {units} units needed")

    def within(self, context: int | None) -> "Found":
        """Those whose prompts fit into a context of so many tokens; None: any length."""
        if context is None:
            return self
        kept = tuple(pair for pair in self.pairs if len(pair.clean) <= context)
        longer = {LONGER.format(context=context): len(self.pairs) - len(kept)}
        return replace(self, pairs=kept, dropped=self.dropped | {reason: count for reason, count in longer.items() if count})


def put_together(found: Sequence[Found]) -> Found:
    """Pairs of several kinds, in units that share no entity."""
    dropped: Counter[str] = Counter()
    for one in found:
        dropped.update(one.dropped)
    pairs = linked([pair for one in found for pair in one.pairs])
    return Found(pairs, sum(one.entities for one in found), dict(dropped))


def linked(pairs: Sequence[PromptPair]) -> tuple[PromptPair, ...]:
    """The same pairs in units that share no entity: all entities of a table that pairs link are one. A unit's stay together."""
    of = components([{(pair.sampled[0], entity) for entity in pair.entities} for pair in pairs])
    names: dict[int, set[str]] = defaultdict(set)
    for number, pair in zip(of, pairs, strict=True):
        names[number] |= {*pair.entities}
    place = {number: order for order, number in enumerate(dict.fromkeys(of))}
    together = sorted(zip(of, pairs, strict=True), key=lambda one: place[one[0]])
    return tuple(replace(pair, unit=_unit_name(names[number])) for number, pair in together)


def _unit_name(entities: Collection[str]) -> str:
    """Of no other unit, since no entity is in two."""
    first = " / ".join(sorted(entities)[:2])
    return f"{first} and {len(entities) - 2} more" if len(entities) > 2 else first


def components(groups: Sequence[Collection[Hashable]]) -> list[int]:
    """Of each group a number: the same for groups that share a member, directly or through others."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[Hashable, int] = {}
    links = [(row, numbers.setdefault(member, len(numbers))) for row, group in enumerate(groups) for member in group]
    size = len(groups) + len(numbers)
    rows, columns = [row for row, _ in links], [len(groups) + number for _, number in links]
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(size, size))
    return [int(number) for number in connected_components(graph, directed=False)[1][: len(groups)]]


def is_knowledge(column: str) -> bool:
    """Whether a column is one of those that carry what is known: subject and object, or the tokens that differ."""
    return part_of(column) in (SUBJECT, OBJECT, KNOWLEDGE)


def part_of(column: str) -> str:
    """The part of the prompt that a column belongs to: `subject` for `subject[-2]`."""
    return column.partition("[")[0]


def table_pairs(
    table: FactTable,
    encode: Encode,
    form: Form = "judged",
    seed: int = 0,
    split: Split = "test",
    negated: bool = False,
    pairing: Pairing = "entities",
    start: Start = "difference",
) -> Found:
    """Pairs of a table's split.

    pairing: `entities` joins entities two by two, each used once: of the same sentence form, with as many tokens and the same
    tokens around them, and another object. Each two give two pairs, one for either object ("A is in the country of A" / "B is in
    the country of A", and with B's); where a table says itself what is false, only the pairs that it says. `statements` joins
    every true statement with a false one of the table, of the same form, object and token layout, drawn by the seed; false ones
    may recur, and entities that pairs link are one unit.
    judged: the statement after four examples, the same on both sides; negated statements too, of kind neg_*. cloze: the
    statement up to the object, and into it as far as the two objects begin alike. start: where columns begin. Raises
    Unmeasurable where there are no examples to judge by.
    """
    splits = split_entities((fact.entity for fact in table.facts), seed)
    # As in table_statements, every fact is asked in one form, by turns.
    forms = table.negated_forms if negated else table.forms
    spoken = [(fact, forms[n % len(forms)]) for n, fact in enumerate(table.facts) if splits[fact.entity] == split]
    spoken.sort(key=lambda one: hashlib.sha256(f"{seed}/{one[0].entity}/{one[0].subject}".encode()).digest())
    dropped: Counter[str] = Counter()
    drafts = []
    join = _joined if pairing == "entities" else partial(_restated, lies=_lies(table, seed, split), negated=negated, seed=seed)
    for fact, partner, its_form, unit in join(spoken, encode, dropped, "\n" if form == "judged" else ""):
        right, wrong = (_Sentence.of(of, its_form, fact.object) for of in (fact, partner))
        # A negated sentence is true of the one of whom the plain one is false.
        about, other, both = (partner, fact, (wrong, right)) if negated else (fact, partner, (right, wrong))
        drafts.append(_Draft(*both, (fact.object, partner.object), unit, (about.entity, other.entity)))
    if form == "judged":
        examples = [s for s in table_statements(table, seed, negated) if s.split == "fit"]
        sides = _judged([(d.clean.text, d.corrupt.text, d.unit, table.kind) for d in drafts], examples, seed, split)
        sides = [
            (_placed(clean, draft.clean), _placed(corrupt, draft.corrupt))
            for draft, (clean, corrupt) in zip(drafts, sides, strict=True)
        ]
    else:
        sides = [(draft.clean.asked(draft.objects), draft.corrupt.asked(draft.objects)) for draft in drafts]
    kind = NEGATED + table.kind if negated else table.kind
    named = [_Named(draft.unit, kind, (draft.clean.text, draft.corrupt.text), draft.entities) for draft in drafts]
    found = _found(_lay_out(sides, encode, start), named, split, len({fact.entity for fact, _ in spoken}), dropped)
    return found if pairing == "entities" else replace(found, pairs=linked(found.pairs))


@dataclass(frozen=True)
class _Sentence:
    """A sentence with the places of what it names."""

    text: str
    subject: Span
    object: Span

    @classmethod
    def of(cls, fact: Fact, form: str, value: str) -> "_Sentence":
        """The fact's sentence with an object, its own or not."""
        text = fact.sentence(form, value)
        name = "{negated}" if "{negated}" in form else "{subject}"
        part = fact.negated if name == "{negated}" else fact.subject
        # `two is larger than` is about two: of such a subject only the entity is exchanged.
        inner = max(part.lower().find(fact.entity.lower()), 0)
        length = len(fact.entity) if fact.entity.lower() in part.lower() else len(part)
        start = form.index(name) + inner
        before, after = form.format(subject=fact.subject, negated=fact.negated, object="\0").split("\0")
        assert len(before) + len(value) + len(after) == len(text)
        return cls(text, Span(start, start + length), Span(len(before), len(before) + len(value)))

    @property
    def stem(self) -> str:
        """Up to the object."""
        return self.text[: self.object.start]

    def asked(self, objects: tuple[str, str]) -> Asked:
        """The sentence up to its object, for which there are two."""
        return Asked(self.stem, objects, self.text[self.object.end :], self.subject)


class _Draft(NamedTuple):
    """A pair before it is laid out."""

    clean: _Sentence
    corrupt: _Sentence
    objects: tuple[str, str]
    """Of the clean and of the corrupt subject."""
    unit: str
    """It draws the order of the examples."""
    entities: tuple[str, str]


class _Named(NamedTuple):
    """What a pair is called."""

    unit: str
    kind: str
    words: tuple[str, str]
    entities: tuple[str, ...]


def _judged(
    pairs: Sequence[tuple[str, str, str, str]], examples: Sequence[Statement], seed: int, split: Split
) -> list[tuple[Asked, Asked]]:
    """Both statements of each (clean, corrupt, unit, kind) after the same examples in the same order, which the unit draws."""
    statements = [
        (Statement(clean, True, unit, kind, split), Statement(corrupt, False, unit, kind, split))
        for clean, corrupt, unit, kind in pairs
    ]
    prompts = judgement_prompts([*examples, *(s for both in statements for s in both)], seed, split)
    answers = ANSWERS[True], ANSWERS[False]

    def asked(statement: Statement) -> Asked:
        prompt = prompts[statement]
        return Asked(prompt, answers, start=len(prompt) - len(SUFFIX) - len(statement.text))

    return [(asked(clean), asked(corrupt)) for clean, corrupt in statements]


def _placed(asked: Asked, sentence: _Sentence) -> Asked:
    """A judged prompt with the places of what its last statement names."""
    subject, object_ = (Span(asked.start + span.start, asked.start + span.end) for span in (sentence.subject, sentence.object))
    return replace(asked, subject=subject, object=object_)


def _is_false_of(fact: Fact, value: str) -> bool:
    """Whether an object is false of the fact's subject: the one named there, or where none is any other of the table."""
    return fact.false_object == value if fact.false_object else fact.object != value


class _Join(NamedTuple):
    """A fact and one of whom its object is false."""

    fact: Fact
    partner: Fact
    form: str
    unit: str


def _layouts(spoken: Sequence[tuple[Fact, str]], encode: Encode, context: str) -> list[list[int]]:
    """Indices of facts of one token layout up to the object, with the same tokens around the subject."""
    stems = [_Sentence.of(fact, form, fact.object) for fact, form in spoken]
    ids, offsets = encode([context + sentence.stem.rstrip() for sentence in stems])
    classes: dict[tuple[tuple[str, ...], tuple[int, ...]], list[int]] = defaultdict(list)
    for number, sentence in enumerate(stems):
        span = Span(sentence.subject.start + len(context), sentence.subject.end + len(context))
        parts = tuple(_part(place, span, None) for place in offsets[number])
        around = tuple(token for token, part in zip(ids[number], parts, strict=True) if part != SUBJECT)
        classes[parts, around].append(number)
    return list(classes.values())


def _lies(table: FactTable, seed: int, split: Split) -> dict[Fact, str]:
    """The object of each fact's false statement in table_statements."""
    splits = split_entities((fact.entity for fact in table.facts), seed)
    facts = [fact for fact in table.facts if splits[fact.entity] == split]
    false = [statement for statement in table_statements(table, seed) if statement.split == split and not statement.label]
    return {fact: statement.value for fact, statement in zip(facts, false, strict=True)}


def _restated(
    spoken: Sequence[tuple[Fact, str]],
    encode: Encode,
    dropped: "Counter[str]",
    context: str,
    lies: dict[Fact, str],
    negated: bool,
    seed: int,
) -> list[_Join]:
    """Every fact's true statement with a false one that names the same object, drawn by the seed: false ones may recur."""
    joined: dict[int, _Join] = {}
    for members in _layouts(spoken, encode, context):
        facts = [spoken[number][0] for number in members]
        for number, fact in zip(members, facts, strict=True):
            # What a negated statement denies truly is the lie, and falsely the fact's object.
            partners = [
                other
                for other in facts
                if other.entity != fact.entity and (lies[fact] == other.object if negated else fact.object == lies[other])
            ]
            if partners:
                partner = random.Random(f"{seed}/{fact.entity}/{fact.subject}").choice(partners)
                both = (partner, fact) if negated else (fact, partner)
                joined[number] = _Join(*both, spoken[number][1], f"{fact.entity} / {partner.entity}")
    if alone := len(spoken) - len(joined):
        dropped[NO_FALSE_STATEMENT] += alone
    return [joined[number] for number in sorted(joined)]


def _joined(spoken: Sequence[tuple[Fact, str]], encode: Encode, dropped: "Counter[str]", context: str) -> list[_Join]:
    """Facts two by two, each entity once: of one token layout up to the object, with objects that can be exchanged.

    Those with the fewest partners choose first, and choose whom the fewest want: with objects as colours, the two most frequent
    ones meet, so as few as can be are left over.
    """
    import numpy as np

    joined = []
    used: set[str] = set()
    for members in _layouts(spoken, encode, context):
        facts = [spoken[number][0] for number in members]
        possible = np.array(
            [[a.entity != b.entity and (_is_false_of(b, a.object) or _is_false_of(a, b.object)) for b in facts] for a in facts]
        )
        for row, fact in enumerate(facts):
            if fact.entity in used:
                possible[row] = possible[:, row] = False
        while possible.any():
            partners = possible.sum(1)
            one = int(np.argmin(np.where(partners > 0, partners, len(facts) + 1)))
            other = int(np.argmin(np.where(possible[one], partners, len(facts) + 1)))
            joined.append((spoken[members[one]], spoken[members[other]]))
            used |= {facts[one].entity, facts[other].entity}
            for row, fact in enumerate(facts):
                if fact.entity in used:
                    possible[row] = possible[:, row] = False
    if alone := len({fact.entity for fact, _ in spoken} - used):
        dropped[NO_PARTNER] += alone
    order = {id(fact): number for number, (fact, _) in enumerate(spoken)}
    pairs = []
    for (first, form), (second, _) in sorted(joined, key=lambda two: order[id(two[0][0])]):
        both = (first, second), (second, first)
        pairs += [_Join(a, b, form, f"{first.entity} / {second.entity}") for a, b in both if _is_false_of(b, a.object)]
    return pairs


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


def read_pairs(path: Path, seed: int = 0) -> list[WrittenPair]:
    """The user's own pairs, from CSV or JSONL.

    Columns: `clean` and `corrupt` are needed. With `correct` and `other` they are prompts, and those their continuations with the
    space that belongs there; without, they are a true and a false statement, to be judged. `entity` (default: the clean text)
    and `kind` (default: the file's name) are optional. Rows of a kind that share an entity or a text, directly or through others,
    have one entity and one split. Raises InputError, with the line, for anything else.
    """
    if not path.is_file():
        raise InputError(f"pairs file {path}: not found", "a CSV or JSONL file", "check --mechdrift-pairs")
    rows = read_rows(path, "pairs file")
    if not rows:
        raise InputError(f"pairs file {path}: no rows", "one pair a row", "fill the file")
    read: dict[str, list[tuple[str, str, tuple[str, str] | None, str]]] = defaultdict(list)
    kinds: dict[tuple[bool, str], str] = {}
    for number, row in rows:
        where = f"pairs file {path}, line {number}"
        kind, cells = _written(row, where, path.stem)
        *_, answers, entity = cells
        if (first := kinds.setdefault((answers is None, entity), kind)) != kind:
            raise InputError(
                f"{where}: entity {entity!r} is of kind {first!r} and of kind {kind!r}",
                "one kind for all rows about an entity",
                "give them one kind, or name the entities apart",
            )
        read[kind].append(cells)
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
    return pairs


def _written(row: dict[str, object], where: str, name: str) -> tuple[str, tuple[str, str, tuple[str, str] | None, str]]:
    """Kind, and (clean, corrupt, answers, entity), of a row of the user's; name: of the kind, where the row has none."""
    if missing := {"clean", "corrupt"} - row.keys():
        raise InputError(
            f"{where}: no {' and no '.join(sorted(missing))}",
            "columns clean,corrupt[,correct,other,entity,kind]",
            "name the columns so",
        )
    if None in row:
        raise InputError(f"{where}: more cells than columns", "one cell a column", "quote what holds a comma")
    cells = {column: _cell(row, column, where) for column in ("clean", "corrupt", "correct", "other", "entity", "kind")}
    clean, corrupt = cells["clean"].strip(), cells["corrupt"].strip()
    if not clean or not corrupt or clean == corrupt:
        raise InputError(f"{where}: clean {clean!r}, corrupt {corrupt!r}", "two different texts", "mend the line")
    correct, other = cells["correct"], cells["other"]
    if bool(correct) != bool(other) or (correct and correct == other):
        raise InputError(f"{where}: correct {correct!r}, other {other!r}", "two different answers, or none", "mend the line")
    if not correct:
        for text in (clean, corrupt):
            if not text.endswith("."):
                raise InputError(
                    f"{where}: {text[-20:]!r} has no period at its end",
                    "a sentence ending in '.', or columns correct,other",
                    "mend the line",
                )
            if len(text.splitlines()) > 1 or "\t" in text:
                raise InputError(f"{where}: {text[:40]!r} is no single line", "one sentence, without tabs", "mend the line")
    return cells["kind"] or name, (clean, corrupt, (correct, other) if correct else None, cells["entity"] or clean)


def _cell(row: dict[str, object], column: str, where: str) -> str:
    """A cell's text; empty where there is none. Line breaks and tabs may belong to a prompt, other control characters to none."""
    value = row.get(column)
    if not isinstance(value, str | int | float | None) or isinstance(value, bool):
        raise InputError(f"{where}: {column} is {str(value)[:40]!r}", "text", "mend the line")
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
    unasked = [(pair.clean, pair.corrupt, pair.entity, pair.kind) for pair in chosen if pair.answers is None]
    judged = iter(_judged(unasked, examples, seed, split))
    sides = [
        (Asked(pair.clean, pair.answers), Asked(pair.corrupt, pair.answers)) if pair.answers else next(judged) for pair in chosen
    ]
    named = [_Named(pair.entity, pair.kind, (pair.clean, pair.corrupt), (pair.entity,)) for pair in chosen]
    return _found(_lay_out(sides, encode, start), named, split, len(chosen), Counter())


def _found(laid: Sequence["_Laid | str"], named: Sequence[_Named], split: Split, entities: int, dropped: "Counter[str]") -> Found:
    """The pairs that could be laid out, with their names; the rest counted by reason."""
    pairs = []
    for layout, name in zip(laid, named, strict=True):
        if isinstance(layout, str):
            dropped[layout] += 1
        else:
            pairs.append(
                PromptPair(*layout, unit=name.unit, kind=name.kind, split=split, words=name.words, entities=name.entities)
            )
    return Found(tuple(pairs), entities, dict(dropped))


class _Laid(NamedTuple):
    """Tokens of a pair, as in PromptPair."""

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    answers: tuple[int, int]
    first: int
    columns: tuple[str, ...]


def _lay_out(sides: Sequence[tuple[Asked, Asked]], encode: Encode, start: Start) -> list[_Laid | str]:
    """Each pair's tokens, or why it has none. Prompts are encoded together with both answers, so spaces fall as they will."""
    asked = [side for both in sides for side in both]
    whole = [side.text + answer + side.after for side in asked for answer in side.answers]
    ids, offsets = encode(whole) if whole else ([], [])
    laid: list[_Laid | str] = []
    for at, (clean, corrupt) in zip(range(0, len(whole), 4), sides, strict=True):
        right = _prompt(clean, ids[at : at + 2], offsets[at : at + 2])
        wrong = _prompt(corrupt, ids[at + 2 : at + 4], offsets[at + 2 : at + 4])
        laid.append(NOT_TOLD_APART if right is None or wrong is None else _aligned(right, wrong, start))
    return laid


class _Read(NamedTuple):
    """A prompt up to where its answers part."""

    ids: tuple[int, ...]
    parts: tuple[str, ...] | None
    answers: tuple[int, int]
    start: int
    """The token with which the last statement begins."""


def _prompt(side: Asked, ids: list[list[int]], offsets: list[list[tuple[int, int]]]) -> _Read | None:
    """The tokens that both continuations share, and the first of each that they do not; None unless those hold the answers."""
    parting = next((i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), None)
    if parting is None:
        return None
    start = len(side.text)
    for answer, places in zip(side.answers, offsets, strict=True):
        begin, end = places[parting]
        if not (begin < start + len(answer) and end > start):
            return None
    parts = None
    if side.subject is not None:
        parts = tuple(_part(place, side.subject, side.object) for place in offsets[0][:parting])
    begins = next(token for token, (_, end) in enumerate(offsets[0]) if end > side.start)
    return _Read(tuple(ids[0][:parting]), parts, (ids[0][parting], ids[1][parting]), begins)


def _part(place: tuple[int, int], subject: Span, object_: Span | None) -> str:
    """The part of a prompt to which a token belongs: that of which it holds a character."""
    start, end = place
    if start < subject.end and end > subject.start:
        return SUBJECT
    if object_ is not None and start < object_.end and end > object_.start:
        return OBJECT
    if start < subject.start:
        return "before"
    return "between" if object_ is None or start < object_.start else "rest"


def _aligned(clean: _Read, corrupt: _Read, start: Start) -> _Laid | str:
    """The pair, if it differs in the subject only."""
    if len(clean.ids) != len(corrupt.ids):
        return LENGTHS_DIFFER
    differing = [i for i, (a, b) in enumerate(zip(clean.ids, corrupt.ids, strict=True)) if a != b]
    if not differing:
        return SAME_TOKENS
    if clean.parts != corrupt.parts or (clean.parts and any(clean.parts[i] != SUBJECT for i in differing)):
        return DIFFER_ELSEWHERE
    if clean.answers != corrupt.answers:
        return NOT_TOLD_APART
    first, end = differing[0], len(clean.ids)
    if start == "statement":
        first = min(first, clean.start)
    if clean.parts is None:
        names = [KNOWLEDGE if i in differing else OTHERS for i in range(end)]
    else:
        left = Counter(clean.parts)
        names = []
        for part in clean.parts:
            names.append(f"{part}[-{left[part]}]")
            left[part] -= 1
    names[-1] = LAST
    return _Laid(clean.ids, corrupt.ids, clean.answers, first, tuple(names[first:]))
