"""Shared by all tests: tiny random checkpoints, made by transformers itself."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# A run that a test starts in this folder loads this file, and may take its settings from another.
sys.path.append(str(Path(__file__).parent / "helpers"))
from tiny import tiny_tokenizer, write_tiny

# Shapes in the measures' signatures are checked while their tests run.
# Of findings those modules that compute: what reads models is given stand-ins.
READERS = {"__init__", "claims", "direction", "pairs", "pictures", "plan", "readings", "recorded", "steered"}
HOUSE = Path(__file__).parents[1] / "mechdrift"
MEASURES = [path for path in sorted((HOUSE / "findings").glob("*/*.py")) if path.stem not in READERS]
CHECKED = [".".join(path.relative_to(HOUSE.parent).with_suffix("").parts) for path in MEASURES]
install_import_hook(
    [*CHECKED, "mechdrift.findings.drift", "mechdrift.findings.judging", "mechdrift.stats"], "shape_checker.check"
)

# The same examples in every run, for a test says something about a change only where nothing else changed; `make nightly` looks
# for others. No deadlines: a busy machine is no failure.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)

pytest_plugins = ["pytester"]


def pytest_configure(config: pytest.Config) -> None:
    """Property tests see the same examples, unless --hypothesis-profile has chosen."""
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("same")


@pytest.fixture(scope="session", name="tiny_tokenizer")
def the_tiny_tokenizer() -> Any:
    """A byte-level tokenizer that prepends a BOS, as Llama's does."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a tiny checkpoint into a folder of its own; same arguments, same weights."""

    def write(family: str = "llama", seed: int = 0, **overrides: Any) -> Path:
        return write_tiny(tmp_path_factory.mktemp(f"{family}-{seed}-"), family, seed, **overrides)

    return write
