"""Singular values and rotations of a changed matrix, in the singular basis of the matrix before: an eigendecomposition each.

With W_b = U S V^T and E = U^T dW V, all that is needed of W_p = W_b + dW is in the n x n matrices S E and E^T E (n the smaller
side): G = S^2 + S E + (S E)^T + E^T E has the squared singular values of W_p, and U^T (polar factor of W_p) V = (S + E) G^-1/2.
A change that is rotated at random is one that is drawn anew in that basis, so W_b is decomposed once for all. In float64: a Gram
matrix loses eps (s_1 / s_i)^2, which is 2e-4 at the cut below, and next to nothing above it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

    Rotate = Callable[[Tensor], Tensor]

CUT = 1e-6  # of the largest singular value: what is smaller is the rounding of float32 weights, and has no direction
SMALL = (
    1e-3  # gap: the sum of its parts is good to 1e-8 and costs one product less than the matrix itself, which is good to 1e-13
)
HAAR_UP_TO = 256  # rows: a uniform rotation of more costs as much as the eigendecomposition it is drawn for


@dataclass(frozen=True)
class Spectra:
    """What one pair of matrices, and random changes of the same size, are made of; float64."""

    base: "np.ndarray"
    """Singular values before, descending: [n]."""
    post: "np.ndarray"
    """And after."""
    rank: int
    """Singular values before that are above CUT."""
    gap: float
    """||Q_U Q_V^T - I||_F / sqrt(rank), Q_U = U_b^T U_p, Q_V = V_b^T V_p: 0 where both sides turn alike, sqrt 2 at random."""
    change_norm: float
    """Frobenius norm of the change."""
    null_post: "np.ndarray"
    """Singular values after a change R_L dW R_R of random rotations: [draw, n]."""
    null_gap: "np.ndarray"
    """And its gap: [draw]."""


def compare(base: "Tensor", post: "Tensor", draws: int, seed: int) -> Spectra:
    """Decompose a pair of matrices of one shape, [out, in] or the other way round, and so many random changes of it.

    On the device where they are. Random rotations are uniform (Haar) up to HAAR_UP_TO rows, and beyond it Kronecker products
    of two uniform ones after a random permutation, which have the same first and second moments.
    """
    import torch

    if base.shape[0] < base.shape[1]:
        base, post = base.mT, post.mT  # which has the same singular values and the same gap
    before = base.double()
    change = post.double() - before
    gram = change.mT @ change
    squares, right = _eigh(before.mT @ before)
    values, right = squares.flip(0).clamp(min=0).sqrt(), right.flip(1)
    rank = int((values > CUT * values[0]).sum())
    generator = torch.Generator().manual_seed(seed)

    def changes() -> "Iterator[tuple[Tensor, Tensor]]":
        """S E and E^T E of the change itself, then of random ones."""
        yield right.mT @ (before.mT @ change) @ right, right.mT @ gram @ right
        for _ in range(draws):
            yield _random_change(change, gram, values, generator)

    if _in_batches(base):
        crosses, grams = zip(*changes(), strict=True)
        found = [_turned(values, rank, torch.stack(crosses), torch.stack(grams))]
    else:
        found = [_turned(values, rank, cross[None], of_gram[None]) for cross, of_gram in changes()]
    after, gaps = (torch.cat(each).cpu().numpy() for each in zip(*found, strict=True))
    return Spectra(values.cpu().numpy(), after[0], rank, float(gaps[0]), float(change.norm()), after[1:], gaps[1:])


def _in_batches(matrix: "Tensor") -> bool:
    """Whether matrices of one shape go together: on a CPU that would only take more memory."""
    return matrix.device.type != "cpu"


def _turned(values: "Tensor", rank: int, cross: "Tensor", gram: "Tensor") -> "tuple[Tensor, Tensor]":
    """Singular values after each of several changes [change, n], and gaps [change].

    cross = S E and gram = E^T E in the base's singular basis: [change, n, n].
    """
    import torch

    squares, vectors = _eigh(torch.diag(values**2) + cross + cross.mT + gram)
    post = squares.clamp(min=0).sqrt()
    inverse = torch.where(post > CUT * post[:, -1:], 1 / post, 0.0)
    kept = values[:rank]
    turned = cross[:, :rank] / kept[:, None]
    turned.diagonal(dim1=-2, dim2=-1).add_(kept)  # U_b^T W_p V_b
    turned = (turned @ vectors) * inverse[:, None]
    right = vectors[:, :rank]  # Q_U Q_V^T is turned @ right.mT
    length = (turned if rank == len(values) else turned @ right.mT).square().sum((1, 2))
    gap = ((length - 2 * (turned * right).sum((1, 2)) + rank).clamp(min=0) / rank).sqrt()
    for number in torch.nonzero(gap < SMALL).flatten():
        gap[number] = (turned[number] @ right[number].mT - torch.eye(rank).to(turned)).norm() / rank**0.5
    return post.flip(1), gap


def _eigh(matrix: "Tensor") -> "tuple[Tensor, Tensor]":
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices; on a CPU by scipy, which is a quarter faster than torch."""
    import torch
    from scipy.linalg import eigh

    if _in_batches(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors
    if matrix.ndim == 2:
        found = eigh(matrix.numpy(), driver="evd", check_finite=False)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])
    values, vectors = zip(*map(_eigh, matrix), strict=True)
    return torch.stack(values), torch.stack(vectors)


def _random_change(change: "Tensor", gram: "Tensor", values: "Tensor", generator: "Generator") -> "tuple[Tensor, Tensor]":
    """S E and E^T E of the change rotated at random from both sides; gram is the change's own."""
    rows, columns = change.shape
    left, right = random_rotation(rows, generator), random_rotation(columns, generator)
    drawn = right(left(change)[:columns].mT).mT
    return values[:, None] * drawn, right(right(gram).mT)


def random_rotation(size: int, generator: "Generator") -> "Rotate":
    """A random orthogonal matrix, as what it does to a matrix [size, any]."""
    if size <= HAAR_UP_TO:
        whole = haar(size, generator)
        return lambda matrix: whole.to(matrix) @ matrix
    import torch

    side = next(number for number in range(int(size**0.5), 0, -1) if size % number == 0)
    order, outer, inner = torch.randperm(size, generator=generator), haar(side, generator), haar(size // side, generator)

    def rotate(matrix: "Tensor") -> "Tensor":
        blocks = matrix[order.to(matrix.device)].reshape(side, -1)
        blocks = (outer.to(matrix) @ blocks).reshape(side, size // side, -1)
        return (inner.to(matrix) @ blocks).reshape(size, -1)

    return rotate


def haar(size: int, generator: "Generator") -> "Tensor":
    """A uniformly distributed orthogonal matrix (Stewart 1980): float64 [size, size]."""
    import torch

    factor, upper = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return factor * upper.diagonal().sign()
