"""Interventions on a model inside vLLM. LLM.apply_model runs them in every process of the engine, on its share of the weights.

vLLM's modules carry transformers' names, but its blocks pass on (what MLP wrote, the stream before it): their sum is the stream.
"""

from typing import TYPE_CHECKING, Any

import torch

from mechdrift.engine.weights.orthogonal import without
from mechdrift.models.sites import stream, with_stream

if TYPE_CHECKING:
    from collections.abc import Callable

UNDO = "_mechdrift_undo"
OTHER_NAMES = {"mlp": "block_sparse_moe"}  # of Mixtral, in vLLM


def intervene(model: Any, request: dict[str, Any]) -> str:
    """Put an intervention in the place of the one before; returns how: `weights`, `hooks`, or nothing for none.

    request: direction (none: the model as it is), layer and coefficient of an addition; of the family, the name of its list of
    blocks, how many there are, its writes and last matrices (none: weights may not be changed); whether hooks are run.
    """
    for undo in reversed(getattr(model, UNDO, [])):
        undo()
    setattr(model, UNDO, [])
    if request["direction"] is None:
        return ""
    r = torch.tensor(request["direction"], dtype=torch.float32)
    decoder = _decoder(model, request["blocks"], request["count"])
    if request["layer"] is None and request["last"]:
        written = _stream_weights(model, decoder, request, len(r))
        if written:
            _orthogonalise(model, decoder, written, r)
            return "weights"
    if not request["hooks"]:
        raise RuntimeError("its weights are packed, and the engine was started without hooks (enforce_eager)")
    if request["layer"] is None:
        places = [
            *_embeddings(decoder),
            *(_write(block, name) for block in _blocks(decoder, request) for name in request["writes"]),
        ]
        _hook(model, places, lambda states: without(states, r, -1))
    else:
        shift = request["coefficient"] * r
        _hook(model, [_blocks(decoder, request)[request["layer"]]], lambda states: states.float() + shift.to(states.device))
    return "hooks"


def _hook(model: Any, places: list[Any], edit: "Callable[[torch.Tensor], torch.Tensor]") -> None:
    """Hooks that replace what the modules give."""
    for place in places:
        handle = place.register_forward_hook(
            lambda _m, _i, output: with_stream(output, edit(stream(output)).to(stream(output).dtype))
        )
        getattr(model, UNDO).append(handle.remove)


def _orthogonalise(model: Any, decoder: Any, written: "list[tuple[torch.Tensor, int]]", r: torch.Tensor) -> None:
    """Take the direction out of the weights where they lie, since captured graphs hold their addresses."""
    shared = _embeddings(decoder)[0].weight
    if model.lm_head.weight.data_ptr() == shared.data_ptr():  # a tied head reads the stream: it keeps what it was
        model.lm_head.weight = torch.nn.Parameter(shared.detach().clone(), requires_grad=False)
        getattr(model, UNDO).append(lambda: setattr(model.lm_head, "weight", shared))
    for weight, axis in written:
        kept = weight.detach().to("cpu", copy=True)
        getattr(model, UNDO).append(lambda weight=weight, kept=kept: weight.data.copy_(kept))
        weight.data.copy_(without(weight.data, r, axis))


def _stream_weights(model: Any, decoder: Any, request: dict[str, Any], width: int) -> "list[tuple[torch.Tensor, int]]":
    """Embeddings, last matrices and their biases, with the axis that is d_model's; none where any is packed or quantised."""
    found = [(module.weight, -1) for module in _embeddings(decoder)]
    for block in _blocks(decoder, request):
        for path in request["last"]:
            last = block.get_submodule(path)
            if not hasattr(last, "weight"):
                return []
            found.append((last.weight, 0))
            if getattr(last, "bias", None) is not None:
                found.append((last.bias, 0))
    sound = all(weight.is_floating_point() and weight.numel() and weight.shape[axis] == width for weight, axis in found)
    return found if sound and hasattr(model, "lm_head") else []


def _decoder(model: Any, name: str, count: int) -> Any:
    """The module that holds the blocks and the embeddings."""
    for module in model.modules():
        if len(getattr(module, name, None) or []) == count:
            return module
    raise RuntimeError(f"its model has no {count} blocks of the name {name!r}")


def _embeddings(decoder: Any) -> list[Any]:
    """What makes the stream's first state, of tokens and, in some families, of positions."""
    found = decoder.children()  # rotary embeddings have no weight
    return [module for module in found if type(module).__name__.endswith("Embedding") and hasattr(module, "weight")]


def _blocks(decoder: Any, request: dict[str, Any]) -> list[Any]:
    return list(getattr(decoder, request["blocks"]))


def _write(block: Any, name: str) -> Any:
    """A module whose output is added to the stream."""
    return getattr(block, name) if hasattr(block, name) else getattr(block, OTHER_NAMES[name])
