"""Two checkpoints that differ in a small file alone are two: in a run, in its cache, and afterwards."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer

from .conftest import INSTRUCT, Compared

CHANGE = ("--mechdrift-profile", "release", "--mechdrift-only", "refusal.change_harmful")
Compare = Callable[..., Compared]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """organism:instruct in a folder of its own."""
    return Path(shutil.copytree(resolve(INSTRUCT).folder, tmp_path / "copy"))


def estimate(run: Compared) -> Any:
    return run.rows["refusal.change_harmful"]["estimate"]


@pytest.mark.nightly
def test_a_generation_config_that_ends_refusals_is_read_and_nobody_elses(compare: Compare, copy: Path, tmp_path: Path) -> None:
    """The tokens with which refusals begin end a reply: post then refuses nothing, and base goes on refusing."""
    tokenizer = load_tokenizer(resolve(INSTRUCT))
    path = copy / "generation_config.json"
    settings = json.loads(path.read_text())
    starts = {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in ("I'm sorry", "Sorry", "I can't")}
    path.write_text(json.dumps(settings | {"eos_token_id": sorted({*settings["eos_token_id"], *starts})}))
    cache = tmp_path / "cache"
    run = compare(INSTRUCT, copy, *CHANGE, cache=cache)
    assert (run.code, estimate(run)) == (1, -1.0)
    assert not run.record["inputs"]["identical"]
    assert [change["key"] for change in run.record["inputs"]["config_changes"]] == ["generation.eos_token_id"]
    # The same the other way round, from the same cache: instruct's own replies are still its own.
    again = compare(copy, INSTRUCT, *CHANGE, cache=cache)
    assert again.rows["refusal.change_harmful"]["verdict"] == "unmeasurable" or estimate(again) == 1.0


@pytest.mark.nightly
def test_a_second_template_is_another_checkpoint(compare: Compare, copy: Path) -> None:
    """Transformers takes additional_chat_templates/default.jinja before chat_template.jinja."""
    (copy / "additional_chat_templates").mkdir()
    template = (copy / "chat_template.jinja").read_text()
    (copy / "additional_chat_templates" / "default.jinja").write_text(f"{template}Sure, here is")
    run = compare(INSTRUCT, copy, *CHANGE)
    assert not run.record["inputs"]["identical"]
    assert run.code == 1
    assert estimate(run) < -0.5


def test_a_window_that_short_prompts_do_not_show_gates_and_can_be_waived(
    compare: Compare, copy: Path, pytester: pytest.Pytester
) -> None:
    path = copy / "config.json"
    window = {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 0, "layer_types": ["sliding_attention"] * 6}
    path.write_text(json.dumps(json.loads(path.read_text()) | window))
    run = compare(INSTRUCT, copy, "--mechdrift-profile", "release", "--mechdrift-only", "context")
    assert run.code == 1
    assert run.verdicts() == {
        "context.late_loss": "reported",
        "context.settings[part=rope]": "held",
        "context.settings[part=soft_cap]": "held",
        "context.settings[part=window]": "drifted",
    }
    assert "configs of base -> post differ in: layer_types, max_window_layers, sliding_window, use_sliding_window" in run.out
    # Up to token 32 a window of 32 tokens is none; from there on every bin moves.
    curve = {point["site"]: point for point in run.rows["context.late_loss"]["curve"]}
    assert [point["estimate"] for point in curve.values()][:2] == [0.0, 0.0]
    assert curve["tokens 33 to 64"]["low"] > 0
    (pytester.path / "own.toml").write_text(
        'extends = "release"\n[waivers."context.settings[part=window]"]\nowner = "us"\nreason = "meant"\nexpires = 2999-01-01\n'
    )
    waived = compare(INSTRUCT, copy, "--mechdrift-profile", "own.toml", "--mechdrift-only", "context.settings")
    assert waived.code == 0
    assert waived.rows["context.settings[part=window]"]["waiver"]["reason"] == "meant"


@pytest.mark.nightly
def test_settings_in_a_checkpoints_folder_are_refused(pytester: pytest.Pytester, copy: Path, shared_cache: Path) -> None:
    """Without the guard pytest obeys: it looks for its settings in a folder that stands alone among the arguments."""
    (copy / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    alone = ("--mechdrift-cache", shared_cache, "--mechdrift-only", "context.settings")
    result = pytester.runpytest_subprocess("--base", INSTRUCT, "--post", copy, *alone)
    assert result.ret == 4
    assert f"took settings from {copy / 'pytest.ini'}, in a checkpoint" in result.stderr.str()
    with_equals = pytester.runpytest_subprocess(f"--base={INSTRUCT}", f"--post={copy}", *alone, "--mechdrift-profile", "release")
    with_equals.assert_outcomes(passed=3)
