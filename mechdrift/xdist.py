"""pytest-xdist: what the controller tells workers, and what they tell it. Imported only when xdist is there."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.resolve import Checkpoint

if TYPE_CHECKING:
    from mechdrift.run import ComparingRun

KEY = "mechdrift"


class Workers:
    """xdist's hooks, on controller and worker."""

    def __init__(self, run: "ComparingRun") -> None:
        """Serve one run."""
        self.run = run

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what the controller has read and checked, so that it is done once."""
        points = [asdict(point) | {"folder": str(point.folder)} for point in (self.run.base, self.run.post) if point]
        node.workerinput[KEY] = {"checkpoints": points, "store": str(self.run.store_folder)}

    def pytest_testnodedown(self, node: Any) -> None:
        """Add up what a worker did; a worker that died says nothing, and its test is reported as crashed."""
        told = getattr(node, "workeroutput", {}).get(KEY, {"work": {}, "notes": []})
        for name, amount in told["work"].items():
            self.run.work[name] = self.run.work.get(name, 0) + amount
        self.run.notes += told["notes"]


def hand_over(run: "ComparingRun") -> None:
    """On a worker: tell the controller what was done."""
    run.config.workeroutput[KEY] = {"work": run.work, "notes": run.notes}  # type: ignore[attr-defined]


def take_over(run: "ComparingRun") -> None:
    """On a worker: take the checkpoints and the store from the controller."""
    told = run.config.workerinput[KEY]  # type: ignore[attr-defined]
    run.base, run.post = (Checkpoint(**point | {"folder": Path(point["folder"])}) for point in told["checkpoints"])
    run.store_folder = Path(told["store"])
    run.read_statements()
