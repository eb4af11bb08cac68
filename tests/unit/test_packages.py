"""What a wheel is made of."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_wheel_has_every_package() -> None:
    """Setuptools cannot look for them: two lie at the top level and are installed inside."""
    places = {"mechdrift": "mechdrift", "mechdrift.suites": "suites", "mechdrift.data": "fixtures"}
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert listed["package-dir"] == places
    there = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in places.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(listed["packages"]) == sorted(there)
