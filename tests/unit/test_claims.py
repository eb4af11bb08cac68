"""One table gives the registry's findings, the rows and the ids of their tests; a part of the readings is read once."""

import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from mechdrift.errors import Unmeasurable
from mechdrift.findings import registry
from mechdrift.findings.claims import Claim, Family, over
from mechdrift.findings.figures import Pictures
from mechdrift.findings.inputs import once
from mechdrift.findings.registry import PICTURES, PLANS, provided, registered

SUITES = Path(__file__).parents[2] / "suites"


def doubled(value: float, times: str) -> Any:
    return value, times


FAMILY: Family[float] = Family(
    "ours",
    [
        Claim("plain", "It is.", "us", doubled, lambda value: (value, "x"), version=3),
        Claim("each", "It is, each way.", "us", doubled, lambda value, a, b: (value, a + b), over(a="xy", b="12"), needs="post"),
    ],
)


def test_findings_and_rows_are_of_one_table() -> None:
    plain, each = FAMILY.findings
    assert (plain.name, plain.rows, plain.version, plain.needs, plain.family) == ("ours.plain", 1, 3, "base", "ours")
    assert (each.name, each.rows, each.needs, each.measure) == ("ours.each", 4, "post", f"{__name__}:doubled")
    assert [row.id for row in FAMILY.rows] == ["plain", "each-x-1", "each-x-2", "each-y-1", "each-y-2"]
    found: Any = FAMILY.rows[2].drift(0.5)
    assert found == (0.5, "x2")
    assert FAMILY.rows[2].parameters == {"a": "x", "b": "2"}


class Readings:
    """Counts how often it reads."""

    def __init__(self) -> None:
        self.reads = 0

    @once
    def fine(self) -> int:
        """Nothing but a count."""
        self.reads += 1
        return self.reads

    @once
    def failing(self) -> int:
        """Cannot be read."""
        self.reads += 1
        raise Unmeasurable(f"read {self.reads} times")


def test_a_part_is_read_once_whatever_comes_of_it() -> None:
    one, other = Readings(), Readings()
    assert [one.fine, one.fine, other.fine] == [1, 1, 1]
    for _ in range(2):
        with pytest.raises(Unmeasurable, match="read 2 times"):
            _ = one.failing
    assert (one.reads, other.reads) == (2, 1)
    assert Readings.fine.__doc__ == "Nothing but a count."


def test_every_shipped_family_has_a_suite_and_a_plan_and_every_gate_a_row() -> None:
    families = {finding.family for finding in registered().values()}
    assert {f"test_{family}.py" for family in families} == {path.name for path in SUITES.glob("test_*.py")}
    assert all(callable(provided(PLANS, family)) for family in families)
    assert {point.name for point in entry_points(group=PICTURES)} <= families
    assert all(isinstance(provided(PICTURES, family), Pictures) for family in ("confidence", "refusal", "structure"))
    assert provided(PICTURES, "nobody's") is None
    for path in (SUITES / "profiles").glob("*.toml"):
        rows = tomllib.loads(path.read_text()).get("rows", {})
        assert {name.partition("[")[0] for name in rows} <= registered().keys(), path


def test_two_packages_cannot_give_one_family_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("theirs", f"{package}.plan:plan", PLANS) for package in ("one", "other")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(ValueError, match=r"mechdrift.plans: two packages give 'theirs': one.plan:plan, other.plan:plan"):
        provided(PLANS, "theirs")
