"""`mechdrift replies`: how often replies are read right, on replies whose outcome is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.table import read_table
from mechdrift.prompts.labelled_replies import LabelledReply, labelled_replies, real_replies
from mechdrift.prompts.refusals import REFUSAL
from mechdrift.prompts.replies import OUTCOMES, Outcome, classify, how_it_opens
from mechdrift.stats import Proportion

FEWEST = 40  # replies of a language or an outcome for a line of its own
NONE = "-"
Read = Callable[[LabelledReply], Outcome]


def by_classifier(reply: LabelledReply) -> Outcome:
    """As runs read it."""
    return classify(reply.text).outcome


def by_openings(reply: LabelledReply) -> Outcome:
    """By the phrase that it opens with alone."""
    found = classify(reply.text).outcome
    if found not in ("refused", "complied"):
        return found
    return "refused" if how_it_opens(reply.said) == REFUSAL else "complied"


READERS: dict[str, Read] = {"classifier": by_classifier, "openings": by_openings}


@dataclass(frozen=True)
class Line:
    """How one reader reads one outcome in one set."""

    name: str
    """Of the set."""
    outcome: Outcome
    n: int
    """Replies of the set."""
    precision: Proportion | None
    """Of those read so, which are; None where none is read so."""
    recall: Proportion | None
    """Of those that are, which are read so; None where none is."""


def sets(given: str | None) -> dict[str, list[LabelledReply]]:
    """The shipped sets, or the user's file: a table of `reply` and `outcome`. Raises InputError."""
    if given is not None:
        return {given: own_replies(given)}
    test = [reply for reply in labelled_replies() if reply.split == "test"]
    real = list(real_replies())
    languages = sorted({reply.language for reply in test} - {"en"})
    found = {
        "written, English": [reply for reply in test if reply.language == "en"],
        "written, others": [reply for reply in test if reply.language != "en"],
    }
    for language in languages:
        of_language = [reply for reply in test if reply.language == language]
        if len(of_language) >= FEWEST:
            found[f"written, {language}"] = of_language
    found["of real models"] = real
    found["of these not doubtful"] = [reply for reply in real if not reply.doubtful]
    for source in ("SmolLM2", "Gemma"):
        found[f"of {source}"] = [reply for reply in real if reply.source == source]
    return found


def own_replies(given: str) -> list[LabelledReply]:
    """Replies of the user's own, with their outcomes. Raises InputError."""
    table = read_table(given, "labelled replies", "the file", "reply", of_column=False)
    if missing := [name for name in ("reply", "outcome") if name not in table.columns]:
        raise InputError(f"{given}: no column {missing[0]!r}", "columns reply and outcome", "name them so")
    found = []
    for place, row in table.rows:
        outcome = next((known for known in OUTCOMES if known == row["outcome"]), None)
        if outcome is None or not isinstance(row["reply"], str):
            raise InputError(f"{place}: outcome {row['outcome']!r}", f"one of {', '.join(OUTCOMES)}", "fix the row")
        found.append(LabelledReply(row["reply"], outcome, "written", "", "", "", "test"))
    return found


def lines_of(name: str, replies: Sequence[LabelledReply], read: Read) -> list[Line]:
    """How a reader reads every outcome of a set, of which there are some or which it reads."""
    pairs = [(reply.outcome, read(reply)) for reply in replies]
    lines = []
    for outcome in OUTCOMES:
        right = sum(is_so == read_so == outcome for is_so, read_so in pairs)
        found, there = (sum(pair[side] == outcome for pair in pairs) for side in (1, 0))
        if found or there:
            shares = [Proportion(right, n) if n else None for n in (found, there)]
            lines.append(Line(name, outcome, len(pairs), *shares))
    return lines


def accuracy(replies: Sequence[LabelledReply], read: Read) -> Proportion:
    """Share of a set whose outcome is read right."""
    return Proportion(sum(read(reply) == reply.outcome for reply in replies), len(replies))


def table(given: str | None) -> list[str]:
    """All that is printed: by reader and set the share read right, then precision and recall by outcome."""
    every = sets(given)
    out = [f"{'set':<24}{'n':>5}  {'read right by classifier':<26}by openings"]
    for name, replies in every.items():
        shares = [_with_interval(accuracy(replies, read)) for read in READERS.values()]
        out.append(f"{name:<24}{len(replies):>5}  {shares[0]:<26}{shares[1]}")
    for reader, read in READERS.items():
        out += ["", f"{reader + ', by outcome':<36}{'precision':<22}recall"]
        for name, replies in every.items():
            for line in lines_of(name, replies, read):
                out.append(f"{line.name:<24}{line.outcome:<12}{_with_interval(line.precision):<22}{_with_interval(line.recall)}")
    return [*out, "", "[..]: 90% intervals (Wilson)."]


def _with_interval(share: Proportion | None) -> str:
    if share is None:
        return NONE
    low, high = share.interval()
    return f"{share.estimate:.2f} [{low:.2f}, {high:.2f}] {share.n}"
