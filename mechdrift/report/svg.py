"""Pictures as inline SVG: shapes with classes, which the style sheet of the report colours for light and dark."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from mechdrift.report.text import visible

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH = 360  # a phone's
TICKS = 4
NAMES = 80  # pixels below a picture for the names of its columns
LONGEST = 58  # characters across a picture
Bounds = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Scale:
    """From numbers to pixels, for all finite floats: the arithmetic is exact, for floats overflow between their ends."""

    low: float | Fraction
    """The least number."""
    high: float | Fraction
    """The greatest number."""
    start: float
    """Pixel of the least."""
    end: float
    """Pixel of the greatest."""

    def __call__(self, value: float | Fraction) -> float:
        """The pixel of a number; beyond the scale its end."""
        low, high = Fraction(self.low), Fraction(self.high)
        share = (Fraction(min(max(value, low), high)) - low) / (high - low)
        return self.start + (self.end - self.start) * float(share)

    def ticks(self) -> list[float]:
        """A few round numbers."""
        low, high = Fraction(self.low), Fraction(self.high)
        rough = (high - low) / TICKS
        power = Fraction(10) ** (Decimal(rough.numerator) / Decimal(rough.denominator)).adjusted()
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        exact = (index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1))
        # The room around the greatest floats is beyond them, and the least are as far apart as ticks may be.
        found = {float(tick) for tick in exact if abs(tick) <= sys.float_info.max}
        return sorted(tick for tick in found if low <= tick <= high)


def scale(numbers: Iterable[float | None], start: float, end: float) -> Scale | None:
    """Around all of these; None where there is none.

    Numbers that ticks of six digits could not tell apart are drawn as one number is, in the middle.
    """
    known = [Fraction(number) for number in numbers if number is not None and math.isfinite(number)]
    if not known:
        return None
    low, high = min(known), max(known)
    size = max(abs(low), abs(high))
    room = (high - low) * 6 / 100 if high - low > size / 10_000 else size / 10 or Fraction(1)
    return Scale(low - room, high + room, start, end)


class Drawing:
    """One picture, with a title and a description for those who do not see it."""

    def __init__(self, width: float, height: float, title: str, description: str = "") -> None:
        """Sizes in pixels."""
        self.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {width:g} {height:g}",
                "width": f"{width:g}",
                "height": f"{height:g}",
                "role": "img",
                "aria-label": visible(f"{title}. {description}" if description else title),
            },
        )
        ElementTree.SubElement(self.root, "title").text = visible(title)
        if description:
            ElementTree.SubElement(self.root, "desc").text = visible(description)

    def shape(self, tag: str, kind: str, **numbers: float | str) -> ElementTree.Element:
        """A shape of a class; numbers are its attributes, `_` for `-`."""
        summary = {
            name.replace("_", "-"): f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            for name, value in numbers.items()
        }
        return ElementTree.SubElement(self.root, tag, {"class": kind} | summary)

    def line(self, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
        """A line."""
        self.shape("line", kind, x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2))

    def rect(self, kind: str, x: float, y: float, width: float, height: float, **more: float | str) -> ElementTree.Element:
        """A rectangle."""
        return self.shape("rect", kind, x=float(x), y=float(y), width=float(width), height=float(height), **more)

    def text(self, words: str, x: float, y: float, anchor: str = "start", **more: float | str) -> None:
        """Words, without their middle where they are too long."""
        written = visible(words)
        if len(written) > LONGEST:
            written = f"{written[: LONGEST // 2]}\N{HORIZONTAL ELLIPSIS}{written[1 - LONGEST // 2 :]}"
        self.shape("text", "words", x=float(x), y=float(y), text_anchor=anchor, **more).text = written

    def below(self, words: str, x: float, y: float) -> None:
        """The name of a column, slanted, of at most the room that NAMES is; names differ at their ends."""
        written = visible(words)
        if len(written) > 16:
            written = f"\N{HORIZONTAL ELLIPSIS}{written[-15:]}"
        self.text(written, x, y, "end", transform=f"rotate(-50 {x:.1f} {y:.1f})")

    def mark(self, kind: str, place: int, x: float, y: float) -> None:
        """A small mark whose form goes with its place among kinds: colour alone tells some readers nothing."""
        if place % 3 == 0:
            self.shape("circle", kind, cx=float(x), cy=float(y), r=4.0)
        elif place % 3 == 1:
            self.rect(kind, x - 3.5, y - 3.5, 7, 7)
        else:
            self.shape("path", kind, d=f"M{x:.2f} {y - 4.5:.2f}l4.5 8h-9z")

    def markup(self) -> "Markup":
        """Safe to put into a page: every name and word is escaped."""
        from markupsafe import Markup

        return Markup(ElementTree.tostring(self.root, encoding="unicode"))  # noqa: S704, escaped by ElementTree


def up_axis(drawing: Drawing, of: Scale, left: float, right: float) -> None:
    """Lines across, with their numbers at the left."""
    for tick in of.ticks():
        drawing.line("grid", left, of(tick), right, of(tick))
        drawing.text(f"{tick:.6g}", left - 4, of(tick) + 4, "end")
