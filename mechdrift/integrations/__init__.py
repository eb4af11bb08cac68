"""What a training run calls."""

from mechdrift.integrations.recorder import StageRecorder
from mechdrift.integrations.trainer import TrainerCallback

__all__ = ["StageRecorder", "TrainerCallback"]
