"""The house keeps its order: a room imports only from rooms to its left and from the ground floor, and nothing in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
HOUSE = TOP / "mechdrift"
ROOMS = ["checkpoints", "prompts", "models", "engine", "findings", "verdict", "report"]
GROUND = {"stats", "errors", "files", "child_process", "device_names"}
FRONT = {"session", "settings", "commands", "stages", "integrations", "organisms"}
ENTRANCES = {"__init__", "api", "plugin"}
FAMILIES = {path.name for path in (HOUSE / "findings").iterdir() if (path / "claims.py").exists()}
MODULES = {".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__"): path for path in HOUSE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file and whatever for: a type's import counts too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= inner or {node.module}
    return names


def rooms_of(path: Path) -> set[str]:
    """Rooms of the house that a file imports from, and pytest."""
    names = imported(path)
    return {name.split(".")[1] for name in names if name.startswith("mechdrift.")} | (names & {"pytest"})


def test_every_module_has_a_room() -> None:
    assert {"truth", "knowledge", "refusal", "confidence", "structure", "context"} == FAMILIES
    assert {path.parent.name for path in HOUSE.glob("*/__init__.py")} == {*ROOMS, *FRONT}
    assert {path.stem for path in HOUSE.glob("*.py")} == GROUND | ENTRANCES


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_its_left_only(room: str) -> None:
    """Which the front rooms are not, nor pytest: the house never sees them."""
    for path in sorted((HOUSE / room).rglob("*.py")):
        assert rooms_of(path) <= {*ROOMS[: ROOMS.index(room) + 1], *GROUND}, path


def test_the_ground_floor_stands_alone() -> None:
    for name in sorted(GROUND):
        assert rooms_of(HOUSE / f"{name}.py") <= GROUND, name


@pytest.mark.parametrize("front", ["integrations", "commands"])
def test_nobody_depends_on_what_users_and_pipelines_call(front: str) -> None:
    for path in sorted(HOUSE.rglob("*.py")):
        assert front not in rooms_of(path) or path.parent.name == front, path


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_know_nothing_of_each_other(family: str) -> None:
    """What two of them share lies beside them."""
    for path in sorted((HOUSE / "findings" / family).glob("*.py")):
        assert not {name for name in imported(path) for other in FAMILIES - {family} if f".findings.{other}" in name}, path
    for path in sorted((HOUSE / "findings").glob("*.py")):
        assert not [name for name in imported(path) if f".findings.{family}" in name], path


def test_nobody_reports_a_family_by_name() -> None:
    for path in sorted(path for room in ("verdict", "report", "session") for path in (HOUSE / room).rglob("*.py")):
        said = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        named = {text for text in said if isinstance(text, str) and text.partition(".")[0] in FAMILIES and " " not in text}
        assert not named, path


def test_modules_import_in_no_circle() -> None:
    try:
        list(TopologicalSorter({name: imported(path) & MODULES.keys() - {name} for name, path in MODULES.items()}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_suites_are_asked_by_pytest_alone() -> None:
    """And have no logic: a test, its family's readings, and the verdict."""
    for path in sorted(HOUSE.rglob("*.py")):
        assert not [name for name in imported(path) if name.startswith("mechdrift.suites")], path
    for path in sorted((TOP / "suites").glob("*.py")):
        assert rooms_of(path) <= {"findings", "session", "pytest"}, path
        assert path.name in {"__init__.py", "conftest.py"} | {f"test_{family}.py" for family in FAMILIES}
        assert len(path.read_text().splitlines()) < 50, path


def test_resources_are_no_code() -> None:
    """Tables are made by a script beside them, which is not installed."""
    code = [path.relative_to(TOP).as_posix() for path in (TOP / "fixtures").rglob("*.py")]
    assert [path for path in code if not path.startswith("fixtures/facts/make_")] == ["fixtures/__init__.py"]
