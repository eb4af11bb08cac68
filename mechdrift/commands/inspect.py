"""`mechdrift inspect SPEC`: what is found on a model, what of the engine holds on it, and what can be measured of it."""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from mechdrift.checkpoints.resolve import Checkpoint, Resolver
from mechdrift.checkpoints.special_tokens import end_tokens
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.batches import Progress
from mechdrift.engine.last_mlp import read_last_mlp
from mechdrift.engine.selfcheck import (
    check_ablating_everywhere,
    check_shifting,
    require_whole_state,
    self_check,
    sharing_gap,
    why_whole,
)
from mechdrift.engine.stored_sweep import fastest_exact
from mechdrift.engine.sweep import Pairs
from mechdrift.engine.weights.matrices import Matrices
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.models.devices import check_device, pick_device, pick_dtype
from mechdrift.models.load import load_model
from mechdrift.models.sites import width_of
from mechdrift.models.structure import structure_of
from mechdrift.prompts.positions import encode
from mechdrift.report.text import described

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COLUMNS = 80
PROBES = ("The city of Paris is in France.", "The city of Rome", "A dog is an animal, and so is a cat; a stone is none.")


@dataclass(frozen=True)
class Part:
    """One thing that a model has or can, and how that is known."""

    name: str
    found: str
    """In words."""
    holds: bool = True


@dataclass(frozen=True)
class Inspection:
    """What came of looking at one checkpoint."""

    checkpoint: Checkpoint
    parts: tuple[Part, ...]

    @property
    def gates_hold(self) -> bool:
        """Whether nothing is missing that gates of every shipped profile need: the stream, proven to be all."""
        return all(part.holds for part in self.parts if part.name in NEEDED)

    def lines(self) -> list[str]:
        """As the command prints it."""
        indent = max(len(part.name) for part in self.parts) + 4
        lines = wrap(described(self.checkpoint), COLUMNS, subsequent_indent="  ")
        for part in self.parts:
            words = wrap(f"{'' if part.holds else 'NO: '}{part.found}", COLUMNS - indent)
            lines += [f"{f'  {part.name}' if number == 0 else '':{indent}}{line}" for number, line in enumerate(words)]
        return lines


NEEDED = ("stream", "self-check", "steering", "whole state")
USES = {
    "stream": "truth, knowledge, refusal",
    "whole state": "knowledge: maps",
    "last MLP": "confidence: entropy neurons",
    "matrices": "structure",
    "replies": "refusal: rates",
}
"""What is measured by a part."""


def inspected(spec: str, device: str, dtype: str, progress: Callable[[str], Progress]) -> Inspection:
    """Load a checkpoint and look. Raises InputError for one that cannot be read or loaded."""
    import torch

    check_device(device)
    place = pick_device(device)
    point = Resolver(progress=progress).resolve(spec)
    model = load_model(point, getattr(torch, pick_dtype(dtype, place)), place)
    prompts, _ = encode(load_tokenizer(point), list(PROBES))
    parts = [_tried(name, find) for name, find in _of_model(model, prompts).items()]
    parts += [_tried("matrices", lambda: _matrices(point)), _tried("replies", lambda: f"end with {_ends(point)}")]
    return Inspection(point, tuple(parts))


def _tried(name: str, find: Callable[[], str]) -> Part:
    """What is found, or why it is not."""
    use = f" ({USES[name]})" if name in USES else ""
    try:
        return Part(name, find() + use)
    except (Unmeasurable, InputError) as error:
        return Part(name, f"{error}{use}", holds=False)


def _of_model(model: "PreTrainedModel", prompts: list[list[int]]) -> dict[str, Callable[[], str]]:
    """By name, how each part is found; a part that cannot be raises Unmeasurable."""
    return {
        "stream": lambda: _stream(model),
        "self-check": lambda: _self_check(model, prompts),
        "steering": lambda: _steering(model, prompts[0]),
        "whole state": lambda: _whole_state(model, prompts),
        "shared beginnings": lambda: _fast(model, lambda: sharing_gap(model, [prompts[2], [*prompts[2][:-1], prompts[2][0]]])),
        "sweep": lambda: fastest_exact(model, _pair(prompts[0]))[1] or "fast",
        "last MLP": lambda: _last_mlp(model),
    }


def _stream(model: "PreTrainedModel") -> str:
    """Blocks, width, norm, and what writes in which block."""
    return structure_of(model).words().replace(" blocks,", f" blocks of width {width_of(model)},", 1)


def _self_check(model: "PreTrainedModel", prompts: list[list[int]]) -> str:
    found = self_check(model, prompts)
    return f"passed, off by {found.residual:.1g} (sum), {found.batch:.1g} (batch); attention {model.config._attn_implementation}"


def _whole_state(model: "PreTrainedModel", prompts: list[list[int]]) -> str:
    require_whole_state(model, max(prompts, key=len))
    return "nothing but the stream passes from block to block"


def _steering(model: "PreTrainedModel", prompt: list[int]) -> str:
    """A push and an ablation really tried."""
    import torch

    direction = torch.randn(width_of(model), generator=torch.Generator().manual_seed(0))
    middle = max(0, len(structure_of(model).blocks) // 2 - 1)
    check_shifting(model, prompt, direction, middle)
    check_ablating_everywhere(model, prompt, direction)
    return f"a push at block {middle} and an ablation everywhere do what they should"


def _fast(model: "PreTrainedModel", gap_of: Callable[[], float]) -> str:
    """Whether a fast way is the same as whole forwards; where not those are used, which is no loss but of time."""
    structure_of(model)
    why = why_whole(model, "the fast way", gap_of)
    return f"by whole forwards: {why}" if why else "fast"


def _pair(prompt: list[int]) -> Pairs:
    """A prompt, and the same with another token near its beginning."""
    corrupt = [*prompt[:2], prompt[-1], *prompt[3:]]
    return Pairs([corrupt], [prompt], [(prompt[1], prompt[2])], [2])


def _last_mlp(model: "PreTrainedModel") -> str:
    found = read_last_mlp(model, int(model.get_output_embeddings().weight.shape[0]))
    return f"{len(found.raw)} neurons"


def _matrices(point: Checkpoint) -> str:
    """Kinds of which some block has a matrix that can be read; of the others why the first cannot be."""
    matrices = Matrices(point)
    read, why = [], []
    for kind in matrices.kinds:
        for layer in range(point.layers):
            try:
                matrices.read(layer, kind)
            except Unmeasurable as error:
                reason = str(error)
                continue
            read.append(kind)
            break
        else:
            why.append(f"no {kind}: {reason}")
    if not read:
        raise Unmeasurable("; ".join(why))
    return "; ".join([", ".join(read), *why])


def _ends(point: Checkpoint) -> str:
    """The tokens that end a reply, as the tokenizer writes them."""
    tokenizer = load_tokenizer(point)
    return " or ".join(tokenizer.convert_ids_to_tokens(sorted(end_tokens(point))))
