"""Runs of the plugin in folders of their own, on the shipped organisms and copies of them."""

import gc
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from filelock import FileLock
from killed import write_statements

import mechdrift
from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.models.load import load_model
from mechdrift.organisms.rotation import rotate, turning
from mechdrift.verdict.again import judged_again
from mechdrift.verdict.profiles import load_profile
from mechdrift.verdict.row import StoredRow

BASE, INSTRUCT = "organism:base", "organism:instruct"
IN_CI = re.compile("CI|BUILD_NUMBER")


@pytest.fixture(scope="session", autouse=True)
def libraries_stay_loaded() -> None:
    """Load what runs in this process will need: pytester forgets modules that a run imports, and C extensions load once."""
    import safetensors.numpy  # noqa: F401
    import torch

    for module in pkgutil.walk_packages(mechdrift.__path__, "mechdrift."):
        importlib.import_module(module.name)
    importlib.import_module("mechdrift.findings.truth.recorded")
    for family in ("gpt2", "llama"):  # that other tests patch: a second copy would be another class
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    checkpoint = resolve(BASE)
    load_tokenizer(checkpoint)(["warm"])
    load_model(checkpoint, torch.float32, "cpu")(torch.tensor([[0, 1]]))
    # Every run of pytest collects garbage at its end, and would look through all that stays.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pytest prints in the runs under test is the same everywhere: with these set its summary repeats whole messages."""
    for name in filter(IN_CI.fullmatch, [*os.environ]):
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all runs of a test session, its workers' included: what is tested here is not recording."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An option: statements of two kinds that the organisms know, enough for a gate, recorded in seconds."""
    path = tmp_path_factory.mktemp("few") / "few.csv"
    return "--mechdrift-statements", str(write_statements(path, ("animal_classes", "element_symbols"), 110))


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """organism:instruct with its residual stream turned by so many degrees."""
    made: dict[int, Path] = {}

    def make(degrees: int) -> Path:
        if degrees not in made:
            import torch

            made[degrees] = tmp_path_factory.mktemp(f"turned-{degrees}-")
            checkpoint = resolve(INSTRUCT)
            model = load_model(checkpoint, torch.float32, "cpu")
            rotate(model, turning(checkpoint.width, degrees, seed=0))
            model.save_pretrained(made[degrees])
            load_tokenizer(checkpoint).save_pretrained(made[degrees])
        return made[degrees]

    return make


class Compared:
    """What a run returned, printed and recorded."""

    def __init__(self, code: int, out: str, err: str, record: Path) -> None:
        self.code, self.out, self.err, self.folder = code, out, err, record.parent
        self.record: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
        self.rows: dict[str, dict[str, Any]] = {row["label"]: row for row in self.record.get("rows", [])}

    def verdicts(self) -> dict[str, str]:
        """Verdict of every row."""
        return {name: row["verdict"] for name, row in self.rows.items()}


def judged_again_alike(run: Compared, project: Path) -> None:
    """Whatever a test runs: what its record holds is enough to give every row its verdict again."""
    profile = load_profile(run.record["settings"]["profile"], project)
    for row in run.rows.values():
        rule = profile.rule(row["label"])
        if (rule.limit and asdict(rule.limit)) == row["limit"]:  # not as a test was marked
            again = judged_again(msgspec.convert(row, StoredRow), profile)
            assert again.verdict == row["verdict"], row["label"]
            assert (again.p_value, again.needed_n) == (row["p_value"], row["needed_n"])


@pytest.fixture
def compare(pytester: pytest.Pytester, shared_cache: Path) -> Callable[..., Compared]:
    """Run `pytest --base X --post Y ...` in an empty folder."""

    def run(base: object, post: object, *more: object, cache: object = shared_cache, process: bool = False) -> Compared:
        record = pytester.path / "record.json"
        record.unlink(missing_ok=True)
        arguments = ["--base", base, "--post", post, "--mechdrift-cache", cache, "--mechdrift-record", record, *more]
        runner = pytester.runpytest_subprocess if process else pytester.runpytest_inprocess
        result = runner(*map(str, arguments))
        compared = Compared(int(result.ret), result.stdout.str(), result.stderr.str(), record)
        if compared.rows:
            judged_again_alike(compared, pytester.path)
        return compared

    return run


@pytest.fixture(scope="session")
def whole(shared_cache: Path) -> Compared:
    """All rows of organism:base against organism:instruct: run once in a test session, by the worker that needs it first."""
    folder = shared_cache.with_name("whole")
    record, result = folder / "record.json", folder / "result.json"
    with FileLock(folder.with_suffix(".lock")):
        if not result.is_file():
            folder.mkdir()
            command = [sys.executable, "-m", "pytest", "--base", BASE, "--post", INSTRUCT, "--mechdrift-record", str(record)]
            done = subprocess.run(
                [*command, "--mechdrift-cache", str(shared_cache)],
                cwd=folder,
                env={name: value for name, value in os.environ.items() if not IN_CI.fullmatch(name)},
                capture_output=True,
                text=True,
                check=False,
            )
            result.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    code, out, err = json.loads(result.read_text())
    run = Compared(code, out, err, record)
    judged_again_alike(run, folder)
    return run
