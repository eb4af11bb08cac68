"""Neurons of the last MLP, and the next token without them: read from the store where they are already known."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.config import load_config, of_block
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.batches import Progress
from mechdrift.engine.last_mlp import (
    Ablation,
    LastMLP,
    Streams,
    answers,
    entropies,
    nearest,
    neuron_table,
    read_last_mlp,
    streams_of,
)
from mechdrift.engine.recording import record_last_mlp
from mechdrift.engine.selfcheck import check_last_mlp
from mechdrift.engine.store import Part
from mechdrift.engine.stored_recordings import Prompts, Recorder, label_of, probes
from mechdrift.engine.work import Work
from mechdrift.models.families import listed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")  # what configs call it


@dataclass(frozen=True)
class Neurons:
    """Neurons on prompts: what is recorded of them is enough to compute the next token without any of them."""

    prompts: Prompts
    """Token ids; position: the first token that was recorded."""
    recorded: tuple[int, ...]
    """Neurons of the last MLP."""

    @property
    def widest(self) -> int:
        """The most tokens that were recorded of a prompt."""
        return max(len(ids) - first for ids, first in zip(self.prompts.ids, self.prompts.positions, strict=True))


@dataclass(frozen=True)
class LastMLPReader:
    """Reads the last MLP of one checkpoint."""

    recorder: Recorder
    """Through whose store."""
    checkpoint: Checkpoint
    """Whose."""
    prompts: Prompts
    """Some prompts, on which a model is checked when it is loaded."""
    tokens: int
    """Rows of the head that count."""

    def table(self) -> "np.ndarray":
        """Length, LogitVar and rho of every neuron (last_mlp.neuron_table): float32 [neuron, 3]. Raises Unmeasurable."""
        label = f"{self.checkpoint.spec}: neurons of the last MLP"
        shape = neuron_count(self.checkpoint), 3
        return self._of_weights("neuron table", shape, lambda mlp: neuron_table(mlp, self.recorder.progress(label)))

    def directions(self, neurons: Sequence[int]) -> "np.ndarray":
        """What neurons write: float32 [neuron, d_model]."""
        chosen = list(neurons)
        shape = len(chosen), self.checkpoint.width
        return self._of_weights("neuron directions", shape, lambda mlp: mlp.written[chosen].cpu(), neurons=chosen)

    def nearest(self, directions: "np.ndarray") -> "np.ndarray":
        """For each direction the neuron that writes most nearly along it, and their cosine: float32 [direction, 2]."""
        import torch

        given = torch.from_numpy(directions)
        shape = len(given), 2
        return self._of_weights("nearest neurons", shape, lambda mlp: nearest(mlp, given), directions=given.tolist())

    def activations(self, read: Neurons) -> "np.ndarray":
        """Of the recorded neurons at every recorded token of all prompts: float32 [token, neuron]."""
        import numpy as np

        found = self._recorded(read)
        found = found[..., found.shape[-1] - len(read.recorded) :]
        return np.concatenate(list(self._rows(read, found)))

    def entropies(self, read: Neurons, ablations: Sequence[Ablation]) -> "list[np.ndarray]":
        """Entropy of the next token at every recorded token, [token, 1 + 2 k] a prompt: plain, total and direct of k ablations.

        Raises InterventionFailed where an ablation does not do to the model what is computed.
        """
        shape = len(read.prompts.ids), read.widest, 1 + 2 * len(ablations)

        def ask(mlp: LastMLP, streams: Streams, _chosen: list[int], progress: Progress | None) -> "Tensor":
            return entropies(mlp, streams, read.recorded, ablations, progress)

        found = self._computed("entropies", read, ablations, shape, ask)
        return list(self._rows(read, found))

    def answers(self, read: Neurons, ablation: Ablation) -> "np.ndarray":
        """Logits of the answers after each prompt, plain and under an ablation: float32 [prompt, 2, answer]."""
        shape = len(read.prompts.ids), 1, 2 * len(read.prompts.answers[0])

        def ask(mlp: LastMLP, streams: Streams, chosen: list[int], progress: Progress | None) -> "Tensor":
            requested = [read.prompts.answers[index] for index in chosen]
            return answers(mlp, streams, read.recorded, ablation, requested, progress).flatten(1)

        return self._computed("answers", read, [ablation], shape, ask).reshape(shape[0], 2, -1)

    def _of_weights(self, what: str, shape: tuple[int, ...], compute: "Callable[[LastMLP], Tensor]", **more: Any) -> "np.ndarray":
        """What is computed from weights alone, through the store."""

        def make() -> "Tensor":
            model = self.recorder.pool.model(self.checkpoint, [self.prompts.ids[index] for index in probes(self.prompts.ids)])
            return compute(read_last_mlp(model, self.tokens))

        nothing = Prompts([], [], [])
        provenance = self.recorder.provenance(what, self.checkpoint, nothing) | {"tokens": self.tokens} | more
        (found,) = self.recorder.store.get(provenance, [Part(shape, make)], label_of(self.checkpoint))
        return found.numpy()

    def _recorded(self, read: Neurons) -> "np.ndarray":
        """What one forward left behind (record.record_last_mlp): float32 [prompt, column, value]."""

        def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
            import torch

            part = read.prompts.take(chosen)
            share = self.recorder.may_share(self.checkpoint, model, part)
            found = record_last_mlp(model, part.ids, part.positions, read.recorded, self.recorder.batch_tokens, progress, share)
            missing = found.new_zeros(*found.shape[:2], shape[2] - found.shape[2])  # of a norm that there might have been
            found = torch.cat([found[..., :width], missing, found[..., width:]], dim=-1)
            return torch.nn.functional.pad(found, (0, 0, 0, read.widest - found.shape[1]))

        width, family = self.checkpoint.width, listed(self.checkpoint.model_type)
        streams = 1 if not read.recorded or (family and family.last) else 2
        shape = len(read.prompts.ids), read.widest, streams * width + len(read.recorded)
        return self.recorder.read("last MLP", self.checkpoint, read.prompts, run, shape, {"neurons": list(read.recorded)})

    def _computed(
        self,
        what: str,
        read: Neurons,
        ablations: Sequence[Ablation],
        shape: tuple[int, int, int],
        ask: "Callable[[LastMLP, Streams, list[int], Progress | None], Tensor]",
    ) -> "np.ndarray":
        """What is computed from the recorded streams, [prompt, column, value]; ask: from streams of tokens, [token, value]."""
        import torch

        @cache
        def recorded() -> "np.ndarray":
            return self._recorded(read)

        weights: list[LastMLP] = []  # folded on the first part

        def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
            if not weights:
                weights.append(read_last_mlp(model, self.tokens, neurons=bool(read.recorded)))
                check_last_mlp(model, weights[0], read.prompts.ids[0], read.recorded, ablations)
            lengths = torch.tensor([len(read.prompts.ids[index]) - read.prompts.positions[index] for index in chosen])
            there = torch.arange(shape[1]) < lengths[:, None]
            rows = torch.from_numpy(recorded()[chosen])[there]
            found = torch.zeros(len(chosen), *shape[1:])
            # Tokens are what takes time, prompts are what is counted.
            say = progress and (lambda done, of: progress(max(1, len(chosen) * done // of), len(chosen)))
            found[there] = ask(weights[0], streams_of(rows, self.checkpoint.width, len(read.recorded)), chosen, say)
            return found

        more = {"neurons": list(read.recorded), "ablations": [asdict(each) for each in ablations], "tokens": self.tokens}

        def takes(chosen: list[int]) -> Work:
            tokens = sum(len(read.prompts.ids[index]) - read.prompts.positions[index] for index in chosen)
            return Work(prompts=len(chosen), head_tokens=tokens * (1 + 2 * len(ablations)))

        return self.recorder.read(what, self.checkpoint, read.prompts, run, shape, more, work=takes)

    def _rows(self, read: Neurons, found: "np.ndarray") -> "Iterator[np.ndarray]":
        """The recorded tokens of each prompt, without padding."""
        for row, ids, first in zip(found, read.prompts.ids, read.prompts.positions, strict=True):
            yield row[: len(ids) - first]


def neuron_count(checkpoint: Checkpoint) -> int:
    """Neurons of a dense MLP of this checkpoint."""
    config = load_config(checkpoint).get_text_config(decoder=True)
    found = next((value for name in INNER if isinstance(value := of_block(config, name), int)), None)
    return found or 4 * checkpoint.width
