"""Rows in words: one number, one limit, one failure."""

from collections.abc import Iterable

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.findings.figures import Pictures, RowData
from mechdrift.findings.registry import PICTURES, provided
from mechdrift.verdict.row import ComparedRow, JudgedRow, Number

UNLIKE = {"worse": "worse than baseline {name}", "incomparable": "not to be compared with baseline {name}"}
"""What the status of a baseline's row adds to a verdict."""


def printable(text: str) -> str:
    """Text without control characters: names come from files and models, and could move a terminal's cursor."""
    return "".join(character if character.isprintable() else "�" for character in text)


def visible(text: str) -> str:
    """Text whose control characters, line ends and lone surrogates are written out in ASCII: for files, where none is lost."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text))


def described(checkpoint: Checkpoint) -> str:
    """One checkpoint, as it was taken."""
    size = f"{checkpoint.layers} blocks x {checkpoint.width}, {checkpoint.parameters / 1e6:,.1f}M weights"
    summary = {"hub": f"hub commit {checkpoint.commit}, ", "folder": "a folder, ", "file": "a file, ", "adapter": "adapted, "}
    taken = summary.get(checkpoint.source, "")
    rounded = f", {checkpoint.quantised}" if checkpoint.quantised else ""
    return printable(f"{checkpoint.spec} ({taken}{checkpoint.model_type}{rounded}, {size}, {checkpoint.short})")


def number(value: float | None, form: str = ".3f") -> str:
    """Three decimals, as read beside an interval; from a million on a power of ten, or 1e308 would take 313 characters."""
    if value is None:
        return "-"
    return format(value, form if abs(value) < 1e6 else form.replace("f", "e"))


def interval(row: ComparedRow) -> str:
    """`estimate [low, high]`."""
    return "-" if row.estimate is None else f"{number(row.estimate)} [{number(row.low)}, {number(row.high)}]"


def limit(row: JudgedRow) -> str:
    """`>= 0.8`, `<= 0.1`, or both."""
    return str(row.limit) if row.limit else "-"


def distance(row: JudgedRow) -> str:
    """By how much the estimate is beyond or inside its limit."""
    assert row.limit
    assert row.estimate is not None
    low, high = row.limit.at_least, row.limit.at_most
    rooms = [
        room
        for room in (row.estimate - low if low is not None else None, high - row.estimate if high is not None else None)
        if room is not None
    ]
    room = min(rooms)
    return f"{number(abs(room))} {'inside' if room >= 0 else 'beyond'}"


def lines_of_families(rows: Iterable[JudgedRow]) -> list[str]:
    """What families say of their rows, in words."""
    by_family: dict[str, list[RowData]] = {}
    for row in rows:
        by_family.setdefault(family_of(row), []).append(row)
    return [line for family, of_family in by_family.items() for line in pictures_of(family).lines(of_family)]


def family_of(row: ComparedRow) -> str:
    """The family of a row's finding."""
    return row.finding.partition(".")[0]


def pictures_of(family: str) -> Pictures:
    """What a family shows; of one that is not installed here, nothing of its own."""
    found: Pictures | None = provided(PICTURES, family)
    return found or Pictures()


def arms(row: JudgedRow) -> tuple[str, str]:
    """Whose an item's two values are, in their order; a record from before 1.10 does not say."""
    first, second = row.arms or ("first", "second")
    return first, second


def failure(row: JudgedRow, again: str) -> str:
    """The text of a row that fails: claim, numbers, floor, place, contributors, what to type next."""
    if row.estimate is None:
        return missing(row, again)
    lines = _head(row)
    judged = f"; limit {limit(row)}: {distance(row)}; {row.reason}" if row.limit else ""
    lines.append(f"  estimate  {interval(row)} {row.unit}{judged}")
    lines += _against(row)
    floor = row.floor
    no_change = f"no change [{number(floor.low)}, {number(floor.high)}] at this resolution; " if floor else ""
    lines.append(f"  {no_change}n = {row.n} entities")
    lines.append(f"  site      {row.site} ({row.key.site_rule})")
    if row.note:
        lines.append(f"  note      {row.note}")
    before, after = arms(row)
    for place, item in enumerate(row.contributors):
        head = "most from" if place == 0 else ""
        values = f"{before} {number(item.base)}, {after} {number(item.post)}, part {number(item.contribution, '+.4f')}"
        lines.append(f"  {head:9} {item.name} ({item.kind}): {values}")
    lines.append(f"  again     {again}")
    if row.baseline and row.baseline.status in UNLIKE:
        lines.append(f"  accept    {again} --mechdrift-update")
    if row.limit and row.verdict != "held":
        side = "at_least" if row.limit.at_least is not None else "at_most"
        lines.append(f'  accept    set {side} under [rows."{row.finding}"] in a profile of your own, or waive it there')
    return "\n".join(printable(line) for line in lines)


def missing(row: JudgedRow, again: str) -> str:
    """The text of a row without a number."""
    return "\n".join(
        printable(line) for line in [*_head(row), f"  because   {row.reason}", *_against(row), f"  again     {again}"]
    )


def _head(row: JudgedRow) -> list[str]:
    """Which row, what it claims, and the waiver that no longer counts."""
    baseline = row.baseline
    unlike = f", {UNLIKE[baseline.status].format(name=baseline.name)}" if baseline and baseline.status in UNLIKE else ""
    lines = [f"{row.label} {row.verdict}{unlike}: {row.claim}"]
    return [*lines, f"  waiver    {waiver(row)}: renew it in the profile, or delete it"] if row.waiver else lines


def _against(row: JudgedRow) -> list[str]:
    """The line of a failure that says what its baseline has; none where it has nothing."""
    if not row.baseline or row.baseline.status == "new":
        return []
    return [f"  baseline  {was(row)}; {row.baseline.reason}"]


def was(row: JudgedRow) -> str:
    """`was 0.975, now 0.930: -0.045 [-0.050, -0.040], paired`, as far as there are numbers; `new` where nothing was."""
    baseline = row.baseline
    assert baseline
    if baseline.was is None:
        return baseline.status
    now = f"was {number(baseline.was)}, now {number(row.estimate)}"
    if baseline.difference is None:
        return f"{now}, {baseline.status}"
    return f"{now}: {moved(baseline.difference, baseline.low, baseline.high, baseline.how)}"


def moved(difference: Number, low: Number, high: Number, how: str | None) -> str:
    """`-0.045 [-0.050, -0.040], paired`: a difference, with how its interval was made."""
    return f"{number(difference, '+.3f')} [{number(low, '+.3f')}, {number(high, '+.3f')}], {how}"


def waiver(row: JudgedRow) -> str:
    """`waived by OWNER until 2027-01-31: reason`, or `waiver of OWNER expired ...`."""
    given = row.waiver
    assert given
    until = f"waiver of {given.owner} expired on" if given.expired else f"waived by {given.owner} until"
    return f"{until} {given.expires} ({given.reason})"


def let_pass(row: JudgedRow) -> str:
    """Why a gate that does not hold lets the run pass."""
    why = waiver(row) if row.waiver else "not among --mechdrift-fail-on"
    against = "".join(f"; {line.strip()}" for line in _against(row))
    return printable(f"{row.label} {row.verdict}, {why}: {row.reason}{against}")
