"""What a training stage did to the final model, carried through the stages after it: Zhang et al. 2025, arXiv 2506.00175.

The displacement that a stage left (of parameters, and of the optimizer's state where it goes on) is carried through every later
step by the tangent of that step, with Hessian-vector products: torch.func. What is left at the end is the stage embedding E_k.
Its linear form is grad metric . E_k, its non-linear form metric(end) - metric(end - E_k).
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechdrift.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
State = dict[str, Tensors]
"""`parameters`, and what the optimizer keeps of each: tensors by the names of parameters."""
Loss = Callable[[Tensors, Any], "Tensor"]
"""The loss of parameters on a batch, as training takes it: a number."""


Decay = float | Mapping[str, float]
"""Weight decay: of all parameters, or of each that is trained, by its name; others stay as they are."""


def _decay(of: Decay, name: str) -> float:
    return of[name] if isinstance(of, Mapping) else of


@dataclass(frozen=True)
class SGD:
    """As torch.optim.SGD without dampening and Nesterov."""

    momentum: float = 0.0
    weight_decay: Decay = 0.0
    kept: ClassVar[tuple[str, ...]] = ("momentum",)

    def step(self, state: State, gradients: Tensors, rate: float, _number: int) -> State:
        """The state after a step: v' = mu v + g + lambda theta; theta' = theta - rate v'."""
        parameters = state["parameters"]
        speed = {
            name: self.momentum * state["momentum"][name] + gradient + _decay(self.weight_decay, name) * parameters[name]
            for name, gradient in gradients.items()
        }
        return {"parameters": {name: parameters[name] - rate * speed[name] for name in parameters}, "momentum": speed}


@dataclass(frozen=True)
class AdamW:
    """As torch.optim.AdamW: decay is apart from the gradient."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: Decay = 0.01
    kept: ClassVar[tuple[str, ...]] = ("mean", "square")

    def step(self, state: State, gradients: Tensors, rate: float, number: int) -> State:
        """The state after a step, its number counted from 1.

        m' = b1 m + (1 - b1) g; u' = b2 u + (1 - b2) g^2; theta' = (1 - rate lambda) theta - rate m^ / (sqrt(u^) + eps).
        """
        first, second = self.betas
        mean = {name: first * state["mean"][name] + (1 - first) * each for name, each in gradients.items()}
        square = {name: second * state["square"][name] + (1 - second) * each * each for name, each in gradients.items()}
        share, root = rate / (1 - first**number), (1 - second**number) ** 0.5
        parameters = {
            name: (1 - rate * _decay(self.weight_decay, name)) * value
            - share * mean[name] / (_root(square[name]) / root + self.eps)
            for name, value in state["parameters"].items()
        }
        return {"parameters": parameters, "mean": mean, "square": square}


Optimizer = SGD | AdamW


def _root(square: "Tensor") -> "Tensor":
    """The root; of 0, which has no derivative, 0 with none: a parameter that never had a gradient."""
    import torch

    there = square > 0
    return torch.where(there, torch.where(there, square, 1.0).sqrt(), 0.0)


def _moving(optimizer: Optimizer, parameters: Tensors) -> Tensors:
    """Those that are trained."""
    decay = optimizer.weight_decay
    return {name: parameters[name] for name in decay} if isinstance(decay, Mapping) else parameters


def fresh(optimizer: Optimizer, parameters: Tensors) -> State:
    """The state as a new optimizer begins: nothing kept of those that are trained."""
    import torch

    moving = _moving(optimizer, parameters)
    return {"parameters": parameters} | {
        what: {name: torch.zeros_like(value) for name, value in moving.items()} for what in optimizer.kept
    }


def stepped(
    optimizer: Optimizer, loss: Loss, state: State, batch: Any, rate: float, number: int, clip: float | None = None
) -> State:
    """The state after one training step. clip: the gradient's norm is scaled down to it, as torch's clip_grad_norm_ does."""
    import torch

    moving = _moving(optimizer, state["parameters"])
    gradients = torch.func.grad(lambda parameters: loss(state["parameters"] | parameters, batch))(moving)
    if clip is not None:
        norm = torch.stack([each.pow(2).sum() for each in gradients.values()]).sum().sqrt()
        scale = torch.clamp(clip / (norm + 1e-6), max=1.0)
        gradients = {name: scale * each for name, each in gradients.items()}
    after = optimizer.step(state | {"parameters": moving}, gradients, rate, number)
    return after | {"parameters": state["parameters"] | after["parameters"]}


Steps = Iterable[tuple[Any, float, int]]
"""Batch, learning rate, number in its stage: of every step, in order."""


def trained(optimizer: Optimizer, loss: Loss, state: State, steps: Steps, clip: float | None = None) -> State:
    """The state after these steps: training itself, run again."""
    for batch, rate, number in steps:
        state = _detached(stepped(optimizer, loss, state, batch, rate, number, clip))
    return state


def carried(
    optimizer: Optimizer, loss: Loss, state: State, displacement: State, steps: Steps, clip: float | None = None
) -> Iterator[tuple[State, State]]:
    """After every step, the state and where the displacement has gone to first order: its tangent along the run as it was.

    state, displacement: where the stage ended, and by how much it moved that. One step takes about four of training; kept are
    state and displacement, and one step's forward and backward. Raises InputError where the two differ in names or shapes.
    """
    for what, tensors in state.items():
        there = {name: value.shape for name, value in displacement.get(what, {}).items()}
        if there != {name: value.shape for name, value in tensors.items()}:
            raise InputError(f"a displacement without {what} of the state's shapes", "one of the same checkpoint", "take it anew")
    for batch, rate, number in steps:

        def step(now: State, batch: Any = batch, rate: float = rate, number: int = number) -> State:
            return stepped(optimizer, loss, now, batch, rate, number, clip)

        after, tangent = _along(step, state, displacement)
        state, displacement = _detached(after), _detached(tangent)
        yield state, displacement


def last(states: Iterable[tuple[State, State]]) -> tuple[State, State]:
    """What `carried` ends with; one step is in memory at a time. Raises ValueError where there was no step."""
    found = deque(states, maxlen=1)
    if not found:
        raise ValueError("a stage without a step")
    return found[0]


def _along(function: Callable[[Any], Any], point: Any, direction: Any) -> tuple[Any, Any]:
    """A function's value at a point, and its derivative there along a direction."""
    import torch

    with warnings.catch_warnings():  # torch scripts its own derivatives when the first is taken, and warns of it
        warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
        value, along = torch.func.jvp(function, (point,), (direction,))
    return value, along


