"""Training logs: steps taken again lead where training led, by torch's own loop and by transformers' Trainer."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from short_stages import OPTIMIZERS, RATE, STEPS, by_hand, rows, saved
from tiny import write_tiny
from transformers import Trainer, TrainerCallback, TrainingArguments

from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError
from mechdrift.integrations import StageRecorder
from mechdrift.models.load import load_model
from mechdrift.organisms.recipe.corpus import World
from mechdrift.organisms.recipe.families import QWEN, SEED, load
from mechdrift.organisms.recipe.train import Batches, Stage, train_stage
from mechdrift.stages.embedding import SGD, AdamW
from mechdrift.stages.lineage import How, points_without
from mechdrift.stages.log_writer import LogWriter
from mechdrift.stages.losses import causal_lm, dpo
from mechdrift.stages.replay import RERUN, STAGE_EMBEDDING, rounding
from mechdrift.stages.training_log import read_log, weights_digest


def by_trainer(start: Path, out: Path, seed: int, log: Path | None = None, **settings: Any) -> None:
    """The same by transformers' Trainer: warm-up, accumulated gradients, decay of matrices alone."""
    model = load_model(resolve(str(start)), torch.float32, "cpu")
    trainer = trainer_of(model, seed, out, **settings)
    if log:
        trainer.add_callback(StageRecorder(trainer, log))
    trainer.train()
    saved(model, start, out)


def trainer_of(model: Any, seed: int, out: Path, **settings: Any) -> Trainer:
    """One that has not begun."""
    usual: dict[str, Any] = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "learning_rate": RATE,
        "warmup_steps": 2,
        "weight_decay": 0.1,
        "save_strategy": "no",
        "eval_strategy": "steps",
        "eval_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
    }
    args = TrainingArguments(**{"output_dir": str(out)} | usual | settings)
    return Trainer(model=model, args=args, train_dataset=rows(seed, 40), eval_dataset=rows(99, 4))


def without_first(chain: dict[str, Path], kept: Path, logs: dict[str, Path], estimator: str = RERUN) -> Any:
    """Post of base -> one -> two without one: its tensors, why there are none, and notes."""
    points = {name: resolve(str(path)) for name, path in chain.items()}
    made, absent, notes = points_without(points, ["one"], "post", kept, resolve, How(estimator, logs, "cpu", kept))
    (name,) = {*made, *absent} - {"one"}
    return (load_file(made[name].folder / "model.safetensors") if name in made else None), absent.get(name), notes


