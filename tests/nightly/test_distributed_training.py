"""Two processes that train one model: one measures and both stop after the same step; both record, and the log is of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

from by_hand import suite_by_hand

from mechdrift.checkpoints.resolve import resolve
from mechdrift.stages.lineage import How, points_without
from mechdrift.stages.replay import RERUN
from mechdrift.stages.training_log import read_log

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from training import trainer_of
from mechdrift.integrations import TrainerCallback
folder = Path(sys.argv[1])
trainer = trainer_of(folder / "run", 4, True, [], ddp_backend="gloo")
callback = TrainerCallback(trainer, every=2, options=[str(folder / "test_own.py")])
trainer.add_callback(callback)
trainer.train()
verdicts = [one.verdict for one in callback.outcomes]
told = {"step": trainer.state.global_step, "verdicts": verdicts, "world": trainer.args.world_size}
(folder / f"told-{os.environ['RANK']}.json").write_text(json.dumps(told))
torch.distributed.destroy_process_group()  # or gloo's threads may abort a process that ends
"""


RECORDING = """
import sys
from pathlib import Path
import torch
from training import trainer_of
from mechdrift.integrations import StageRecorder
folder = Path(sys.argv[1])
trainer = trainer_of(folder / "run", 3, False, [], ddp_backend="gloo", gradient_accumulation_steps=2, learning_rate=1e-4)
trainer.add_callback(StageRecorder(trainer, folder / "log"))
trainer.train()
if trainer.is_world_process_zero():
    trainer.model.save_pretrained(folder / "post")
    trainer.processing_class.save_pretrained(folder / "post")
torch.distributed.destroy_process_group()
"""


def test_both_stop_after_the_same_step(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(suite_by_hand(estimate=0.2))
    train(SCRIPT, tmp_path)
    for rank in (0, 1):
        result = json.loads((tmp_path / f"told-{rank}.json").read_text())
        assert result == {"step": 2, "verdicts": ["drifted"], "world": 2}
    assert [path.name for path in (tmp_path / "run" / "mechdrift" / "records").glob("*.json")] == ["step-00000002.json"]


def test_both_record_and_the_log_is_of_both(tmp_path: Path) -> None:
    """Replayed by one process it ends where two have ended: their losses, gradients and rates are told right."""
    train(RECORDING, tmp_path)
    log = read_log(tmp_path / "log")
    assert [len(log.batches(step)) for step in log.steps] == [4, 4, 2], "two forwards of two; the last ends the epoch"
    chain = {"base": "organism:sft", "one": "organism:instruct", "post": str(tmp_path / "post")}
    points = {name: resolve(spec) for name, spec in chain.items()}
    how = How(RERUN, {"post": tmp_path / "log"}, "cpu", tmp_path / "kept")
    _, absent, notes = points_without(points, ["one"], "post", tmp_path, resolve, how)
    assert not absent
    assert notes == ["post, replayed, ends 0.0% of its change away from its checkpoint"]


def train(script: str, folder: Path) -> None:
    """By torchrun, in two processes."""
    (folder / "train.py").write_text(script)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    tests = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
    subprocess.run([*torchrun, str(folder / "train.py"), str(folder)], env=tests, check=True, timeout=600)
