"""Specs of all kinds through the command line: stages, the hub, an unchanged checkpoint's second run."""

import json
import os
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from stand_in import StandIn, environment, stand_in

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.models.load import load_model

# A row without a model: what is tested here comes before the first measure.
SUITE = """
import pytest
from mechdrift.findings.drift import Drift
from mechdrift.stats import Normal

@pytest.mark.finding("truth.clean_gap")
def test_gap(mechdrift_pair, mechdrift_drift):
    estimate = Normal({estimate}, 0.01, 100)
    mechdrift_drift.judge(Drift("truth.clean_gap", estimate, 1.0, "ratio", "higher", "here", "by hand", "none"))
"""
OWN = "test_own.py"


@pytest.fixture(autouse=True)
def own(pytester: pytest.Pytester) -> None:
    """A suite in the run's folder that judges the same number whatever is compared."""
    pytester.makepyfile(test_own=SUITE.format(estimate=1.0))


def schema() -> Any:
    return json.loads((files("mechdrift.report") / "record.schema.json").read_text())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub for processes of their own, told of it as users tell theirs: through the environment."""
    with stand_in() as server:
        for name, value in environment(server, tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        for name in ("HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def test_stages_are_checked_told_and_recorded(compare: Callable[..., Any]) -> None:
    stages = ("--stage", "sft=organism:instruct", "--stage", "twin=organism:base")
    run = compare("organism:base", "organism:instruct", *stages, OWN)
    assert run.code == 0, run.out
    jsonschema.validate(run.record, schema())
    result = run.record["inputs"]["stages"]
    assert [stage["name"] for stage in result] == ["sft", "twin"]
    assert [stage["digests"] for stage in result] == [run.record["inputs"][side]["digests"] for side in ("post", "base")]
    header = [line for line in run.out.splitlines() if line.startswith("mechdrift: ")]
    assert [line.split(" (")[0] for line in header[:4]] == [
        "mechdrift: base organism:base",
        "mechdrift: stage sft organism:instruct",
        "mechdrift: stage twin organism:base",
        "mechdrift: post organism:instruct",
    ]


@pytest.mark.nightly
def test_a_pair_of_the_hub_then_without_a_connection(
    hub: StandIn, compare: Callable[..., Any], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, post = (resolve(f"organism:{name}") for name in ("base", "instruct"))
    repository = hub.repository("org/model")
    commits = [repository.push(base.folder, "main"), repository.push(post.folder, "tuned")]
    run = compare("org/model", "org/model@tuned", OWN, process=True)
    assert run.code == 0, run.out
    for side, point, commit in zip(("base", "post"), (base, post), commits, strict=True):
        result = run.record["inputs"][side]
        assert (result["source"], result["commit"], result["digests"]) == ("hub", commit, point.digests)
    assert f"mechdrift: base org/model (hub commit {commits[0]}, {base.model_type}, " in run.out
    jsonschema.validate(run.record, schema())

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytester.makepyfile(test_own=SUITE.format(estimate=0.2))
    hub.wanted.clear()
    offline = compare("org/model", "org/model@tuned", OWN, process=True)
    assert offline.code == 1
    assert not hub.wanted
    assert offline.record["inputs"] == run.record["inputs"]
    again = f"pytest --base org/model@{commits[0]} --post org/model@{commits[1]} "
    assert again in offline.out, "a failure is repeated on the same commits"


def test_what_the_hub_refuses_ends_in_one_line(hub: StandIn, compare: Callable[..., Any]) -> None:
    run = compare("org/none", "organism:base", process=True)
    assert run.code == 4
    assert "mechdrift: org/none: no such folder here, and no org/none on the hub that is public; expected" in run.out + run.err
    assert "Traceback" not in run.out + run.err


def test_an_unchanged_checkpoint_is_remembered_by_the_run(
    compare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(resolve("organism:base").folder, tmp_path / "base"))
    os.utime(folder / "model.safetensors", (1_600_000_000, 1_600_000_000))
    cache = tmp_path / "cache"
    first = compare(folder, folder, OWN, cache=cache)
    assert len(list((cache / "identities").rglob("*.json"))) == 1

    def never(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("mechdrift.checkpoints.resolve.read_through", never)
    second = compare(folder, folder, OWN, cache=cache)
    assert second.code == first.code == 0, second.out
    assert second.record["inputs"] == first.record["inputs"]


def test_an_added_pad_token_and_a_padded_embedding_are_a_note(
    compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str]
) -> None:
    """As Tulu 3 has them: what is read is read alike, so what is measured is what it was."""
    checkpoint = resolve("organism:instruct")
    model, tokenizer = load_model(checkpoint, torch.float32, "cpu"), load_tokenizer(checkpoint)
    tokenizer.add_special_tokens({"pad_token": "<added pad>"})
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    model.save_pretrained(tmp_path / "padded")
    tokenizer.save_pretrained(tmp_path / "padded")
    only = ("--mechdrift-only", "truth.direction_similarity", *few)
    plain, padded = (compare("organism:base", post, *only) for post in ("organism:instruct", tmp_path / "padded"))
    assert padded.code == plain.code == 0
    # The same numbers, but for the copy's float32 embedding.
    row = "truth.direction_similarity"
    assert padded.rows[row]["estimate"] == pytest.approx(plain.rows[row]["estimate"], abs=1e-3)
    assert plain.record["run"]["warnings"] == []
    (note,) = padded.record["run"]["warnings"]
    assert note.startswith("vocabularies differ: post has 1 more ('<added pad>'), its embedding has ")
    assert note in padded.out