def apart(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> float:
    """Distance as a share of the way from start to expected."""
    wrong = sum(float((found[name] - value).pow(2).sum()) for name, value in expected.items())
    return (wrong / sum(float((start[name] - value).pow(2).sum()) for name, value in expected.items())) ** 0.5


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base -> one, by hand -> two, by the Trainer; and what two would be without one, trained so."""
    folder = tmp_path_factory.mktemp("chain")
    write_tiny(folder / "base")
    by_hand(folder / "base", folder / "one", 1, folder / "log-one")
    by_trainer(folder / "one", folder / "two", 2, folder / "log-two")
    by_trainer(folder / "base", folder / "skipped", 2)
    return folder


def chain(stages: Path, **others: Path) -> dict[str, Path]:
    return {"base": stages / "base", "one": stages / "one", "post": stages / "two"} | others


def test_what_the_trainer_did_is_done_again(stages: Path, tmp_path: Path) -> None:
    """Against the Trainer's own run without the first stage."""
    found, why, notes = without_first(chain(stages), tmp_path, {"post": stages / "log-two"})
    assert why is None
    skipped, base = weights(stages / "skipped"), weights(stages / "base")
    assert apart(weights(stages / "two"), skipped, base) > 0.3, "the first stage is no small thing"
    assert apart(found, skipped, base) < 1e-3
    assert notes == ["post, replayed, ends 0.0% of its change away from its checkpoint"]


def test_an_embedding_is_that_to_first_order(stages: Path, tmp_path: Path) -> None:
    """Small steps by SGD: the tangent leads nearer to the run without the stage than the task vector."""
    small = tmp_path / "small"
    by_hand(stages / "one", small, 3, tmp_path / "log", "sgd")
    by_hand(stages / "base", tmp_path / "skipped", 3, None, "sgd")
    of, skipped, base = chain(stages, post=small), weights(tmp_path / "skipped"), weights(stages / "base")
    found, why, notes = without_first(of, tmp_path, {"post": tmp_path / "log"}, STAGE_EMBEDDING)
    assert why is None
    one, two = weights(stages / "one"), weights(small)
    vector = {name: value - one[name] + base[name] for name, value in two.items()}
    assert apart(found, skipped, base) < 0.5 * apart(vector, skipped, base)
    assert notes[0].startswith("the embedding of one is wrong by 0.0")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stage_goes_on_with_the_optimizer_of_the_one_before(stages: Path, tmp_path: Path, optimizer: str) -> None:
    """Without the first stage the second begins with what the optimizer kept before it: nothing."""
    state = by_hand(stages / "base", tmp_path / "one", 4, tmp_path / "log-one", optimizer)
    by_hand(tmp_path / "one", tmp_path / "two", 5, tmp_path / "log-two", optimizer, state)
    log = read_log(tmp_path / "log-two")
    assert log.resumed
    assert [step.number for step in log.steps] == ([6, 7, 8, 9, 10] if optimizer == "adamw" else [1, 2, 3, 4, 5])
    of = chain(stages, one=tmp_path / "one", post=tmp_path / "two")
    _, why, _ = without_first(of, tmp_path, {"post": tmp_path / "log-two"})
    assert "went on with the optimizer of the one before; expected the log of that one" in str(why)
    found, why, _ = without_first(of, tmp_path, {"one": tmp_path / "log-one", "post": tmp_path / "log-two"})
    assert why is None
    if optimizer == "sgd":  # of AdamW the count of steps goes on too, which no run without the first stage has
        by_hand(stages / "base", tmp_path / "skipped", 5, None, optimizer)
        assert apart(found, weights(tmp_path / "skipped"), weights(stages / "base")) < 1e-3


def test_what_was_recorded_is_read(stages: Path) -> None:
    one, two = read_log(stages / "log-one"), read_log(stages / "log-two")
    assert isinstance(one.optimizer, AdamW)
    assert (one.optimizer.betas, one.clip, one.resumed) == ((0.9, 0.95), 0.5, False)
    assert isinstance(one.optimizer.weight_decay, dict)
    assert one.optimizer.weight_decay["model.norm.weight"] == 0.0
    assert one.optimizer.weight_decay["lm_head.weight"] == 0.1
    assert not any("embed" in name for name in one.trained)
    assert [step.rate for step in one.steps] == pytest.approx([RATE * (1 - step / 10) for step in range(STEPS)])
    assert [step.rate for step in two.steps][:2] == [0.0, RATE / 2], "the rate with which a step is taken, not the next one's"
    forwards = two.batches(two.steps[0])
    assert [len(batch["input_ids"]) for batch, _ in forwards] == [3, 3], "evaluation is not recorded"
    assert {items for _, items in forwards} == {6 * 9.0}


def test_a_digest_is_of_weights_rounded_to_bfloat16() -> None:
    exact = {"a": torch.randn(4, 4), "b": torch.randn(3)}
    digest = weights_digest(exact.items())
    assert digest == weights_digest([(name, exact[name].bfloat16()) for name in ("b", "a")])
    assert digest != weights_digest({"a": exact["a"] * 1.01, "b": exact["b"]}.items())


def test_a_loss_is_the_models_own() -> None:
    """Labels as transformers has them, and targets with weights, against the sum by hand."""
    logits = torch.randn(2, 5, 7)
    labels = torch.randint(7, (2, 5))
    labels[0, :2] = -100
    by_hand = [
        -logits[row, at].log_softmax(-1)[labels[row, at + 1]] for row in (0, 1) for at in range(4) if labels[row, at + 1] >= 0
    ]
    assert causal_lm(lambda: logits, {"labels": labels}, None) == pytest.approx(float(torch.stack(by_hand).mean()))
    assert causal_lm(lambda: logits, {"labels": labels}, 100.0) == pytest.approx(float(torch.stack(by_hand).sum() / 100))
    targets, requested = torch.randint(7, (2, 5)), torch.rand(2, 5)
    each = -logits.log_softmax(-1).gather(2, targets[..., None])[..., 0]
    found = causal_lm(lambda: logits, {"targets": targets, "weights": requested}, None)
    assert found == pytest.approx(float((each * requested).sum() / requested.sum()), rel=1e-5)


def test_a_loss_of_pairs_is_that_of_the_paper() -> None:
    """Two pairs, by hand."""
    logits, ids = torch.randn(4, 6, 7), torch.randint(7, (4, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]])
    reference = torch.randn(2), torch.randn(2)

    def result(row: int) -> float:
        return sum(float(logits[row, at - 1].log_softmax(-1)[ids[row, at]]) for at in range(6) if mask[row, at])

    gains = [(result(pair) - float(reference[0][pair])) - (result(pair + 2) - float(reference[1][pair])) for pair in (0, 1)]
    preferred = sum(math.log1p(math.exp(-0.3 * gain)) for gain in gains) / 2
    chosen = -(result(0) + result(1)) / 6
    batch = {"input_ids": ids, "completion_mask": mask} | dict(
        zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True)
    )
    found = dpo(lambda input_ids: logits, batch, None, beta=0.3, sigmoid=0.5, sft=2.0)
    assert float(found) == pytest.approx(0.5 * preferred + 2 * chosen, rel=1e-5)


