"""One HTML file: no script, and nothing from a network."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mechdrift.findings.figures import Shown
from mechdrift.report import outcome, pictures
from mechdrift.report.history import Track, tracks
from mechdrift.report.pictures import Picture, Point
from mechdrift.report.series import View
from mechdrift.report.text import arms, family_of, interval, limit, number, pictures_of, visible, waiver, was
from mechdrift.report.whole import Map, Whole
from mechdrift.verdict.record import Move
from mechdrift.verdict.row import StoredRow

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")
COLOURS = {"held": "held", "drifted": "drifted", "error": "error"} | dict.fromkeys(
    ("undecided", "unmeasurable", "identical", "ungated", "allowed"), "undecided"
)
"""Of a run's verdict, as the style sheet has them: green is for gates that were measured and all held."""
ROOM = 2_000_000
"""Bytes for pictures: a page stays under 3 MB. Over runs half of them."""


@dataclass(frozen=True)
class Finding:
    """One claim with its rows and pictures."""

    name: str
    claim: str
    source: str
    rows: tuple[StoredRow, ...]
    pictures: tuple[Picture, ...]


@dataclass
class Room:
    """What pictures may still take."""

    left: int
    """Bytes, about."""
    left_out: int = 0
    """Pictures that did not fit."""

    def kept(self, found: Iterable[Picture | None]) -> list[Picture]:
        """Those that fit."""
        kept = []
        for picture in filter(None, found):
            size = len(picture.drawing) + sum(len(cell) + len("<td></td>") for line in picture.lines for cell in line)
            if size <= self.left:
                self.left -= size
                kept.append(picture)
            else:
                self.left_out += 1
        return kept


def html(shown: View) -> str:
    """The newest record, of several pairs the worst one's, and before it what all of them say over time."""
    whole, records = shown.shown, shown.records
    room = Room(ROOM // 2)
    over_time = _over_time(tracks(records), room) if len(records) > 1 else []
    room.left += ROOM // 2
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    page = _environment().get_template("report.html.j2")
    return page.render(
        whole=whole,
        shown=shown,
        colour=COLOURS[shown.verdict],
        records=records,
        style=style,
        style_hash=b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        over_time=over_time,
        rows=outcome.worst_first(whole),
        families=_families(whole, room),
        steps=[move for move in whole.record.chain if move.steps],
        chain_pictures=room.kept(_chain(whole, move) for move in whole.record.chain),
        missing=outcome.unmeasured(outcome.worst_first(whole)),
        room=room,
    )


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )  # fmt: skip
    data = (arms, interval, limit, number, visible, waiver, was, pictures.strip, outcome.sentence, outcome.started, outcome.ended)
    environment.globals |= {each.__name__: each for each in (*data, outcome.compared, outcome.config_changes, folded, _settings)}
    return environment


def folded(label: str) -> "Markup":
    """A label that may be broken at its joints, where a column is narrow."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[.,])|(?=[\[_])", visible(label)))


def _settings(part: object) -> list[tuple[str, str]]:
    """Names and values of a part of a record, in one line each."""
    data = msgspec.to_builtins(part).items()
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) for name, value in data]


def _over_time(found: Sequence[Track], room: Room) -> list[tuple[Track, list[Picture]]]:
    """Tracks with their pictures."""
    return [(track, room.kept([track.picture()])) for track in found]


def _families(whole: Whole, room: Room) -> list[tuple[str, list[Finding]]]:
    """Findings by family, in the order of their names."""
    families: dict[str, dict[str, list[StoredRow]]] = {}
    for row in sorted(whole.rows, key=lambda row: row.label):
        families.setdefault(family_of(row), {}).setdefault(row.finding, []).append(row)
    seen: list[tuple[Map, ...]] = []
    data = []
    for family, by_name in families.items():
        findings = [
            Finding(name, rows[0].claim, rows[0].source, tuple(rows), tuple(room.kept(_pictures(whole, rows, seen))))
            for name, rows in by_name.items()
        ]
        if of_all := room.kept(_of(whole, family)):
            findings.insert(0, Finding(family, "", "", (), tuple(of_all)))
        data.append((family, findings))
    return data


def _of(whole: Whole, family: str) -> list[Picture | None]:
    """Pictures of a whole family."""
    rows = [row for row in whole.rows if family_of(row) == family and not _is_step(whole, row)]
    ends = sorted({tuple(row.between) for row in rows})
    matrices = [whole.matrices[family, between] for between in ends if (family, between) in whole.matrices]
    shown = [Shown(row, whole.items.get(row.label, ())) for row in rows]
    return [pictures.drawn(figure) for figure in pictures_of(family).of_family(shown, matrices)]


def _pictures(whole: Whole, rows: Sequence[StoredRow], seen: list[tuple[Map, ...]]) -> Iterator[Picture | None]:
    """Of a finding's rows from end to end; maps that another row showed are not shown again."""
    for row in rows:
        if _is_step(whole, row):
            continue
        maps = whole.maps.get(row.label, ())
        if maps and not any(_same(maps, others) for others in seen):
            seen.append(maps)
            yield from pictures.maps_of(row, maps)
        for figure in pictures_of(family_of(row)).of_row(Shown(row, whole.items.get(row.label, ()))):
            yield pictures.drawn(figure)
        yield pictures.curve(row)


def _same(maps: tuple[Map, ...], others: tuple[Map, ...]) -> bool:
    import numpy as np

    return len(maps) == len(others) and all(
        (one.name, one.columns) == (other.name, other.columns) and np.array_equal(one.values, other.values, equal_nan=True)
        for one, other in zip(maps, others, strict=True)
    )


def _is_step(whole: Whole, row: StoredRow) -> bool:
    return bool(whole.record.inputs.stages) and row.between != ["base", "post"]


def _chain(whole: Whole, move: Move) -> Picture | None:
    """What each step did to a row that has a limit, and its way from base to post."""
    row = next((row for row in whole.rows if row.label == move.label), None)
    if row is None or not row.limit:
        return None
    steps = [Point(" -> ".join(step.between), step.estimate, step.low, step.high, step.verdict)
             for step in move.steps]  # fmt: skip
    whole_way = Point("base -> post", row.estimate, row.low, row.high, row.verdict)
    return pictures.series([*steps, whole_way], row, f"{row.label}, step by step", "step")
