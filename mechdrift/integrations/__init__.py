"""What a training run calls."""

from mechdrift.integrations.trainer import TrainerCallback

__all__ = ["TrainerCallback"]
