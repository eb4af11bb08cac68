"""The picture of the power tables: how far each gated row has gone towards its limit at each strength of a drift."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mechdrift.organisms.matrix import claims_of, read_matrix
from mechdrift.report.svg import Drawing, Scale

from .bars import Judged
from .power import LEAST_STRENGTHS, Point, points_of
from .tables import rows_of

WIDTH, HEIGHT, LEGEND = 380, 190, 17  # pixels of a panel, of a line under it
COLUMNS = 2
HIGHEST = 2.5  # times the limit; what lies beyond is drawn at the edge
DASHES = ("none", "6 3", "2 2")  # a mark comes again with every third row
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .head { font-weight: 600 }
.grid { stroke: #ddd } .limit { stroke: #b00020; stroke-dasharray: 4 3 }
.curve { fill: none; stroke: #555 } .held { fill: #fff; stroke: #555 } .drifted { fill: #b00020; stroke: #b00020 }
@media (prefers-color-scheme: dark) {
  svg { background: #111 } text { fill: #ddd } .grid { stroke: #333 } .limit { stroke: #ff8a80 }
  .curve { stroke: #aaa } .held { fill: #111; stroke: #aaa } .drifted { fill: #ff8a80; stroke: #ff8a80 } }
"""


@dataclass(frozen=True)
class Curve:
    """A row under one drift."""

    label: str
    points: tuple[tuple[float, float, bool], ...]
    """Strength, how far it has gone in times the way to its limit, and whether nine runs in ten drifted."""


def curves(folder: Path, drift: str, seeds: int) -> list[Curve]:
    """Those of the gated rows of which drifts.toml says that they see this drift."""
    points = points_of(folder, drift, seeds)
    if len(points) < LEAST_STRENGTHS:
        return []
    found = []
    for label in sorted({label for records in points.values() for label in rows_of(records[0]) if claims_of(drift, label)}):
        summary = []
        for strength, records in points.items():
            rows = [rows_of(record)[label] for record in records]
            point = Point([row for row in rows if row["role"] == "gate" and row["evidence"]])
            if (mean := point.mean) is not None:
                judged = Judged.of_row(point.rows[0], records[0]["settings"]["gated_as_shipped"], 0.0)
                bound = min(judged.bounds, key=lambda side: abs(side - mean))
                summary.append((strength, (mean - judged.origin) / (bound - judged.origin), point.caught))
        if summary:
            found.append(Curve(label, tuple(summary)))
    return found


def power_picture(folder: Path, seeds: int) -> str:
    """An SVG with a panel for each drift that a gated row sees."""
    panels = {drift: found for drift in read_matrix() if (found := curves(folder, drift, seeds))}
    height = HEIGHT + LEGEND * max((len(found) for found in panels.values()), default=0)
    rows = -(-len(panels) // COLUMNS)
    summary = "Filled marks: nine runs in ten drifted. Dashed: the limit."
    drawing = Drawing(COLUMNS * WIDTH, rows * height, "How far rows move with the strength of a planted drift", summary)
    drawing.root.set("xmlns", "http://www.w3.org/2000/svg")
    ElementTree.SubElement(drawing.root, "style").text = STYLE
    for number, (drift, found) in enumerate(panels.items()):
        _panel(drawing, drift, found, number % COLUMNS * WIDTH, number // COLUMNS * height)
    return f"{drawing.markup()}\n"


def _panel(drawing: Drawing, drift: str, found: list[Curve], left: int, top: int) -> None:
    across = Scale(0.0, 1.0, left + 34, left + WIDTH - 14)
    up = Scale(0.0, HIGHEST, top + HEIGHT - 26, top + 28)
    drawing.shape("text", "head", x=left + 8, y=top + 16).text = drift
    for tick in (0.0, 1.0, 2.0):
        drawing.line("limit" if tick == 1 else "grid", across.start, up(tick), across.end, up(tick))
        drawing.text(f"{tick:g}", across.start - 6, up(tick) + 4, "end")
    for tick in (0.0, 0.5, 1.0):
        drawing.text(f"{tick:g}", across(tick), up.start + 16, "middle")
    for place, curve in enumerate(found):
        path = " ".join(f"{across(strength):.1f},{up(gone):.1f}" for strength, gone, _ in ((0.0, 0.0, False), *curve.points))
        drawing.shape("polyline", "curve", points=path, stroke_dasharray=DASHES[place // 3])
        for strength, gone, caught in curve.points:
            drawing.mark("drifted" if caught else "held", place, across(strength), up(gone))
        line = top + HEIGHT + LEGEND * place + 6
        drawing.shape("path", "curve", d=f"M{left + 28} {line - 4}h24", stroke_dasharray=DASHES[place // 3])
        drawing.mark("held", place, left + 40, line - 4)
        drawing.text(curve.label, left + 60, line)
