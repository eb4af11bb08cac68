"""The refusal suite through the real engine: it says what transformers says, and a fault of it is never green, or falls back."""

import json
from pathlib import Path
from typing import Any

import pytest

PAIR = ("--base", "organism:base", "--post", "organism:instruct")
RATES = 0.03  # between backends


def rows_of(pytester: pytest.Pytester, cache: Path, *more: str) -> tuple[int, dict[str, Any]]:
    code, record = record_of(pytester, cache, *more)
    return code, {row["label"]: row for row in record["rows"]}


def record_of(pytester: pytest.Pytester, cache: Path, *more: str) -> tuple[int, dict[str, Any]]:
    record = pytester.path / "record.json"
    requested = [*PAIR, "--mechdrift-only", "refusal", "--mechdrift-cache", str(cache), "--mechdrift-record", str(record), *more]
    result = pytester.runpytest_subprocess(*requested)
    return int(result.ret), json.loads(record.read_text())


def test_both_backends_agree(pytester: pytest.Pytester, tmp_path: Path) -> None:
    code, expected = rows_of(pytester, tmp_path, "--mechdrift-generator", "transformers")
    again, found = rows_of(pytester, tmp_path, "--mechdrift-generator", "vllm")
    assert code == again == 0
    assert {name: row["verdict"] for name, row in found.items()} == {name: row["verdict"] for name, row in expected.items()}
    for name, row in found.items():
        print(name, row["estimate"], expected[name]["estimate"])
        assert row["estimate"] == pytest.approx(expected[name]["estimate"], abs=RATES), name


SWITCHED_OFF = """
from contextlib import contextmanager

from mechdrift.engine.generate import vllm_generator
from mechdrift.engine.generate.vllm_process import running


@contextmanager
def off(*told):
    with running(*told) as ask:
        yield lambda question: ask({"intervene": {"direction": None}} if "intervene" in question else question)


vllm_generator.running = off
"""


def test_an_intervention_that_is_switched_off_is_unmeasurable_and_not_green(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeconftest(SWITCHED_OFF)
    code, rows = rows_of(pytester, tmp_path, "--mechdrift-generator", "vllm")
    assert code == 7
    assert rows["refusal.harmful"]["verdict"] == "held"  # which needs no intervention
    assert rows["refusal.ablation"]["verdict"] == "unmeasurable"
    assert "own ablation does not do in vLLM what it does in transformers" in rows["refusal.ablation"]["reason"]


PAYS = """
from mechdrift.engine.generate import choose

choose._pays = lambda *_: True  # on a CPU it does not
"""


def test_auto_falls_back_to_transformers_for_both_models_and_says_so(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeconftest(SWITCHED_OFF + PAYS)
    code, record = record_of(pytester, tmp_path, "--mechdrift-generator", "auto")
    assert code == 0
    assert {row["label"]: row["verdict"] for row in record["rows"]}["refusal.ablation"] == "held"
    (warning,) = [one for one in record["run"]["warnings"] if "vLLM" in one]
    assert "does not do in vLLM what it does in transformers" in warning
    assert warning.endswith("; replies by transformers instead, of both models, slower")
