"""Which stage of a chain is responsible: what each did to the rows that drifted from base to post, in the rows' own units."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from mechdrift.checkpoints.chain import BASE, Between, without
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import InputError, is_out_of_memory
from mechdrift.stages.replay import BY_TASK_VECTOR, RERUN, STAGE_EMBEDDING, Stage
from mechdrift.stages.training_log import read_log
from mechdrift.stages.without_stage import INSTEAD, require_same, without_replayed, without_stage
from mechdrift.verdict.baseline import Difference, difference, incomparable
from mechdrift.verdict.record import StagePart, Traced
from mechdrift.verdict.row import Row

TASK_VECTOR = "task vector"
"""The estimator that needs no more than the checkpoints."""
READ = {
    TASK_VECTOR: "Made from checkpoints alone: a stage's change of the weights is taken out of post, as if later stages had "
    "gone the same way without it. A part says what taking it out gives back, not what training without the stage would have "
    "given; of an earlier stage it can be wrong even in sign.",
    STAGE_EMBEDDING: "Made from the stages' logs: a stage's change of the weights is carried to the end of training by the "
    "tangents of all later steps, to first order, and taken out of post.",
    RERUN: "Made from the stages' logs: all later stages were trained again, on the same batches, from where the stage began.",
}
"""How the parts of each estimator are to be read."""
NOTABLE = 0.1
"""A stage is named where its part is as much of the largest; the table has all."""


@dataclass(frozen=True)
class How:
    """How post without a stage is made."""

    estimator: str = TASK_VECTOR
    logs: Mapping[str, Path] = field(default_factory=dict)
    """Folders of the stages' logs, by the names of their ends."""
    device: str = "cpu"
    """Where their steps are taken again."""
    kept: Path | None = None
    """Where what a replay gave is kept; needed where there are logs."""
    progress: Callable[[str], Callable[[int, int], object] | None] = lambda _label: None


def points_without(
    points: Mapping[str, Checkpoint],
    stages: Sequence[str],
    post: str,
    folder: Path,
    resolve: Callable[[str], Checkpoint],
    how: How = How(),
) -> tuple[dict[str, Checkpoint], dict[str, str], list[str]]:
    """Post without each stage but the last, written into a folder, by name; by name why one cannot be had; and notes."""
    made: dict[str, Checkpoint] = {}
    absent: dict[str, str] = {}
    notes: list[str] = []
    called = without(stages, post)
    for before, stage in zip([BASE, *stages], stages, strict=False):
        name = called[stage]
        try:
            if how.estimator == TASK_VECTOR:
                path = without_stage(points[before], points[stage], points[post], folder)
            else:
                path, message = _replayed(points, [BASE, *stages, post], stages.index(stage), how)
                notes += message
            made[name] = replace(resolve(str(path)), spec=f"{post} without {stage}")
        except InputError as error:
            absent[name] = f"{post} without {stage} cannot be had: {error}"
    return made, absent, list(dict.fromkeys(notes))


def _replayed(points: Mapping[str, Checkpoint], names: Sequence[str], place: int, how: How) -> tuple[Path, list[str]]:
    """Post without the stage at a place, by its logs. Raises InputError."""
    chain = [
        # An earlier stage's log is of no account, and the stage's own where the next one went on with its optimizer.
        Stage(name, points[before], points[name], read_log(how.logs[name]) if name in how.logs and number >= place else None)
        for number, (before, name) in enumerate(pairwise(names))
    ]
    for point in (chain[place].before, *(stage.after for stage in chain[place:])):
        if point.adapter or point.gguf or point.quantised:
            raise InputError(f"{point.spec}: no exact safetensors of its own", "weights whose steps can be taken again", INSTEAD)
    require_same(chain[place].before, *(stage.after for stage in chain[place:]))
    assert how.kept
    try:
        return without_replayed(chain, place, how.estimator, how.device, how.kept, how.progress)
    except InputError:
        raise
    except Exception as error:  # of a loss, or of a model that is not given what it was given in training
        if is_out_of_memory(error):
            found, expected = f"no memory on {how.device} for the steps of training", "room for training in float32, twice"
        else:
            found, expected = f"the steps cannot be taken again: {error!r}", "what the model was given, and its loss"
        raise InputError(found, expected, BY_TASK_VECTOR) from error


def lineage(
    rows: Iterable[Row], stages: Sequence[str], post: str, estimator: str = TASK_VECTOR, notes: Sequence[str] = ()
) -> list[Traced]:
    """What each stage did to each gate that drifted from base to post, with a sentence.

    A part is the row from base to post minus the same row from base to post without the stage. Parts do not add up to the whole:
    what stages do together is in none or in several. A share of the whole is given where the interval of the row leaves "no
    change" out.
    """
    found = {row.label: row for row in rows}
    called = without(stages, post)
    traced = []
    for row in sorted(found.values(), key=lambda row: row.label):
        if row.between != [BASE, post] or row.role != "gate" or row.verdict != "drifted" or not row.has_number:
            continue
        parts = [_part(stage, row, found.get(Between(BASE, name, step=True).label(row.label))) for stage, name in called.items()]
        traced.append(
            Traced(
                label=row.label,
                estimator=estimator,
                parts=parts,
                sentence=_sentence(row, parts),
                read=READ[estimator],
                notes=list(notes),
            )
        )
    return traced


def _part(stage: str, row: Row, other: Row | None) -> StagePart:
    """One stage's part in a row; other: the row without that stage."""
    if other is None:
        return StagePart(stage=stage, reason="not requested")
    if other.estimate is None:
        return StagePart(stage=stage, reason=other.reason)
    if why := incomparable(other, row):
        return StagePart(stage=stage, reason=why, without=other.estimate)
    found: Difference = difference(other, row)
    low, high = found.evidence.interval()
    whole = _moved_by(row)
    return StagePart(
        stage=stage,
        without=other.estimate,
        difference=found.evidence.estimate,
        low=low,
        high=high,
        how=found.how,
        share=None if whole is None else found.evidence.estimate / whole,
    )


def _moved_by(row: Row) -> float | None:
    """How far a row is from no change; None where its interval has that in it, so that a part can be no share of it."""
    measured, null = row.measured, row.null
    if measured is None or null is None or measured.low <= null <= measured.high:
        return None
    return measured.estimate - null


def _sentence(row: Row, parts: Sequence[StagePart]) -> str:
    """In which stages the row moved: those whose part lies beyond 0 on the limit's far side, largest first."""
    least = row.limit.at_least if row.limit else None
    way = -1 if least is not None and row.estimate is not None and row.estimate < least else 1
    sizes = {
        part.stage: abs(part.difference)
        for part in parts
        if part.difference is not None
        and part.low is not None
        and part.high is not None
        and (part.high < 0 if way < 0 else part.low > 0)
    }
    largest = max(sizes.values(), default=0.0)
    unknown = [part.stage for part in parts if part.difference is None]
    names = " and ".join(stage for stage in sorted(sizes, key=lambda stage: -sizes[stage]) if sizes[stage] >= NOTABLE * largest)
    message = f"{row.label} moved in {names}" if names else f"{row.label} moved in no {'other ' if unknown else ''}stage alone"
    return f"{message}; not attributed for {' and '.join(unknown)}" if unknown else message
