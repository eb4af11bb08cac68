"""A chat template and its arguments, given for both checkpoints: in header and record, and in what the models are shown."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

PAIR = "organism:base", "organism:instruct"
TEMPLATE = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}{{ bos_token }}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>{{ 'Yes: ' if agree }}"
)
SUITE = """
from mechdrift.prompts.chat_forms import chat_prompts

def test_shown(mechdrift_recordings, mechdrift_pair):
    for point in mechdrift_pair.points:
        shown = chat_prompts(point, mechdrift_recordings.pool.tokenizer(point), ["Who?"])
        assert (shown.form, shown.tail) == ("native", "<|end|><|assistant|>Yes: ")
        assert "the system turn" in shown.note
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jinja"
    path.write_text(TEMPLATE)
    return path


@pytest.mark.parametrize("mode", [["-p", "no:xdist"], pytest.param(["-n1"], marks=pytest.mark.nightly)], ids=["no xdist", "-n1"])
def test_both_checkpoints_are_shown_the_users_template(
    compare: Callable[..., Any], pytester: pytest.Pytester, template: Path, mode: list[str]
) -> None:
    pytester.makepyfile(test_own=SUITE)
    given = ("--mechdrift-template", template, "--mechdrift-template-args", '{"agree": true, "mood": 1}')
    run = compare(*PAIR, *given, "test_own.py", *mode)
    assert "1 passed" in run.out
    assert "mechdrift: chat templates are given agree = true, mood = 1" in run.out
    assert f"mechdrift: chat template of all: {template}, sha256 " in run.out
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))
    settings = run.record["settings"]
    assert settings["chat_templates"]["args"] == {"agree": True, "mood": 1}
    assert settings["chat_templates"]["template"]["file"] == str(template)
    assert settings["options"] == {"template": str(template), "template_args": {"agree": True, "mood": 1}}
    for spec in PAIR:
        assert f"{spec}: its chat template never reads mood of --mechdrift-template-args" in run.record["run"]["warnings"]
        assert any(line.startswith(f"{spec}: the chat template is given the sys") for line in run.record["run"]["warnings"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mechdrift-template-args", "[1]"], "'[1]': expected a JSON object, as in {\"enable_thinking\": false}"),
        (["--mechdrift-template-args", '{"messages": []}'], "'messages' is given to templates by the run itself"),
        (["--mechdrift-template", "none.jinja"], "--mechdrift-template none.jinja: no such file"),
    ],
)
def test_what_cannot_be_used_stops_the_run_before_it_reads_a_checkpoint(
    compare: Callable[..., Any], arguments: list[str], words: str
) -> None:
    run = compare("./no/such", "organism:base", *arguments)
    assert run.code == 4
    assert sum(words in line for line in (run.err + run.out).splitlines()) == 1
    assert "no/such" not in run.err + run.out


def test_a_template_that_leaves_out_what_the_user_says_stops_the_run(compare: Callable[..., Any], template: Path) -> None:
    template.write_text("{{ bos_token }}Hello")
    run = compare(*PAIR, "--mechdrift-template", template)
    assert run.code == 4
    assert f"{template}: leaves out what the user says, with the tokenizer of organism:base; expected" in run.err + run.out


@pytest.mark.nightly
def test_other_arguments_are_other_recordings(compare: Callable[..., Any], template: Path) -> None:
    """Only the arguments differ: a run that took the other one's recordings would have its very numbers."""
    only = ("--mechdrift-only", "refusal.direction", "--mechdrift-template", template, "--mechdrift-fail-on", "drifted")
    estimates = [
        compare(*PAIR, *only, "--mechdrift-template-args", json.dumps({"agree": agree})).rows["refusal.direction[form=native]"]
        for agree in (False, True)
    ]
    assert estimates[0]["estimate"] != estimates[1]["estimate"]
