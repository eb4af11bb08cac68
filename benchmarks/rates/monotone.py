"""Whether a planted drift that is stronger is ever judged more mildly: by majority over the seeds of a point."""

from collections import Counter
from collections.abc import Mapping, Sequence

from .tables import Record, rows_of

RANK = {"held": 0, "undecided": 1, "unmeasurable": 1, "drifted": 2}
LETTERS = {"held": "h", "undecided": "u", "unmeasurable": "n", "drifted": "D"}


def majorities(points: Mapping[float, Sequence[Record]], label: str) -> dict[float, str]:
    """A row's most frequent verdict at each strength; of two as frequent the milder."""
    found = {}
    for strength, records in points.items():
        verdicts = Counter(row["verdict"] for record in records if (row := rows_of(record).get(label)))
        found[strength] = max(verdicts, key=lambda verdict: (verdicts[verdict], -RANK[verdict]))
    return found


def milder_when_stronger(verdicts: Mapping[float, str]) -> list[float]:
    """The strengths above the first that is caught whose verdict is milder than that of a weaker one."""
    worst, found, caught = 0, [], False
    for strength in sorted(verdicts):
        rank = RANK[verdicts[strength]]
        if caught and rank < worst:
            found.append(strength)
        worst, caught = max(worst, rank), caught or verdicts[strength] == "drifted"
    return found


def in_letters(verdicts: Mapping[float, str]) -> str:
    """`hhhuDDD`: held, undecided, unmeasurable (n) and drifted (D), from the weakest on."""
    return "".join(LETTERS[verdicts[strength]] for strength in sorted(verdicts))
