"""The gate on a training run, on real short runs of an organism in which drift is provoked or not."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training import trainer_of, write_statements
from transformers import TrainerCallback as Callback

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError
from mechdrift.integrations import TrainerCallback
from mechdrift.integrations.beside import OF_LAUNCHERS, Beside, Outcome, outcome_of
from mechdrift.integrations.trainer import MARK
from mechdrift.models.load import load_model
from mechdrift.report.saved import read_saved
from mechdrift.session.many_runs import Run

ROW = "truth.judgement_accuracy"


class Tracker(Callback):  # type: ignore[misc]  # transformers is not followed
    """A tracker as those of `report_to` are: a callback, added before ours, that is given what is logged."""

    def __init__(self) -> None:
        self.got: dict[int, dict[str, float]] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **given: Any) -> None:
        """Keep it."""
        self.got.setdefault(state.global_step, {}).update(logs or {})


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have runs end as they are told, without running them: of what a trainer does then a run is no part."""

    def tell(verdict: str, fails: bool) -> None:
        def watched(callback: Any, name: str, post: object, state: Any, read: object, *more: str) -> Outcome | tuple[str, int]:
            if name == "options":
                return "", 1
            by = (verdict,) if fails else ()
            return Outcome(state.global_step, verdict, fails, "as told", {"mechdrift/verdict": 2}, by)

        monkeypatch.setattr(TrainerCallback, "_watched", watched)

    return tell


@pytest.mark.parametrize("truthful", [pytest.param(True, marks=pytest.mark.nightly), False], ids=["sound", "provoked"])
def test_a_provoked_run_is_stopped_and_a_sound_one_finishes(truthful: bool, tmp_path: Path, shared_cache: Path) -> None:
    tracker = Tracker()
    trainer = trainer_of(tmp_path / "run", 16, truthful, [tracker])
    options = ["--mechdrift-statements", str(write_statements(tmp_path / "own.csv")), "--mechdrift-cache", str(shared_cache)]
    callback = TrainerCallback(trainer, every=8, only=[ROW], options=options)
    trainer.add_callback(callback)
    trainer.train()

    verdict = "held" if truthful else "drifted"
    steps = [8, 16] if truthful else [8]
    assert [(one.step, one.verdict, one.fails) for one in callback.outcomes] == [(step, verdict, not truthful) for step in steps]
    assert trainer.state.global_step == steps[-1]
    number = {"held": 0, "drifted": 2}[verdict]
    for step in steps:
        record = tmp_path / "run" / "mechdrift" / "records" / f"step-{step:08}.json"
        assert json.loads(record.read_text())["extra"] == {"step": step}
        [row] = read_saved(record).rows
        logged = tracker.got[step]
        assert "loss" in logged, "the trainer's own line is not lost"
        for what in ("estimate", "low", "high"):
            assert logged[f"mechdrift/{ROW}/{what}"] == getattr(row, what)
        assert logged[f"mechdrift/{ROW}/verdict"] == logged["mechdrift/verdict"] == number
        mark = json.loads((tmp_path / "run" / f"checkpoint-{step}" / MARK).read_text())
        assert (mark["step"], mark["verdict"], mark["fails"]) == (step, verdict, not truthful)


BY_STEP = """
import os
import pytest
from mechdrift.findings.drift import Drift
from mechdrift.stats import Normal

@pytest.mark.finding("truth.clean_gap")
def test_gap(mechdrift_drift):
    assert os.environ["MECHDRIFT_STEP"] != "1"
    mechdrift_drift.judge(Drift("truth.clean_gap", Normal(0.5, 0.01, 100), 1.0, "ratio", "higher", "here", "by hand", "none"))
"""


