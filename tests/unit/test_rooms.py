"""The house keeps its order: a room imports only from rooms to its left and from the ground floor."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2] / "mechdrift"
ROOMS = ["checkpoints", "prompts", "engine", "measures", "verdict", "stages", "report"]
GROUND = {"stats", "errors", "files", "child_process", "device_names"}
# organism:NAME is a spec, and planted drifts are derived when they are requested; a verdict's level goes by what is asked; a
# stage lies between the checkpoints of a chain.
DOORS = {"checkpoints": {"organisms"}, "verdict": {"findings"}, "stages": {"chains", "checkpoint_copies"}}


def imported(path: Path) -> set[str]:
    """Rooms and modules of the house that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("mechdrift.")} | (names & {"pytest"})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_its_left_only(room: str) -> None:
    allowed = {*ROOMS[: ROOMS.index(room) + 1], *GROUND, *DOORS.get(room, set())}
    files = sorted((HOUSE / room).rglob("*.py"))
    assert files
    for path in files:
        assert imported(path) <= allowed, path


@pytest.mark.parametrize("front", ["integrations", "commands"])
def test_nobody_depends_on_what_users_and_pipelines_call(front: str) -> None:
    for path in sorted(HOUSE.rglob("*.py")):
        assert front not in imported(path) or path.parent.name == front, path


def test_resources_are_no_code() -> None:
    """Tables are made by a script beside them, which is not installed."""
    code = [path.relative_to(HOUSE.parent).as_posix() for path in (HOUSE.parent / "fixtures").rglob("*.py")]
    assert [path for path in code if not path.startswith("fixtures/facts/make_")] == ["fixtures/__init__.py"]
