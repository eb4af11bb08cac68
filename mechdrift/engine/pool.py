"""The models in memory: one at a time, checked when loaded."""

import gc
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.engine.selfcheck import self_check
from mechdrift.errors import InputError, is_out_of_memory
from mechdrift.models.load import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Pool:
    """Hands out one model at a time; the one before is dropped first."""

    device: str
    """Where models go."""
    dtype: str
    """In which precision they run."""
    loads: int = 0
    """Models loaded so far."""
    _held: "tuple[str, PreTrainedModel] | None" = field(default=None, repr=False)
    _tokenizers: "dict[str, PreTrainedTokenizerBase]" = field(default_factory=dict, repr=False)

    def device_kind(self) -> str:
        """What matters to rounding: the GPU's model or the type of device; of several GPUs how they are used, and all models."""
        import torch

        if self.device in (MAP, TENSOR_PARALLEL):
            return f"{self.device} {[torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]}"
        if self.device.startswith("cuda"):
            return torch.cuda.get_device_name(self.device)
        # Kernels for other vector units add up in another order.
        return f"{self.device} {torch.backends.cpu.get_cpu_capability()}" if self.device == "cpu" else self.device

    def tokenizer(self, checkpoint: Checkpoint) -> "PreTrainedTokenizerBase":
        """The checkpoint's tokenizer, kept."""
        if checkpoint.short not in self._tokenizers:
            self._tokenizers[checkpoint.short] = load_tokenizer(checkpoint)
        return self._tokenizers[checkpoint.short]

    def model(self, checkpoint: Checkpoint, probes: Sequence[Sequence[int]]) -> "PreTrainedModel":
        """The checkpoint's model, self-checked on the probe prompts when loaded. Raises InputError where it does not fit."""
        if self._held is None or not self.holds(checkpoint):
            self.free()
            try:
                self._held = (checkpoint.short, self._loaded(checkpoint, probes))
            except Exception as error:
                # Whoever keeps the error, as pytest does, would keep the model in its frames.
                traceback.clear_frames(error.__traceback__)
                if not is_out_of_memory(error):
                    raise
            if self._held is None:
                raise InputError(
                    f"{checkpoint.spec}: {checkpoint.parameters / 1e9:.2g}B weights in {self.dtype} do not fit on {self.device}",
                    "a device with room for them",
                    "use --mechdrift-dtype bfloat16, or --mechdrift-device map to spread them over GPUs and CPU",
                )
            self.loads += 1
        return self._held[1]

    def _loaded(self, checkpoint: Checkpoint, probes: Sequence[Sequence[int]]) -> "PreTrainedModel":
        """Load and check."""
        import torch

        model = load_model(checkpoint, getattr(torch, self.dtype), self.device)
        self_check(model, probes)
        return model

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's model is in memory."""
        return self._held is not None and self._held[0] == checkpoint.short

    def free(self) -> None:
        """Drop the model and give the device's memory back, to the next model or to a generation engine."""
        self._held = None
        self.clean()

    def clean(self) -> None:
        """Give back what nothing holds any longer."""
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
