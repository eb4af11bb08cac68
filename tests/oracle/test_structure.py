"""Scale, rotation gap and their null: against closed forms, and against torch.linalg.svd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.engine.weights import decompose
from mechdrift.engine.weights.decompose import compare, haar
from mechdrift.findings.structure.changes import NUMBERS, numbers_of

SHAPES = [(24, 24), (40, 24), (24, 40)]
shapes, seeds = st.sampled_from(SHAPES), st.integers(0, 10_000)


def rotation(size: int, seed: int) -> torch.Tensor:
    return haar(size, torch.Generator().manual_seed(seed))


def turned_by(size: int, angle: float, seed: int) -> torch.Tensor:
    """A rotation of about so many radians in random planes."""
    spin = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.matrix_exp(angle * (spin - spin.mT) / size**0.5)


def basis(shape: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U, s and V of a matrix."""
    n = min(shape)
    return rotation(shape[0], seed)[:, :n], torch.linspace(3, 0.1, n, dtype=torch.float64), rotation(shape[1], seed + 1)[:, :n]


def numbers(base: torch.Tensor, post: torch.Tensor, draws: int = 2, seed: int = 0) -> dict[str, float]:
    shape = base.shape[0], base.shape[1]
    return dict(zip(NUMBERS, numbers_of(compare(base, post, draws, seed), shape), strict=True))