@pytest.mark.nightly
def test_a_run_that_fails_is_no_pass_and_no_drift_and_nor_is_what_is_undecided(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After step 1 a test breaks, after step 2 the estimate is the limit itself."""
    (tmp_path / "test_own.py").write_text(BY_STEP)
    tracker = Tracker()
    trainer = trainer_of(tmp_path / "run", 2, True, [tracker], save_strategy="steps", save_steps=1)
    callback = TrainerCallback(trainer, base="organism:instruct", options=[str(tmp_path / "test_own.py")])
    trainer.add_callback(callback)
    with caplog.at_level(logging.WARNING, "mechdrift"):
        trainer.train()
    assert [(one.verdict, one.fails) for one in callback.outcomes] == [("error", False), ("undecided", True)]
    assert trainer.state.global_step == 2
    assert "an error in truth.clean_gap" in callback.outcomes[0].message
    assert f"step 1: {callback.outcomes[0].message}" in caplog.text
    assert "step 2" not in caplog.text
    assert [tracker.got[step]["mechdrift/verdict"] for step in (1, 2)] == [-2, 1]
    assert not (tmp_path / "run" / "mechdrift" / "start").exists(), "a base was given"


def test_a_run_that_pytest_does_not_finish_is_said(tmp_path: Path) -> None:
    """And a record that an earlier one left is not taken for its own."""
    (tmp_path / "away.json").write_text("{}")
    beside = Beside(Run("away", "nowhere", "organism:instruct"), 7, tmp_path, 300)
    assert beside.has_ended(300)
    outcome = outcome_of(beside)
    assert (outcome.verdict, outcome.fails, outcome.numbers) == ("error", False, {"mechdrift/verdict": -2})
    assert re.search("not measured: exit code 4: .*nowhere.*; see .*away.log", outcome.message)


def test_a_run_past_its_time_is_stopped_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own: the run itself takes seconds."""
    now = [0.0]
    monkeypatch.setattr("mechdrift.integrations.beside.time", SimpleNamespace(monotonic=lambda: now[0]))
    beside = Beside(Run("slow", "organism:base", "organism:instruct"), 7, tmp_path, 0.5)
    assert not beside.has_ended(0)
    now[0] = 0.6
    assert beside.has_ended(60)
    outcome = outcome_of(beside)
    assert (outcome.verdict, outcome.fails) == ("error", False)
    assert "no end after 0.5 s, stopped" in outcome.message


def test_a_child_is_no_process_of_the_launcher() -> None:
    """What torchrun sets, by its manual, and what is the user's."""
    launchers = "RANK LOCAL_RANK GROUP_RANK ROLE_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT TORCHELASTIC_RUN_ID"
    assert all(OF_LAUNCHERS.fullmatch(name) for name in launchers.split())
    assert not any(OF_LAUNCHERS.fullmatch(name) for name in ("PATH", "HF_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"))


def test_training_is_the_same_with_and_without_it(result: Callable[..., None], tmp_path: Path) -> None:
    result("held", False)
    losses = []
    for number, watched in enumerate((True, False)):
        trainer = trainer_of(tmp_path / str(number), 3, False, [])
        if watched:
            trainer.add_callback(TrainerCallback(trainer, every=2))
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("verdict", "policy", "warns", "stops"),
    [
        ("drifted", "mark", False, False),
        ("drifted", "warn", True, False),
        ("drifted", "stop", True, True),
        ("undecided", "stop", True, True),
        ("unmeasurable", "mark", False, False),
        ("error", "stop", True, True),
    ],
)
def test_a_policy_does_what_it_says(
    verdict: str,
    policy: str,
    warns: bool,
    stops: bool,
    result: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every second step and the last one; all of them, where no number of steps is given, are the trainer's own saves."""
    result(verdict, verdict != "error")
    given: dict[str, Any] = {"on_" + {"drifted": "drift"}.get(verdict, verdict): policy}
    for every, due in ((2, [2, 3]), (None, [1, 2, 3])):
        own: dict[str, Any] = {} if every else {"save_strategy": "steps", "save_steps": 1}
        trainer = trainer_of(tmp_path / str(every), 3, True, [], **own)
        callback = TrainerCallback(trainer, every=every, **given)
        trainer.add_callback(callback)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "mechdrift"):
            trainer.train()
        steps = due[:1] if stops else due
        assert [one.step for one in callback.outcomes] == steps
        assert trainer.state.global_step == steps[-1]
        assert [f"step {step}: as told" in caplog.text for step in steps] == [warns] * len(steps)
        marks = [json.loads((tmp_path / str(every) / f"checkpoint-{step}" / MARK).read_text()) for step in steps]
        assert [mark["verdict"] for mark in marks] == [verdict] * len(steps)


