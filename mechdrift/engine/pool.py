"""The models in memory: one at a time, checked when loaded."""

import gc
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.template_choice import OWN, TemplateChoice
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.engine.selfcheck import check_logits, check_stream
from mechdrift.errors import InputError, Unmeasurable, is_out_of_memory
from mechdrift.models.load import load_model
from mechdrift.models.structure import structure_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Pool:
    """Hands out one model at a time; the one before is dropped first."""

    device: str
    """Where models go."""
    dtype: str
    """In which precision they run."""
    templates: TemplateChoice = OWN
    """What tokenizers are given of chat templates."""
    loads: int = 0
    """Models loaded so far."""
    streams: dict[str, str] = field(default_factory=dict)
    """By spec of each where its residual stream was found, in words."""
    _held: "tuple[str, PreTrainedModel] | None" = field(default=None, repr=False)
    _stream: str | None = field(default=None, repr=False)
    """Why the stream of the model that is held cannot be read; empty where it can, None before anyone asked."""
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
            self._tokenizers[checkpoint.short] = load_tokenizer(checkpoint, self.templates)
        return self._tokenizers[checkpoint.short]

    def model(self, checkpoint: Checkpoint, probes: Sequence[Sequence[int]], stream: bool = True) -> "PreTrainedModel":
        """The checkpoint's model, self-checked on the probe prompts when loaded. Raises InputError where it does not fit.

        stream: whether its residual stream is needed, which is then found and checked, once; logits and replies do without.
        Raises Unmeasurable where it is not what it is taken for.
        """
        try:
            if not self.holds(checkpoint):
                self.free()
                self._stream = None
                self._held = (checkpoint.short, self._loaded(checkpoint, probes))
                self.loads += 1
            if stream:
                self._require_stream(checkpoint, probes)
        except Exception as error:
            # Whoever keeps the error, as pytest does, would keep the model in its frames.
            traceback.clear_frames(error.__traceback__)
            if not is_out_of_memory(error):
                raise
            self._held = None
        if self._held is None:
            raise InputError(
                f"{checkpoint.spec}: {checkpoint.parameters / 1e9:.2g}B weights in {self.dtype} do not fit on {self.device}",
                "a device with room for them",
                "use --mechdrift-dtype bfloat16, or --mechdrift-device map to spread them over GPUs and CPU",
            )
        return self._held[1]

    def _require_stream(self, checkpoint: Checkpoint, probes: Sequence[Sequence[int]]) -> None:
        """Raise Unmeasurable unless the stream of the model that is held was found, and passes its check."""
        assert self._held is not None
        if self._stream is None:
            try:
                check_stream(self._held[1], probes)
                self.streams[checkpoint.spec] = structure_of(self._held[1]).words()
                self._stream = ""
            except Unmeasurable as error:
                self._stream = str(error)
        if self._stream:
            raise Unmeasurable(self._stream)

    def _loaded(self, checkpoint: Checkpoint, probes: Sequence[Sequence[int]]) -> "PreTrainedModel":
        """Load and check."""
        import torch

        model = load_model(checkpoint, getattr(torch, self.dtype), self.device)
        check_logits(model, probes)
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
