"""Interventions on a model inside vLLM. LLM.apply_model runs them in every process of the engine, on its share of the weights."""

from typing import TYPE_CHECKING, Any

import torch

from mechdrift.engine.generate.vllm_places import blocks_of, embeddings_of, entering, here, is_stream, write_of
from mechdrift.engine.weights.orthogonal import without
from mechdrift.models.sites import stream, with_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[torch.Tensor], torch.Tensor]

UNDO = "_mechdrift_undo"


def intervene(model: Any, request: dict[str, Any]) -> str:
    """Put an intervention in the place of the one before; returns how: `weights`, `hooks`, or nothing for none.

    request: direction (none: the model as it is), layer and coefficient of an addition; how many blocks there are, the names of
    each one's writes and last matrices (none: weights may not be changed); whether hooks are run. Raises RuntimeError where the
    model has not what it names.
    """
    for undo in reversed(getattr(model, UNDO, [])):
        undo()
    setattr(model, UNDO, [])
    if request["direction"] is None:
        return ""
    r = torch.tensor(request["direction"], dtype=torch.float32)
    holder, blocks = blocks_of(model, request["count"])
    if request["layer"] is None and request["last"]:
        written = _stream_weights(model, holder, blocks, request["last"], len(r))
        if written:
            _orthogonalise(model, holder, written, r)
            return "weights"
    if not request["hooks"]:
        raise RuntimeError("its weights are packed, and the engine was started without hooks (enforce_eager)")
    if request["layer"] is None:
        # Each write by itself: a block's MLP reads what its attention wrote, so hooks on the blocks' outputs come too late.
        places = [write_of(block, name) for number, block in here(blocks) for name in request["writes"][number]]
        _hook_entering(model, blocks[0], lambda states: without(states, r, -1), len(r))
        _hook(model, places, lambda states: without(states, r, -1), len(r))
    else:
        shift = request["coefficient"] * r
        _hook(model, [blocks[request["layer"]]], lambda states: states.float() + shift.to(states.device), len(r))
    return "hooks"


def _hook(model: Any, places: list[Any], edit: "Edit", width: int) -> None:
    """Hooks that replace what the modules give. What gives something else is left as it is: the canaries notice."""

    def leave(_module: Any, _args: Any, output: Any) -> Any:
        given = stream(output)
        return with_stream(output, edit(given).to(given.dtype)) if is_stream(given, width) else None

    getattr(model, UNDO).extend(place.register_forward_hook(leave).remove for place in places)


def _hook_entering(model: Any, block: Any, edit: "Edit", width: int) -> None:
    """A hook that replaces the stream that enters a block: the sum of all embeddings, scaled where the family scales it."""

    def enter(_module: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        place = entering(args, named, width)
        if isinstance(place, str):
            return args, named | {place: edit(named[place]).to(named[place].dtype)}
        if place is not None:
            return (*args[:place], edit(args[place]).to(args[place].dtype), *args[place + 1 :]), named
        return None

    getattr(model, UNDO).append(block.register_forward_pre_hook(enter, with_kwargs=True).remove)


def _orthogonalise(model: Any, holder: Any, written: "list[tuple[torch.Tensor, int]]", r: torch.Tensor) -> None:
    """Take the direction out of the weights where they lie, since captured graphs hold their addresses."""
    shared = embeddings_of(holder)[0].weight
    if model.lm_head.weight.data_ptr() == shared.data_ptr():  # a tied head reads the stream: it keeps what it was
        model.lm_head.weight = torch.nn.Parameter(shared.detach().clone(), requires_grad=False)
        getattr(model, UNDO).append(lambda: setattr(model.lm_head, "weight", shared))
    for weight, axis in written:
        kept = weight.detach().to("cpu", copy=True)
        getattr(model, UNDO).append(lambda weight=weight, kept=kept: weight.data.copy_(kept))
        weight.data.copy_(without(weight.data, r, axis))


def _stream_weights(model: Any, holder: Any, blocks: list[Any], last: list[str], width: int) -> "list[tuple[torch.Tensor, int]]":
    """Embeddings, last matrices and their biases, with the axis that is d_model's; none where any is packed or quantised."""
    found = [(module.weight, -1) for module in embeddings_of(holder)]
    for _, block in here(blocks):
        for path in last:
            matrix = block.get_submodule(path)
            if not hasattr(matrix, "weight"):
                return []
            found.append((matrix.weight, 0))
            if getattr(matrix, "bias", None) is not None:
                found.append((matrix.bias, 0))
    sound = all(weight.is_floating_point() and weight.numel() and weight.shape[axis] == width for weight, axis in found)
    return found if sound and hasattr(model, "lm_head") else []
