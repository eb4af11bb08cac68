"""Two processes that train one model: one measures, and both stop after the same step."""

import json
import os
import subprocess
import sys
from pathlib import Path

from by_hand import suite_by_hand

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


def test_both_stop_after_the_same_step(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(suite_by_hand(estimate=0.2))
    (tmp_path / "train.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    tests = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([*torchrun, str(tmp_path / "train.py"), str(tmp_path)], env=tests, check=True, timeout=600)
    for rank in (0, 1):
        told = json.loads((tmp_path / f"told-{rank}.json").read_text())
        assert told == {"step": 2, "verdicts": ["drifted"], "world": 2}
    assert [path.name for path in (tmp_path / "run" / "mechdrift" / "records").glob("*.json")] == ["step-00000002.json"]
