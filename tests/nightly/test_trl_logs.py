"""Stages that TRL's own trainers trained, recorded: taken again without the stage before, they end where TRL ends without it."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError
from mechdrift.integrations import StageRecorder
from mechdrift.models.load import load_model
from mechdrift.stages.lineage import How, points_without
from mechdrift.stages.replay import RERUN

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of trl, at transformers
USUAL: dict[str, Any] = {
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-4,
    "warmup_steps": 1,
    "weight_decay": 0.01,
    "activation_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
TURNS = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}


def preferences() -> list[dict[str, Any]]:
    rows = [
        {"prompt": f"What is {number} plus one?", "chosen": f"It is {number + 1}.", "rejected": f"I say {number}, and no more."}
        for number in range(40)
    ]
    return [{key: [{"role": TURNS[key], "content": text}] for key, text in row.items()} for row in rows]


def conversations() -> list[dict[str, Any]]:
    return [{"messages": [*row["prompt"], *row["chosen"]]} for row in preferences()]


def train(kind: str, start: Path | str, out: Path, log: Path | None = None, **settings: Any) -> Path:
    """Of organism:sft or a folder."""
    import trl
    from datasets import Dataset

    point = resolve(str(start))
    model, tokenizer = load_model(point, __import__("torch").float32, "cpu"), load_tokenizer(point)
    arguments = USUAL | settings | {"output_dir": str(out.with_name(f"trl-{out.name}"))}
    trainer: Any
    if kind == "dpo":
        reference = load_model(resolve("organism:sft"), model.dtype, "cpu")
        args = trl.DPOConfig(**arguments, beta=0.2, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5])
        trainer = trl.DPOTrainer(
            model, reference, args=args, train_dataset=Dataset.from_list(preferences()), processing_class=tokenizer
        )
    else:
        args = trl.SFTConfig(**arguments)
        trainer = trl.SFTTrainer(model, args=args, train_dataset=Dataset.from_list(conversations()), processing_class=tokenizer)
    if log is not None:
        trainer.add_callback(StageRecorder(trainer, log))
    trainer.train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def weights(folder: Path) -> Any:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("last", ["sft", "dpo"])
def test_a_rerun_is_what_trl_gives_without_the_stage(tmp_path: Path, last: str) -> None:
    first = train("sft", "organism:sft", tmp_path / "first", learning_rate=1e-3)
    post = train(last, first, tmp_path / "post", tmp_path / "log")
    skipped = weights(train(last, "organism:sft", tmp_path / "skipped"))
    points = {name: resolve(str(spec)) for name, spec in (("base", "organism:sft"), ("one", first), ("post", post))}
    made, absent, notes = points_without(
        points, ["one"], "post", tmp_path / "made", resolve, How(RERUN, {"post": tmp_path / "log"}, "cpu", tmp_path / "kept")
    )
    assert not absent
    assert len(notes) == 1
    found, with_stage = weights(next(iter(made.values())).folder), weights(post)

    def apart(one: Any) -> float:
        return float(sum((one[name].float() - value.float()).pow(2).sum() for name, value in skipped.items())) ** 0.5

    assert apart(with_stage) > 0
    assert apart(found) < 0.02 * apart(with_stage)


def test_a_loss_that_no_replay_knows_is_refused(tmp_path: Path) -> None:
    import trl

    class Odd(trl.SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, *given: Any, **more: Any) -> Any:
            return super().compute_loss(*given, **more)

    odd = object.__new__(Odd)
    with pytest.raises(InputError, match=r"Odd has a loss of its own; expected loss=NAME"):
        StageRecorder(odd, tmp_path)