def by_svd(base: torch.Tensor, post: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Singular values after the change, and the gap, of matrices of full rank: by their definition."""
    (u, _, v), (u_p, values, v_p) = (torch.linalg.svd(matrix.double(), full_matrices=False) for matrix in (base, post))
    return values, float((u.mT @ u_p @ v_p @ v.mT - torch.eye(len(values))).norm()) / len(values) ** 0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.3])
def test_one_scale_and_one_rotation_have_no_gap(shape: tuple[int, int], alpha: float) -> None:
    """The published form, W_p = (U Q) (alpha S) (V Q)^T."""
    u, s, v = basis(shape)
    q = turned_by(len(s), 0.3, seed=5)
    found = numbers((u * s) @ v.mT, (u @ q * (alpha * s)) @ (v @ q).mT)
    assert found["scale"] == pytest.approx(alpha, abs=1e-12)
    assert found["uniformity"] == pytest.approx(0, abs=1e-9)
    assert found["gap"] == pytest.approx(0, abs=1e-6)
    assert found["gap_ratio"] < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.05, 0.5, 10.0])
def test_two_rotations_have_the_gap_between_them(shape: tuple[int, int], angle: float) -> None:
    u, s, v = basis(shape)
    n = len(s)
    left, right = turned_by(n, 0.2, seed=5) @ turned_by(n, angle, seed=6), turned_by(n, 0.2, seed=5)
    found = numbers((u * s) @ v.mT, (u @ left * s) @ (v @ right).mT)
    expected = float((left @ right.mT - torch.eye(n)).norm()) / math.sqrt(n)
    assert found["gap"] == pytest.approx(expected, abs=1e-6)
    assert found["scale"] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_that_carry_nothing_do_not_make_a_matrix_uneven(shape: tuple[int, int]) -> None:
    """The last one has 1e-4 of the largest singular value, and any noise multiplies it."""
    u, s, v = basis(shape)
    s[-1] = 1e-4 * s[0]
    grown = s.clone() * 1.1
    grown[-1] *= 50
    found = numbers((u * s) @ v.mT, (u * grown) @ v.mT)
    strong = (s > 0.01 * s[0]).numpy()
    ratios = (grown / s).numpy()[strong]
    assert found["uniformity"] == pytest.approx(ratios.std() / ratios.mean(), abs=1e-9)
    assert (grown / s).numpy().std() > 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_of_spectrum_is_no_rotation(shape: tuple[int, int]) -> None:
    u, s, v = basis(shape)
    factors = torch.linspace(1, 1.5, len(s), dtype=torch.float64)  # which keep the order
    found = numbers((u * s) @ v.mT, (u * (s * factors)) @ v.mT)
    assert found["scale"] == pytest.approx(float(s @ (s * factors) / (s @ s)), abs=1e-12)
    ratios = (s * factors / s).numpy()
    assert found["uniformity"] == pytest.approx(ratios.std() / ratios.mean(), abs=1e-9)
    assert found["change"] == pytest.approx(float((s * (factors - 1)).norm() / s.norm()), abs=1e-12)
    assert found["gap"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_matrices_are_equal_without_a_short_cut(shape: tuple[int, int]) -> None:
    base = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = numbers(base, base.clone())
    exact = {"change": 0.0, "scale": 1.0, "uniformity": 0.0, "gap": 0.0}
    assert {name: found[name] for name in exact} == pytest.approx(exact, abs=1e-6)
    assert all(math.isnan(found[name]) for name in NUMBERS[len(exact) :])


@given(shapes, seeds, st.sampled_from([1e-4, 1e-2, 0.3, 3.0]))
def test_any_pair_agrees_with_torch(shape: tuple[int, int], seed: int, size: float) -> None:
    torch.manual_seed(seed)
    base, change = torch.randn(shape).double(), torch.randn(shape).double()
    found, (values, gap) = compare(base, base + size * change, 1, 0), by_svd(base, base + size * change)
    # Singular values lose eps (s_1 / s_i): the smallest of such a matrix may be 1e-4 of the largest, or less.
    np.testing.assert_allclose(found.post, values.numpy(), rtol=0, atol=1e-9 * float(values[0]))
    assert found.gap == pytest.approx(gap, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gaps_of_small_changes_shrink_with_them(shape: tuple[int, int]) -> None:
    """As they must to first order: nothing is lost in the difference from the identity."""
    torch.manual_seed(0)
    base, change = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    gaps = {size: compare(base, base + size * change, 1, 0) for size in (1e-6, 1e-10)}
    assert gaps[1e-6].gap / gaps[1e-10].gap == pytest.approx(1e4, rel=0.01)
    assert gaps[1e-6].null_gap / gaps[1e-10].null_gap == pytest.approx(1e4, rel=0.01)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e5])
def test_ill_conditioned_matrices_agree_with_torch(condition: float) -> None:
    """A Gram matrix loses eps x condition^2 of the smallest direction, and a gap is a mean over all of them."""
    u, _, v = basis((48, 32))
    s = torch.logspace(0, -math.log10(condition), 32, dtype=torch.float64)
    base = (u * s) @ v.mT
    change = (u @ torch.randn(32, 32, dtype=torch.float64) * s) @ v.mT / 50  # as small as the direction that it changes
    found, (values, gap) = compare(base, base + change, 1, 0), by_svd(base, base + change)
    np.testing.assert_allclose(found.post / values.numpy(), 1, rtol=0, atol=10 * 2.2e-16 * condition**2)
    assert found.gap == pytest.approx(gap, abs=10 * 2.2e-16 * condition**2)


@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_rank_deficient_matrix_the_directions_that_it_has_are_compared(shape: tuple[int, int]) -> None:
    u, s, v = basis(shape)
    kept = 9
    u, s, v = u[:, :kept], s[:kept], v[:, :kept]
    left, right = turned_by(kept, 0.3, seed=5), turned_by(kept, 0.1, seed=6)
    spectra = compare((u * s) @ v.mT, (u @ left * (2 * s)) @ (v @ right).mT, 2, 0)
    assert spectra.rank == kept
    assert spectra.gap == pytest.approx(float((left @ right.mT - torch.eye(kept)).norm()) / math.sqrt(kept), abs=1e-6)
    found = dict(zip(NUMBERS, numbers_of(spectra, (shape[0], shape[1])), strict=True))
    assert found["scale"] == pytest.approx(2, abs=1e-12)
    assert found["uniformity"] == pytest.approx(0, abs=1e-9)
    assert all(math.isfinite(number) for number in found.values())


@given(shapes, seeds)
def test_no_number_depends_on_the_basis_and_the_scale_is_that_of_the_change(shape: tuple[int, int], seed: int) -> None:
    """Transposed, turned from both sides, and both scaled: all but the null, which is drawn, stay."""
    torch.manual_seed(seed)
    base, post = (torch.randn(shape).double() for _ in range(2))
    left, right = rotation(shape[0], seed), rotation(shape[1], seed + 1)
    expected = numbers(base, post)
    for one, other in ((base.mT, post.mT), (left @ base @ right, left @ post @ right), (7 * base, 7 * post)):
        found = numbers(one, other)
        for name in ("change", "scale", "uniformity", "gap"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5)


@given(shapes, seeds, st.floats(0.5, 2))
def test_scaling_post_scales_alpha_and_turns_nothing(shape: tuple[int, int], seed: int, factor: float) -> None:
    torch.manual_seed(seed)
    base, post = (torch.randn(shape).double() for _ in range(2))
    plain, scaled = numbers(base, post), numbers(base, factor * post)
    assert scaled["scale"] == pytest.approx(factor * plain["scale"], rel=1e-9)
    assert scaled["gap"] == pytest.approx(plain["gap"], abs=1e-5)


@pytest.mark.parametrize("shape", [(64, 40), (40, 64), (48, 48)])
@pytest.mark.parametrize("size", [0.01, 0.1])
def test_a_random_change_is_its_own_null(shape: tuple[int, int], size: float) -> None:
    """Over 60 matrices: its gap has any rank among the null's draws, and alpha is a standard normal distance from the null."""
    count, draws, ranks, ratios, z = 60, 4, [], [], []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        base, change = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        spectra = compare(base, base + size * base.norm() / change.norm() * change, draws, 1000 + seed)
        found = dict(zip(NUMBERS, numbers_of(spectra, shape), strict=True))
        ranks.append(int((spectra.null_gap < spectra.gap).sum()))
        ratios.append(found["gap_ratio"])
        z.append(found["scale_z"])
        assert found["scale"] > 1 + size**2 / 4 - 4 * size / math.sqrt(math.prod(shape))  # noise alone inflates it
    error = math.sqrt((draws + 1) ** 2 - 1) / math.sqrt(12 * count)
    assert abs(np.mean(ranks) - draws / 2) < 3 * error
    assert np.median(ratios) == pytest.approx(1, abs=0.05)
    assert abs(np.mean(z)) < 3 / math.sqrt(count)
    assert np.std(z, ddof=1) == pytest.approx(1, abs=3 / math.sqrt(2 * count))


@pytest.mark.parametrize("shape", [(144, 64), (64, 64)])
@pytest.mark.parametrize("kind", ["dense", "one entry", "rank one"])
def test_kronecker_rotations_stand_for_uniform_ones(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], kind: str) -> None:
    torch.manual_seed(0)
    base = torch.randn(shape, dtype=torch.float64)
    changes = {"dense": torch.randn(shape), "one entry": torch.zeros(shape), "rank one": torch.outer(*map(torch.randn, shape))}
    changes["one entry"][3, 5] = 1
    change = changes[kind].double() * 0.05 * base.norm() / changes[kind].norm()
    found = []
    for limit in (10_000, 1):  # all uniform, none
        monkeypatch.setattr(decompose, "HAAR_UP_TO", limit)
        spectra = compare(base, base + change, 60, 0)
        alphas = spectra.null_post @ spectra.base / (spectra.base @ spectra.base)
        found.append((spectra.null_gap, alphas))
    for uniform, product in zip(*found, strict=True):
        error = math.sqrt((uniform.var() + product.var()) / len(uniform))
        assert abs(uniform.mean() - product.mean()) < 3 * error
    expected = 0.05 / math.sqrt(shape[0] * shape[1])
    assert found[1][1].std() == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("size", [12, 7])