ALL_SORTS = """
import pytest
from mechdrift.errors import Unmeasurable

@pytest.mark.finding("truth.clean_gap")
def test_gap(mechdrift_drift):
    raise Unmeasurable("nothing to read")
"""


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("more", "verdict", "at_begin", "at_step"),
    [
        ({}, "unmeasurable", None, "truth.clean_gap unmeasurable"),
        ({"profile": "report"}, "ungated", "nothing is gated", "profile report has no gates"),
        ({"options": ["--mechdrift-fail-on", "drifted"]}, "allowed", None, None),
        ({"options": ["--setup-only"]}, "unmeasurable", None, "truth.clean_gap unmeasurable"),
        ({"options": ["--collect-only"]}, "error", None, "no record was left"),
    ],
    ids=["unmeasurable", "no gates", "let pass", "setup only", "collect only"],
)
def test_training_of_which_nothing_was_measured_does_not_look_fine(
    more: dict[str, Any],
    verdict: str,
    at_begin: str | None,
    at_step: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes on, and says so at its beginning where that is known then, after each checkpoint, and at its end."""
    (tmp_path / "test_own.py").write_text(ALL_SORTS)
    trainer = trainer_of(tmp_path / "run", 1, True, [])
    options = [str(tmp_path / "test_own.py"), *more.pop("options", [])]
    callback = TrainerCallback(trainer, every=1, base="organism:base", options=options, **more)
    trainer.add_callback(callback)
    with caplog.at_level(logging.WARNING, "mechdrift"):
        trainer.train()
    assert [one.verdict for one in callback.outcomes] == [verdict]
    assert trainer.state.global_step == 1
    assert "nothing is gated" in caplog.text if at_begin else "nothing is gated" not in caplog.text
    assert at_step is None or at_step in caplog.text
    assert f"no checkpoint of this training was held or drifted: {verdict}" in caplog.text


def test_a_trainer_that_saves_nothing_is_said_before_the_first_step(
    result: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result("held", False)
    trainer = trainer_of(tmp_path / "run", 1, True, [])
    trainer.add_callback(TrainerCallback(trainer))
    with caplog.at_level(logging.WARNING, "mechdrift"):
        trainer.train()
    assert "no checkpoint will be measured: the trainer saves none" in caplog.text
    assert "no checkpoint of this training was held or drifted: none measured" in caplog.text


def test_trl_is_a_trainer_too(result: Callable[..., None], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    result("drifted", True)
    organism = resolve("organism:instruct")
    output = datasets.Dataset.from_list([{"prompt": "Is this right?", "completion": " No."}] * 8)
    settings = trl.SFTConfig(
        output_dir=str(tmp_path),
        max_steps=3,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        dataloader_pin_memory=False,
    )
    tracker = Tracker()
    model = load_model(organism, torch.float32, "cpu")
    tokenizer = load_tokenizer(organism)
    trainer = trl.SFTTrainer(model=model, args=settings, train_dataset=output, processing_class=tokenizer, callbacks=[tracker])
    trainer.add_callback(TrainerCallback(trainer, every=2))
    trainer.train()
    assert trainer.state.global_step == 2
    assert tracker.got[2]["mechdrift/verdict"] == 2
    assert resolve(str(tmp_path / "mechdrift" / "start")).digests["tokenizer"]


def test_what_pytest_refuses_is_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", 2, True, [])
    trainer.add_callback(TrainerCallback(trainer, only=["truth.nothing"], base="organism:instruct"))
    with pytest.raises(InputError, match=r"--mechdrift-only 'truth\.nothing': no such finding"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_records_of_an_earlier_run_are_not_mixed_with_new_ones(result: Callable[..., None], tmp_path: Path) -> None:
    result("held", False)
    records = tmp_path / "run" / "mechdrift" / "records"
    records.mkdir(parents=True)
    (records / "step-00000001.json").write_text("{}")
    trainer = trainer_of(tmp_path / "run", 1, True, [])
    trainer.add_callback(TrainerCallback(trainer, every=1))
    with pytest.raises(InputError, match=r"step-00000001\.json: of an earlier run"):
        trainer.train()


def test_a_run_goes_on_with_the_start_that_it_had(result: Callable[..., None], tmp_path: Path) -> None:
    result("held", False)
    trainer = trainer_of(tmp_path / "run", 1, False, [])
    trainer.add_callback(TrainerCallback(trainer, every=1))
    trainer.train()
    start = tmp_path / "run" / "mechdrift" / "start"
    weights = resolve(str(start)).digests["weights"]
    for there in (True, False):
        if not there:
            shutil.rmtree(start)
        again = trainer_of(tmp_path / "run", 2 if there else 3, False, [])
        callback = TrainerCallback(again, every=1)
        again.add_callback(callback)
        if there:
            again.train(resume_from_checkpoint=True)
            assert [one.step for one in callback.outcomes] == [2]
            assert resolve(str(start)).digests["weights"] == weights
        else:
            with pytest.raises(InputError, match=r"goes on at step 2, and no .*start; .*give base="):
                again.train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ({"on_drift": "panic"}, r"'panic'; expected one of mark, warn, stop"),
        ({"every": 0}, r"every=0; expected a number of steps, 1 or more"),
        ({"timeout": 0}, r"timeout=0; expected seconds"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(given: dict[str, Any], output: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=output):
        TrainerCallback(trainer_of(tmp_path, 1, True, []), **given)
