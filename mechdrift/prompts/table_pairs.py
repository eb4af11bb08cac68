"""Pairs out of a fact table, for whatever tokens a tokenizer makes of it."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from mechdrift.prompts.pair_layout import Named, Question, Span, found_pairs, judged, lay_out, part_at
from mechdrift.prompts.pairs import NEGATED, SUBJECT, Encode, Form, Found, Pairing, Start, linked
from mechdrift.prompts.statements import (
    Fact,
    FactTable,
    Split,
    split_entities,
    table_statements,
)

NO_PARTNER = "no other subject of the same token layout, with another object, left in the split"
NO_FALSE_STATEMENT = "no false statement of the same form, object and token layout in the split"


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
    # As in table_statements, every fact takes one form, by turns.
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
        sides = judged([(d.clean.text, d.corrupt.text, d.unit, table.kind) for d in drafts], examples, seed, split)
        sides = [
            (_placed(clean, draft.clean), _placed(corrupt, draft.corrupt))
            for draft, (clean, corrupt) in zip(drafts, sides, strict=True)
        ]
    else:
        sides = [(draft.clean.requested(draft.objects), draft.corrupt.requested(draft.objects)) for draft in drafts]
    kind = NEGATED + table.kind if negated else table.kind
    named = [Named(draft.unit, kind, (draft.clean.text, draft.corrupt.text), draft.entities) for draft in drafts]
    found = found_pairs(lay_out(sides, encode, start), named, split, len({fact.entity for fact, _ in spoken}), dropped)
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

    def requested(self, objects: tuple[str, str]) -> Question:
        """The sentence up to its object, for which there are two."""
        return Question(self.stem, objects, self.text[self.object.end :], self.subject)


class _Draft(NamedTuple):
    """A pair before it is laid out."""

    clean: _Sentence
    corrupt: _Sentence
    objects: tuple[str, str]
    """Of the clean and of the corrupt subject."""
    unit: str
    """It draws the order of the examples."""
    entities: tuple[str, str]


def _placed(requested: Question, sentence: _Sentence) -> Question:
    """A judged prompt with the places of what its last statement names."""
    subject, object_ = (
        Span(requested.start + span.start, requested.start + span.end) for span in (sentence.subject, sentence.object)
    )
    return replace(requested, subject=subject, object=object_)


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
        parts = tuple(part_at(place, span, None) for place in offsets[number])
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
