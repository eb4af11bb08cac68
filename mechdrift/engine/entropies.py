"""Neurons of the last MLP, and what the next token is without them: read from the store where they are already known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.load import load_config
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.devices import input_device
from mechdrift.engine.last_mlp import (
    Ablation,
    LastMLP,
    Streams,
    Unembedding,
    ablating_neurons,
    entropies,
    nearest,
    neuron_table,
    read_last_mlp,
    written_products,
)
from mechdrift.engine.record import Progress, record_last_mlp
from mechdrift.engine.recordings import Prompts, Recorder, probes
from mechdrift.engine.selfcheck import _gap, tolerance_of
from mechdrift.engine.store import Part
from mechdrift.errors import InterventionFailed, Unmeasurable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass
class LastMLPReader:
    """Reads one checkpoint's last MLP, on the same texts throughout."""

    recorder: Recorder
    """Through whose store."""
    checkpoint: Checkpoint
    """Whose."""
    texts: Prompts
    """Token ids; position: the first token that counts."""
    tokens: int
    """Rows of the head that count."""

    def table(self) -> "np.ndarray":
        """Length, LogitVar and rho of every neuron (last_mlp.neuron_table): float32 [neuron, 3]."""
        return self._of_weights("table", (neuron_count(self.checkpoint), 3), neuron_table)

    def directions(self, neurons: Sequence[int]) -> "np.ndarray":
        """What neurons write: float32 [neuron, d_model]."""
        shape = len(neurons), self.checkpoint.width
        return self._of_weights("directions", shape, lambda mlp: mlp.written[list(neurons)].cpu(), {"neurons": list(neurons)})

    def nearest(self, directions: "np.ndarray") -> "np.ndarray":
        """For each direction the neuron that writes most nearly along it, and their cosine: float32 [direction, 2]."""
        import torch

        given = torch.from_numpy(directions)
        return self._of_weights("nearest", (len(given), 2), lambda mlp: nearest(mlp, given), {"directions": given.tolist()})

    def activations(self, neurons: Sequence[int]) -> "list[np.ndarray]":
        """Activations of neurons at the tokens that count, [token, neuron] a text."""
        found = self._streams(self.texts, neurons)[..., -len(neurons) :]
        return [row[: len(ids) - at] for row, ids, at in zip(found, self.texts.ids, self.texts.positions, strict=True)]

    def entropies(self, neurons: Sequence[int], ablations: Sequence[Ablation]) -> "list[np.ndarray]":
        """Entropy of the next token at the tokens that count, [token, 1 + 2 k] a text: plain, total and direct of k ablations.

        neurons: those that were recorded by `activations`; ablations are of some of them. Raises InterventionFailed where an
        ablation does not do to the model what is computed.
        """

        def ask(mlp: LastMLP, streams: Streams, _chosen: list[int]) -> "Tensor":
            return entropies(mlp, streams, neurons, ablations)

        found = self._computed("entropies", self.texts, neurons, ablations, 1 + 2 * len(ablations), ask)
        return [row[: len(ids) - at] for row, ids, at in zip(found, self.texts.ids, self.texts.positions, strict=True)]

    def answers(self, prompts: Prompts, neurons: Sequence[int], ablation: Ablation) -> "np.ndarray":
        """Logits of the answers after each prompt, plain and under an ablation (total): float32 [prompt, 2, answer]."""
        import torch

        def ask(mlp: LastMLP, streams: Streams, chosen: list[int]) -> "Tensor":
            with torch.inference_mode():
                through = written_products(mlp, ablation.neurons)
                found = []
                step = max(1, len(chosen) // 8)
                asked = torch.tensor([prompts.answers[index] for index in chosen], device=mlp.head.device)
                for start in range(0, len(chosen), step):
                    block = Unembedding(mlp, streams.part(slice(start, start + step)), neurons)
                    both = torch.stack([block.plain(), block.under(ablation, through)[0]], dim=1)
                    found.append(both.gather(2, asked[start : start + step, None].expand(-1, 2, -1)).flatten(1).cpu())
                return torch.cat(found)

        width = len(prompts.answers[0])
        found = self._computed("answers", prompts, neurons, [ablation], 2 * width, ask)
        return found.reshape(len(prompts.ids), 2, width)