def _detached(state: State) -> State:
    return {what: {name: value.detach() for name, value in tensors.items()} for what, tensors in state.items()}


def difference(later: State, earlier: State) -> State:
    """What lies between two states."""
    return {what: {name: value - earlier[what][name] for name, value in tensors.items()} for what, tensors in later.items()}


def linear(metric: Callable[[Tensors], "Tensor"], parameters: Tensors, embedding: Tensors) -> "Tensor":
    """The linear form: how the metric moves along the embedding, grad metric . E_k; of the metric's shape."""
    moved: Tensor = _along(metric, parameters, embedding)[1]
    return moved.detach()


def nonlinear(metric: Callable[[Tensors], "Tensor"], parameters: Tensors, embedding: Tensors) -> "Tensor":
    """The non-linear form: metric(end) - metric(end - E_k); of the metric's shape."""
    without = {name: value - embedding[name] for name, value in parameters.items()}
    return (metric(parameters) - metric(without)).detach()


def first_order_gap(
    optimizer: Optimizer, loss: Loss, state: State, displacement: State, steps: Steps, clip: float | None = None
) -> float:
    """How wrong the tangent is on these steps: |E - exact| / |exact| of the parameters, exact by a run without the displacement.

    0 is a run in which first order is all there is; 1 or more one in which an embedding says nothing. At large
    rate / (1 - momentum) it grows with every step: try the first few before all are carried.
    """
    import torch

    steps = list(steps)
    end, embedding = last(carried(optimizer, loss, state, displacement, steps, clip))
    without = trained(optimizer, loss, difference(state, displacement), steps, clip)
    exact = difference(end, without)["parameters"]
    wrong = torch.stack([(embedding["parameters"][name] - value).pow(2).sum() for name, value in exact.items()]).sum()
    size = torch.stack([value.pow(2).sum() for value in exact.values()]).sum()
    return float((wrong / size).sqrt())
