"""What a training run or a pipeline calls."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechdrift.integrations.recorder import StageRecorder
    from mechdrift.integrations.trainer import TrainerCallback

__all__ = ["StageRecorder", "TrainerCallback"]


def __getattr__(name: str) -> Any:
    """Both import transformers, which a pipeline's gate has no use for."""
    if name == "StageRecorder":
        from mechdrift.integrations.recorder import StageRecorder

        return StageRecorder
    if name == "TrainerCallback":
        from mechdrift.integrations.trainer import TrainerCallback

        return TrainerCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