def test_random_rotations_are_rotations(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(decompose, "HAAR_UP_TO", 4)
    one, other = (
        decompose.random_rotation(size, torch.Generator().manual_seed(seed))(torch.eye(size, dtype=torch.float64))
        for seed in (0, 1)
    )
    torch.testing.assert_close(one.mT @ one, torch.eye(size, dtype=torch.float64))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("change", [0.05, 1e-5])
def test_in_batches_as_one_by_one(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], change: float) -> None:
    """As on a GPU: the change and the random ones together, by torch's own eigendecomposition."""
    generator = torch.Generator().manual_seed(4)
    base, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    post = base + change * noise
    expected = compare(base, post, 3, 0)
    requested: list[tuple[int, ...]] = []

    def together(matrix: torch.Tensor) -> bool:
        requested.append(tuple(matrix.shape))
        return True

    monkeypatch.setattr(decompose, "_in_batches", together)
    found = compare(base, post, 3, 0)
    assert (4, min(shape), min(shape)) in requested
    np.testing.assert_allclose(found.post, expected.post, rtol=1e-9)
    np.testing.assert_allclose(found.null_post, expected.null_post, rtol=1e-9)
    np.testing.assert_allclose([found.gap, *found.null_gap], [expected.gap, *expected.null_gap], rtol=1e-6)
