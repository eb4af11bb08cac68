"""The options of replies reach the tests and the record."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

PAIR = "organism:base", "organism:instruct"
SUITE = """
from mechdrift.engine.generate.arms import Arm

def test_own(mechdrift_generator, mechdrift_pair):
    assert mechdrift_generator.name == "transformers"
    said = mechdrift_generator.replies(mechdrift_pair.post, [[0, 5, 9]], [Arm("plain")], 4)
    assert len(said["plain"]) == 1
"""


@pytest.mark.parametrize("mode", [["-p", "no:xdist"], pytest.param(["-n1"], marks=pytest.mark.nightly)], ids=["no xdist", "-n1"])
def test_a_generator_is_given_and_recorded(compare: Callable[..., Any], pytester: pytest.Pytester, mode: list[str]) -> None:
    pytester.makepyfile(test_own=SUITE)
    run = compare(*PAIR, "--mechdrift-vllm-args", '{"max_num_seqs": 8}', "--mechdrift-keep-replies", "test_own.py", *mode)
    assert "1 passed" in run.out
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))
    result = {name: run.record["settings"][name] for name in ("generator", "vllm_args", "keep_replies")}
    assert result == {"generator": "transformers", "vllm_args": {"max_num_seqs": 8}, "keep_replies": True}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mechdrift-generator", "vllm"], "vllm is not installed; expected the extra vllm; type pip install"),
        (["--mechdrift-generator", "llama.cpp"], "'llama.cpp': expected one of auto, transformers, vllm"),
        (["--mechdrift-vllm-args", "[1]"], "'[1]': expected a JSON object"),
        (
            ["--mechdrift-vllm-args", '{"dtype": "half"}'],
            "--mechdrift-vllm-args: dtype; expected options that mechdrift does not",
        ),
    ],
)
def test_what_cannot_be_used_stops_the_run_before_it_reads_a_checkpoint(
    compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setattr("mechdrift.engine.generate.vllm_generator.find_spec", lambda _name: None)
    run = compare("./no/such", "organism:base", *arguments)
    assert run.code == 4
    assert sum(words in line for line in (run.err + run.out).splitlines()) == 1
    assert "no/such" not in run.err + run.out
    assert "Traceback" not in run.err + run.out