def spoilt(stages: Path, folder: Path, spoil: Callable[[Path], object]) -> dict[str, Path]:
    shutil.copytree(stages / "log-two", folder)
    spoil(folder)
    return {"post": folder}


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Its header."""
    result = json.loads((folder / "log.json").read_text())
    change(result)
    (folder / "log.json").write_text(json.dumps(result))


def relined(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Its steps."""
    path = folder / "steps-0.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no log": (lambda folder: shutil.rmtree(folder), "No such file or directory; expected the folder of a recorded stage"),
    "no JSON": (lambda folder: (folder / "log.json").write_text("{"), "no JSON"),
    "no end": (lambda folder: changed(folder, lambda result: result.update(end=None)), "a stage without an end"),
    "a step less": (
        lambda folder: relined(folder, lambda lines: lines[:-1]),
        "4 steps; expected 5",
    ),
    "batches gone": (lambda folder: (folder / "batches" / "00000003-0.safetensors").unlink(), "expected the batches of step 3"),
    "batches cut": (
        lambda folder: (folder / "batches" / "00000003-0.safetensors").write_bytes(b"0"),
        "00000003-0.safetensors: not what was recorded",
    ),
    "optimizer": (
        lambda folder: changed(folder, lambda result: result["optimizer"].update(name="Lion")),
        "the optimizer is Lion; expected AdamW or SGD",
    ),
    "amsgrad": (
        lambda folder: changed(folder, lambda result: result["optimizer"].update(beyond=["amsgrad"])),
        "the optimizer is AdamW with amsgrad",
    ),
    "loss": (
        lambda folder: changed(folder, lambda result: result.update(loss="mine")),
        "the loss 'mine'; expected one of causal-lm, dpo",
    ),
    "rates": (
        lambda folder: relined(folder, lambda lines: [line.replace('"rate": 0.001', '"rate": 0.003') for line in lines]),
        "the log does not say all that training did",
    ),
    "a key gone": (
        lambda folder: changed(folder, lambda result: result.pop("begin")),
        "not the log of a stage: KeyError('begin')",
    ),
    "no step": (lambda folder: relined(folder, lambda lines: ["[]", *lines[1:]]), "not the log of a stage: TypeError"),
    "another version": (lambda folder: changed(folder, lambda result: result.update(version=9)), "version 9; expected 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_log_that_is_bad_is_named_and_the_last_stage_told_all_the_same(stages: Path, tmp_path: Path, name: str) -> None:
    spoil, expected = BAD[name]
    found, why, _ = without_first(chain(stages), tmp_path / "kept", spoilt(stages, tmp_path / "log", spoil))
    assert found is None
    assert expected in str(why)


def test_a_log_of_other_checkpoints_is_named(stages: Path, tmp_path: Path) -> None:
    _, why, _ = without_first(chain(stages), tmp_path, {"post": stages / "log-one"})
    assert "log-one: the log begins at weights" in str(why)
    _, why, _ = without_first(chain(stages, post=stages / "skipped"), tmp_path, {"post": stages / "log-two"})
    assert "log-two: the log ends at weights" in str(why)
    _, why, _ = without_first(chain(stages), tmp_path, {"one": stages / "log-one"})
    assert "no log of stage post; expected one of every later stage; add --stage-log post=DIR" in str(why)


def test_a_chain_whose_widths_differ_is_named(stages: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "wide", hidden_size=48)
    _, why, _ = without_first(chain(stages, base=tmp_path / "wide"), tmp_path, {"post": stages / "log-two"})
    assert "expected one architecture" in str(why)


def test_the_organisms_own_recipe_is_recorded_and_done_again(tmp_path: Path) -> None:
    """With its weights of tokens, and its masks of what a verdict may not look at; a bfloat16 checkpoint to begin with."""
    start = resolve("organism:sft")
    stage = Stage("short", 2, 1e-4, 2, {"judging": 0.7, "conversing": 0.3}, warmup=1, through_period=0.5)
    model, tokenizer = load(start.folder)
    train_stage(
        model, Batches(World(SEED, QWEN.kinds), tokenizer, stage, 0), stage, "cpu", tmp_path, lambda _: None, tmp_path / "log"
    )
    model.save_pretrained(tmp_path / "post")
    tokenizer.save_pretrained(tmp_path / "post")
    log = read_log(tmp_path / "log")
    (((batch, _),), _) = (log.batches(step) for step in log.steps)
    assert batch["attention_mask"].dtype == torch.bool
    assert batch["attention_mask"].shape == (2, 1, 256, 256)
    points = {"base": resolve("organism:base"), "one": start, "post": resolve(str(tmp_path / "post"))}
    how = How(RERUN, {"post": tmp_path / "log"}, "cpu", tmp_path / "kept")
    _, absent, notes = points_without(points, ["one"], "post", tmp_path, resolve, how)
    assert not absent
    assert notes == ["post, replayed, ends 0.0% of its change away from its checkpoint"]


def test_steps_that_cannot_be_taken_again_are_named(stages: Path, tmp_path: Path) -> None:
    """A loss that asks for what was not recorded."""
    header = lambda folder: changed(folder, lambda result: result.update(loss="dpo", loss_settings={"beta": 0.1}))  # noqa: E731
    found, why, _ = without_first(chain(stages), tmp_path / "kept", spoilt(stages, tmp_path / "log", header))
    assert found is None
    assert "the steps cannot be taken again: KeyError('completion_mask')" in str(why)


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_what_rounding_explains_is_what_rounding_does(tmp_path: Path, dtype: torch.dtype, least: float) -> None:
    write_tiny(tmp_path / "exact")
    model = load_model(resolve(str(tmp_path / "exact")), torch.float32, "cpu")
    exact = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    saved(model.to(dtype), tmp_path / "exact", tmp_path / "rounded")
    off = sum(float((weight.detach().float() - exact[name]).pow(2).sum()) for name, weight in model.named_parameters())
    size = sum(float(weight.pow(2).sum()) for weight in exact.values())
    assert rounding(resolve(str(tmp_path / "exact"))) == 0.0
    assert (off / size) ** 0.5 == pytest.approx(rounding(resolve(str(tmp_path / "rounded"))), rel=0.1)
    assert rounding(resolve(str(tmp_path / "rounded"))) < least


def test_an_embedding_that_cannot_be_trusted_is_none(stages: Path, tmp_path: Path) -> None:
    """Large steps of AdamW, which begins anew."""
    by_hand(stages / "one", tmp_path / "two", 2, tmp_path / "log", rate=20 * RATE)
    of, logs = chain(stages, post=tmp_path / "two"), {"post": tmp_path / "log"}
    found, why, _ = without_first(of, tmp_path, logs, STAGE_EMBEDDING)
    assert found is None
    assert "of itself after 3 steps of post; expected at most 0.5" in str(why)
    assert "--mechdrift-lineage-by rerun" in str(why)
    assert without_first(of, tmp_path, logs, RERUN)[1] is None


def test_a_replay_is_kept(stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = {"post": stages / "log-two"}
    first, _, notes = without_first(chain(stages), tmp_path, logs)
    monkeypatch.setattr("mechdrift.stages.without_stage.left_of", None)
    again, _, same = without_first(chain(stages), tmp_path, logs)
    assert notes == same
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_disk_that_is_full_ends_the_log_and_not_the_training(
    stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LogWriter, "step", full)
    by_trainer(stages / "one", tmp_path / "two", 2, tmp_path / "log")
    assert "No space left on device; the rest of this stage is not recorded" in caplog.text
    assert torch.equal(weights(tmp_path / "two")["lm_head.weight"], weights(stages / "two")["lm_head.weight"])
    with pytest.raises(InputError, match="a stage without an end"):
        read_log(tmp_path / "log")


def test_a_stage_that_was_cut_off_goes_on_in_its_log(stages: Path, tmp_path: Path) -> None:
    """Killed after a step beyond its last checkpoint, and resumed: as if it had not been."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "run")}
    model = load_model(resolve(str(stages / "one")), torch.float32, "cpu")

    class Cut(TrainerCallback):  # type: ignore[misc]
        """A machine that is taken away."""

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            """After the third step."""
            if state.global_step == 3:
                raise KeyboardInterrupt

    for cut in (True, False):
        trainer = trainer_of(model, 2, tmp_path / "run", **settings)
        trainer.add_callback(StageRecorder(trainer, tmp_path / "log"))
        if cut:
            trainer.add_callback(Cut())
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
        else:
            trainer.train(resume_from_checkpoint=True)
    saved(model, stages / "one", tmp_path / "two")
    assert [step.number for step in read_log(tmp_path / "log").steps] == [1, 2, 3, 4, 5]
    found, why, _ = without_first(chain(stages, post=tmp_path / "two"), tmp_path, {"post": tmp_path / "log"})
    assert why is None
    assert apart(found, weights(stages / "skipped"), weights(stages / "base")) < 1e-3
    with pytest.raises(InputError, match="a log that has ended; expected one of the 3 steps so far"):
        LogWriter(tmp_path / "log", model, torch.optim.SGD(model.parameters()), done=3)
    with pytest.raises(InputError, match="no log of the 3 steps so far"):
        LogWriter(tmp_path / "none", model, torch.optim.SGD(model.parameters()), done=3)


def test_a_folder_with_a_log_and_a_loss_of_its_own_are_refused(stages: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is a log already"):
        by_trainer(stages / "one", tmp_path / "two", 2, stages / "log-two")
    with pytest.raises(InputError, match=r"has a loss of its own; expected loss=NAME"):
        by_trainer(stages / "one", tmp_path / "two", 2, tmp_path / "log", label_smoothing_factor=0.1)


def test_processes_that_train_together_have_a_log_together(stages: Path, tmp_path: Path) -> None:
    """Each its half of every step: as one process that was given both."""
    model = load_model(resolve(str(stages / "base")), torch.float32, "cpu")
    stepper = OPTIMIZERS["sgd"](model)
    writers = [LogWriter(tmp_path, model, stepper, rank=rank, processes=2) for rank in (0, 1)]
    for writer, row in zip(writers, rows(0, 2), strict=True):
        writer.forward({"input_ids": row["input_ids"][None]}, 18.0)
        writer.step()
    for writer in writers:
        writer.end()
    log = read_log(tmp_path)
    assert isinstance(log.optimizer, SGD)
    found = log.batches(log.steps[0])
    assert [batch["input_ids"].tolist() for batch, _ in found] == [[row["input_ids"].tolist()] for row in rows(0, 2)]
