"""Time, peak memory and work of a run by phase: a phase is a family of findings, or `start`, before the first test."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mechdrift.engine.work import NOTHING, Work

START = "start"
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK = "5"  # written to CLEAR, begins the peak anew (proc_pid_clear_refs(5))


@dataclass(frozen=True)
class Phase:
    """What went on while tests of one family were set up and run; a model or a recording that two share is the first one's."""

    seconds: float = 0.0
    """Of processes added up, so with xdist more than the clock's."""
    peak_rss: int = 0
    """Bytes of memory, pages of mapped files included; of several processes the largest. Off Linux, since the process began."""
    peak_gpu: int | None = None
    """Bytes that torch had allocated on a GPU; None where none was used."""
    model_loads: int = 0
    """Models loaded."""
    work: Work = NOTHING
    """What was done."""

    def __add__(self, other: "Phase") -> "Phase":
        """Both, of one process or of two."""
        peaks = [each.peak_gpu for each in (self, other) if each.peak_gpu is not None]
        return Phase(
            self.seconds + other.seconds,
            max(self.peak_rss, other.peak_rss),
            max(peaks, default=None),
            self.model_loads + other.model_loads,
            self.work + other.work,
        )

    def to_dict(self) -> dict[str, Any]:
        """As the record has it, and as it leaves a worker."""
        return {name: value for name, value in asdict(self).items() if name != "work"} | asdict(self.work)

    @classmethod
    def of(cls, data: dict[str, Any]) -> "Phase":
        """Of what was told."""
        own = {name: data[name] for name in ("seconds", "peak_rss", "peak_gpu", "model_loads")}
        return cls(**own, work=Work(**{name: value for name, value in data.items() if name not in own}))


Done = Callable[[], tuple[int, Work]]  # models loaded and work done so far


@contextmanager
def phase(phases: dict[str, Phase], name: str, done: Done) -> Iterator[None]:
    """Add what goes on inside to a phase."""
    loads, work = done()
    started = time.perf_counter()
    _forget_peaks()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        after_loads, after_work = done()
        found = Phase(seconds, _peak_rss(), _peak_gpu(), after_loads - loads, after_work - work)
        phases[name] = phases.get(name, Phase()) + found


def _forget_peaks() -> None:
    """Begin peaks anew, where that can be done."""
    with suppress(OSError):  # not Linux, or not allowed: the peak is then the process's
        CLEAR.write_text(PEAK)
    if cuda := _cuda():
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)


def _peak_rss() -> int:
    try:
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _peak_gpu() -> int | None:
    cuda = _cuda()
    return sum(cuda.max_memory_allocated(device) for device in range(cuda.device_count())) if cuda else None


def _cuda() -> Any:
    """torch.cuda where this process has used it; asking would start it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
