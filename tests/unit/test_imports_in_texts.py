"""What any text of the repository imports of mechdrift is there: docs, and scripts in strings of tests that run at night."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORT = re.compile(r"\b(?:from|import) (mechdrift(?:\.\w+)+)(?: import ([\w, ]+))?")
MOVED = "docs/imports.md"
"""Lists names that are gone."""
HERE = "tests/unit/test_imports_in_texts.py"
TEXTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("tests", "docs", "benchmarks", "suites", "fixtures", ".github")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md", ".toml", ".yml", ".sh")
)


def lacking(text: str) -> list[str]:
    """Names that it imports and that are not there."""
    found = []
    for module, names in IMPORT.findall(text):
        try:
            there = importlib.import_module(module)
        except ImportError:
            found.append(module)
            continue
        for name in filter(None, (name.split(" as ")[0].strip() for name in names.split(","))):
            if not hasattr(there, name) and not is_module(f"{module}.{name}"):
                found.append(f"{module}.{name}")
    return found


def is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("path", [path for path in [*TEXTS, "README.md", "CONTRIBUTING.md"] if path not in (MOVED, HERE)])
def test_what_a_text_imports_is_there(path: str) -> None:
    assert not lacking((ROOT / path).read_text(encoding="utf-8"))


def test_what_is_not_there_is_found() -> None:
    text = "from mechdrift.checkpoints.load import load_model; import mechdrift.errors; from mechdrift.errors import Nothing as N"
    assert lacking(text) == ["mechdrift.checkpoints.load", "mechdrift.errors.Nothing"]
