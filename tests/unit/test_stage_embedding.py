"""Stage embeddings: against torch's own optimizers, against runs without the stage, and where first order is exact."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mechdrift.errors import InputError
from mechdrift.stages.embedding import (
    SGD,
    AdamW,
    Optimizer,
    State,
    carried,
    difference,
    first_order_gap,
    fresh,
    last,
    linear,
    nonlinear,
    trained,
)

OPTIMIZERS: dict[str, tuple[Optimizer, Callable[..., Any]]] = {
    "sgd": (SGD(), lambda of, rate: torch.optim.SGD(of, rate)),
    "momentum": (SGD(0.9, 0.1), lambda of, rate: torch.optim.SGD(of, rate, momentum=0.9, weight_decay=0.1)),
    "adamw": (AdamW(weight_decay=0.1), lambda of, rate: torch.optim.AdamW(of, rate, weight_decay=0.1)),
}
STEPS = 12


@pytest.fixture(autouse=True)
def exact() -> Any:
    """Differences of runs are taken to the last digits."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network() -> dict[str, Tensor]:
    """Two layers, and a parameter that no loss knows."""
    return {"in": torch.randn(5, 8) / 2, "out": torch.randn(8, 3) / 2, "unused": torch.randn(2)}


def loss(parameters: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    requested, wanted = batch
    return torch.nn.functional.cross_entropy(torch.tanh(requested @ parameters["in"]) @ parameters["out"], wanted)


def run(seed: int, rate: float = 0.01) -> list[tuple[tuple[Tensor, Tensor], float, int]]:
    """Batches, falling learning rates, numbers."""
    drawn = torch.Generator().manual_seed(seed)
    batches = [(torch.randn(16, 5, generator=drawn), torch.randint(3, (16,), generator=drawn)) for _ in range(STEPS)]
    return [(batch, rate * (1 - number / 20), number) for number, batch in enumerate(batches, 1)]


def norm(state: State) -> float:
    return float(torch.cat([value.flatten() for value in state["parameters"].values()]).norm())


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_steps_are_those_of_torch(name: str, clip: float | None) -> None:
    optimizer, torchs = OPTIMIZERS[name]
    parameters = network()
    ours = trained(optimizer, loss, fresh(optimizer, parameters), run(1), clip)["parameters"]
    theirs = {key: value.clone().requires_grad_() for key, value in parameters.items()}
    stepper = torchs(list(theirs.values()), 0.01)
    for batch, rate, _ in run(1):
        stepper.param_groups[0]["lr"] = rate
        stepper.zero_grad(set_to_none=False)
        (loss(theirs, batch) + 0 * theirs["unused"].sum()).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(list(theirs.values()), clip)
        stepper.step()
    for key, value in theirs.items():
        assert not torch.equal(value, parameters[key]) or name == "sgd"
        torch.testing.assert_close(ours[key], value.detach(), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_small_displacement_goes_where_runs_with_and_without_it_part(name: str, clip: float | None) -> None:
    """Central difference of two whole runs; what the optimizer keeps is displaced too."""
    optimizer, _ = OPTIMIZERS[name]
    state = trained(optimizer, loss, fresh(optimizer, network()), run(1))
    moved = {what: {key: torch.randn_like(value) for key, value in tensors.items()} for what, tensors in state.items()}
    if name == "adamw":  # the mean of squares stays above 0, and of what has no gradient it is 0
        moved["square"] = {key: torch.rand_like(value) * state["square"][key] for key, value in moved["square"].items()}
    *_, (_, tangent) = carried(optimizer, loss, state, moved, run(2), clip)
    size = 1e-5

    def end(sign: int) -> State:
        start = {what: {key: value + sign * size * moved[what][key] for key, value in of.items()} for what, of in state.items()}
        return trained(optimizer, loss, start, run(2), clip)

    apart = difference(end(1), end(-1))
    for key, value in tangent["parameters"].items():
        assert value.isfinite().all()
        torch.testing.assert_close(value, apart["parameters"][key] / (2 * size), atol=2e-4, rtol=2e-4)


def test_where_steps_are_linear_it_is_exact_however_large() -> None:
    """Gradient descent with momentum on a quadratic: the run without the stage is the run less its embedding."""
    root = torch.randn(6, 6)
    curved = root @ root.T / 6

    def quadratic(parameters: dict[str, Tensor], target: Tensor) -> Tensor:
        off = parameters["w"] - target
        return 0.5 * off @ curved @ off

    optimizer = SGD(0.9, 0.01)
    steps = [(torch.randn(6), 0.05, number) for number in range(1, 9)]
    before = fresh(optimizer, {"w": torch.randn(6)})
    after = trained(optimizer, quadratic, before, steps)
    later = [(torch.randn(6), 0.05, number) for number in range(1, 9)]
    start = fresh(optimizer, after["parameters"])
    left = difference(start, before)
    *_, (end, embedding) = carried(optimizer, quadratic, start, left, later)
    without = trained(optimizer, quadratic, before, later)
    torch.testing.assert_close(end["parameters"]["w"] - embedding["parameters"]["w"], without["parameters"]["w"])
    assert norm(left) > 0.1
    assert (embedding["parameters"]["w"] - left["parameters"]["w"]).norm() > 0.01, "the stages after it changed it"
    assert first_order_gap(optimizer, quadratic, start, left, later) < 1e-10


def test_the_gap_grows_where_first_order_breaks_down() -> None:
    """Large rate / (1 - momentum): METHODS of the paper's own warning."""
    optimizer = SGD(0.9)
    gaps = []
    for rate in (0.001, 0.05, 1.0):
        before = fresh(optimizer, network())
        after = fresh(optimizer, trained(optimizer, loss, before, run(1, rate))["parameters"])
        gaps.append(first_order_gap(optimizer, loss, after, difference(after, before), run(2, rate)))
    assert gaps[0] < 0.01 < gaps[1] < gaps[2]
    assert gaps[2] > 0.5


def test_forms_of_a_metric() -> None:
    parameters = {"w": torch.tensor([1.0, 2.0])}
    embedding = {"w": torch.tensor([0.5, 1.0])}

    def metric(now: dict[str, Tensor]) -> Tensor:
        return torch.stack([now["w"].sum(), now["w"].pow(2).sum()])

    torch.testing.assert_close(linear(metric, parameters, embedding), torch.tensor([1.5, 5.0]))
    torch.testing.assert_close(nonlinear(metric, parameters, embedding), torch.tensor([1.5, 3.75]))


def test_a_displacement_of_another_model_is_refused() -> None:
    state = fresh(SGD(), network())
    other = fresh(SGD(), {"in": torch.randn(5, 9)})
    with pytest.raises(InputError, match="displacement without parameters"):
        next(carried(SGD(), loss, state, other, run(1)))


def test_one_step_is_in_memory_at_a_time() -> None:
    """However long the stage."""
    alive: list[Any] = []

    def states() -> Any:
        for number in range(20):
            state = {"parameters": {"a": torch.full((3,), float(number))}}
            alive.append(weakref.ref(state["parameters"]["a"]))
            assert sum(one() is not None for one in alive) <= 3
            yield state, state
            del state

    end, _ = last(states())
    assert float(end["parameters"]["a"][0]) == 19
    with pytest.raises(ValueError, match="without a step"):
        last(iter(()))
