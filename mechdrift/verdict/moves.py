"""What each step of a chain of stages did to each row."""

from collections.abc import Iterable, Sequence

from mechdrift.checkpoints.chain import Between
from mechdrift.findings.labels import row_of
from mechdrift.verdict.record import Move, Step
from mechdrift.verdict.row import JudgedRow

NOT_MEASURED = {"unmeasurable", "error"}


def moves(rows: Iterable[JudgedRow], steps: Sequence[Between]) -> list[Move]:
    """What each step of a chain did to each row from base to post; with a sentence on gates that drifted."""
    found = {row.label: row for row in rows}
    moved = []
    for label, row in sorted(found.items()):
        by_step = {step: found[step.label(label)] for step in steps if step.label(label) in found}
        if not by_step or row_of(label) != label:
            continue
        gated = row.role == "gate" and row.verdict == "drifted"
        moved.append(
            Move(
                label=label,
                role=row.role,
                verdict=row.verdict,
                steps=[_step(step, one) for step, one in by_step.items()],
                sentence=_sentence(label, {step: one.verdict for step, one in by_step.items()}) if gated else None,
            )
        )
    return moved


def _step(step: Between, row: JudgedRow) -> Step:
    return Step(between=step.names, estimate=row.estimate, low=row.low, high=row.high, verdict=row.verdict)


def _sentence(label: str, verdicts: dict[Between, str]) -> str:
    """Where a row that drifted from base to post did so."""
    where = _summary([step for step, verdict in verdicts.items() if verdict == "drifted"])
    unknown = _summary([step for step, verdict in verdicts.items() if verdict in NOT_MEASURED])
    message = f"{label} drifted {where or 'from base to post, and in no step alone'}"
    return f"{message}; not measured {unknown}" if unknown else message


def _summary(steps: Sequence[Between]) -> str:
    return " and ".join(f"between {step.earlier} and {step.later}" for step in steps)
