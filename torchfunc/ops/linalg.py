"""Operations on matrices: the last two axes; the axes before them are a batch. Also as `ops.linalg.*`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfunc.ops.control import jvp  # noqa: F401
from torchfunc.ops.tensors import Axes, TensorLike, as_axes, as_floating, as_tensor

__all__ = [
    *("cdist", "cholesky", "cholesky_inverse", "cross", "det", "diag", "diagflat", "diagonal", "dot", "eig", "eigh"),
    *("inner", "inv", "jvp", "kron", "logdet", "lstsq", "lu_factor", "matrix_rank", "norm", "outer", "pinv", "qr"),
    *("slogdet", "solve", "solve_triangular", "svd", "trace", "tril", "triu", "vdot"),
]


# Products


def dot(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The sum of products over the last axis of `x1` and the last but one of `x2`; a product, where one is a number.

    >>> ops.dot([1, 2], [3, 4])
    tensor(11)
    """
    one, other = as_tensor(x1), as_tensor(x2)
    if one.ndim == 0 or other.ndim == 0:
        return one * other
    return torch.tensordot(one, other, ([-1], [0 if other.ndim == 1 else -2]))


def inner(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The sums of products over the last axes.

    >>> ops.inner([[1, 2], [3, 4]], [1, 10])
    tensor([21, 43])
    """
    return torch.inner(as_tensor(x1), as_tensor(x2))


def outer(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The product of each entry of the one with each of the other, both flattened.

    >>> ops.outer([1, 2], [1, 10])
    tensor([[ 1, 10],
            [ 2, 20]])
    """
    return torch.outer(torch.ravel(as_tensor(x1)), torch.ravel(as_tensor(x2)))


def vdot(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The sum of products of all entries; of complex numbers, with the conjugate of the first.

    >>> ops.vdot([[1, 2], [3, 4]], [[1, 1], [1, 1]])
    tensor(10)
    """
    return torch.vdot(torch.ravel(as_tensor(x1)), torch.ravel(as_tensor(x2)))


def kron(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The Kronecker product.

    >>> ops.kron([[1, 2]], [[1, 10]])
    tensor([[ 1, 10,  2, 20]])
    """
    return torch.kron(as_tensor(x1), as_tensor(x2))


def cross(
    x1: TensorLike, x2: TensorLike, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Tensor:
    """The cross product of vectors of three along `axisa` and `axisb`, laid along `axisc`; or all along `axis`.

    >>> ops.cross([1, 0, 0], [0, 1, 0])
    tensor([0, 0, 1])
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    one, other = torch.movedim(as_tensor(x1), axisa, -1), torch.movedim(as_tensor(x2), axisb, -1)
    return torch.movedim(torch.linalg.cross(one, other, dim=-1), -1, axisc)


def cdist(x: TensorLike, y: TensorLike) -> Tensor:
    """The Euclidean distance of each row of `x` (batch, n, d) from each of `y` (batch, m, d): (batch, n, m).

    >>> ops.linalg.cdist([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]])
    tensor([[5., 1.]])
    """
    return torch.cdist(as_floating(x), as_floating(y))


# Parts


def diag(x: TensorLike, k: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix of a diagonal; the `k`-th above the main one.

    >>> ops.diag([1, 2])
    tensor([[1, 0],
            [0, 2]])
    >>> ops.diag([[1, 2], [3, 4]])
    tensor([1, 4])
    """
    return torch.diag(as_tensor(x), k)


def diagflat(x: TensorLike, k: int = 0) -> Tensor:
    """The matrix with the flattened entries as its `k`-th diagonal.

    >>> ops.diagflat([[1, 2]])
    tensor([[1, 0],
            [0, 2]])
    """
    return torch.diagflat(as_tensor(x), k)


def diagonal(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The diagonals of the matrices that two axes make up, laid along the last axis.

    Args:
        offset: above the main diagonal, or below it if negative.
        axis1, axis2: the axes.

    >>> ops.diagonal([[1, 2], [3, 4]])
    tensor([1, 4])
    """
    return torch.diagonal(as_tensor(x), offset, axis1, axis2)


def trace(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal.

    Args:
        offset, axis1, axis2: as for `diagonal`.

    >>> ops.trace([[1, 2], [3, 4]])
    tensor(5)
    """
    return torch.sum(diagonal(x, offset, axis1, axis2), -1)


def tril(x: TensorLike, k: int = 0) -> Tensor:
    """What is below the `k`-th diagonal, with it, and 0 above.

    >>> ops.tril([[1, 2], [3, 4]])
    tensor([[1, 0],
            [3, 4]])
    """
    return torch.tril(as_tensor(x), k)


def triu(x: TensorLike, k: int = 0) -> Tensor:
    """What is above the `k`-th diagonal, with it, and 0 below.

    >>> ops.triu([[1, 2], [3, 4]])
    tensor([[1, 2],
            [0, 4]])
    """
    return torch.triu(as_tensor(x), k)


# Decompositions, and what follows from them


def cholesky(x: TensorLike, upper: bool = False) -> Tensor:
    """The triangular factor of positive definite matrices.

    With `upper` the upper triangular one. torch raises LinAlgError for a matrix that is not positive definite.

    >>> ops.linalg.cholesky([[4.0, 2.0], [2.0, 10.0]])
    tensor([[2., 0.],
            [1., 3.]])
    """
    return torch.linalg.cholesky(as_floating(x), upper=upper)


def cholesky_inverse(x: TensorLike, upper: bool = False) -> Tensor:
    """The inverse of matrices whose triangular factor is given.

    >>> ops.linalg.cholesky_inverse([[2.0, 0.0], [0.0, 1.0]]).abs()
    tensor([[0.2500, 0.0000],
            [0.0000, 1.0000]])
    """
    return torch.cholesky_inverse(as_floating(x), upper)


def det(x: TensorLike) -> Tensor:
    """The determinant.

    >>> ops.linalg.det([[2.0, 0.0], [1.0, 3.0]]).round()
    tensor(6.)
    """
    return torch.linalg.det(as_floating(x))


def slogdet(x: TensorLike) -> tuple[Tensor, Tensor]:
    """The sign of the determinant, and the logarithm of its absolute value.

    >>> ops.linalg.slogdet([[-1.0, 0.0], [0.0, 1.0]])
    (tensor(-1.), tensor(0.))
    """
    sign, logarithm = torch.linalg.slogdet(as_floating(x))
    return sign, logarithm


def logdet(x: TensorLike) -> Tensor:
    """The logarithm of the determinant.

    >>> ops.logdet([[2.0, 0.0], [0.0, 1.0]])
    tensor(0.6931)
    """
    return torch.logdet(as_floating(x))


def eig(x: TensorLike) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, which are complex.

    >>> values, vectors = ops.linalg.eig([[0.0, 1.0], [-1.0, 0.0]])
    >>> values.imag.abs()
    tensor([1., 1.])
    """
    values, vectors = torch.linalg.eig(as_floating(x))
    return values, vectors


def eigh(x: TensorLike) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of symmetric matrices.

    >>> values, vectors = ops.linalg.eigh([[3.0, 0.0], [0.0, 2.0]])
    >>> values
    tensor([2., 3.])
    """
    values, vectors = torch.linalg.eigh(as_floating(x))
    return values, vectors


def inv(x: TensorLike) -> Tensor:
    """The inverse.

    >>> ops.linalg.inv([[2.0, 0.0], [0.0, 4.0]])
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return torch.linalg.inv(as_floating(x))


def pinv(x: TensorLike, rcond: float | None = None) -> Tensor:
    """The pseudo-inverse; singular values below `rcond` times the largest count as 0.

    >>> ops.linalg.pinv([[2.0, 0.0], [0.0, 0.0]]).abs()
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])
    """
    return torch.linalg.pinv(as_floating(x), rtol=rcond)


def matrix_rank(x: TensorLike, tol: float | None = None) -> Tensor:
    """How many singular values are above `tol`.

    >>> ops.linalg.matrix_rank([[1.0, 2.0], [2.0, 4.0]])
    tensor(1)
    """
    return torch.linalg.matrix_rank(as_floating(x), atol=tol, rtol=None if tol is None else 0.0)


def lu_factor(x: TensorLike) -> tuple[Tensor, Tensor]:
    """The factors L and U in one matrix, and the rows that were swapped, from 0.

    >>> ops.linalg.lu_factor([[4.0, 2.0], [2.0, 3.0]])
    (tensor([[4.0000, 2.0000],
            [0.5000, 2.0000]]), tensor([0, 1], dtype=torch.int32))
    """
    factors, pivots = torch.linalg.lu_factor(as_floating(x))
    return factors, pivots - 1


def qr(x: TensorLike, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """An orthogonal and an upper triangular factor; `mode` is "reduced" or "complete".

    >>> q, r = ops.linalg.qr([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> q.shape, r.shape
    (torch.Size([3, 2]), torch.Size([2, 2]))
    """
    q, r = torch.linalg.qr(as_floating(x), mode=mode)
    return q, r


def svd(x: TensorLike, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """`u, s, vh` with `x = u @ diag(s) @ vh`; only the singular values `s` without `compute_uv`.

    Args:
        full_matrices: whether `u` and `vh` are square.

    >>> ops.linalg.svd([[3.0, 0.0], [0.0, 2.0]], compute_uv=False)
    tensor([3., 2.])
    """
    x = as_floating(x)
    return tuple(torch.linalg.svd(x, full_matrices)) if compute_uv else torch.linalg.svdvals(x)


def solve(a: TensorLike, b: TensorLike) -> Tensor:
    """`x` with `a @ x = b`.

    >>> ops.linalg.solve([[2.0, 0.0], [0.0, 4.0]], [2.0, 8.0])
    tensor([1., 2.])
    """
    return torch.linalg.solve(as_floating(a), as_floating(b))


def solve_triangular(a: TensorLike, b: TensorLike, lower: bool = False) -> Tensor:
    """`x` with `a @ x = b`, where `a` is triangular.

    >>> ops.linalg.solve_triangular([[2.0, 0.0], [1.0, 1.0]], [2.0, 4.0], lower=True)
    tensor([1., 3.])
    """
    a, b = as_floating(a), as_floating(b)
    vector = b.ndim == a.ndim - 1
    found = torch.linalg.solve_triangular(a, b[..., None] if vector else b, upper=not lower)
    return found[..., 0] if vector else found


def lstsq(a: TensorLike, b: TensorLike, rcond: float | None = None) -> Tensor:
    """The `x` for which `a @ x` is nearest to `b`.

    >>> ops.linalg.lstsq([[1.0], [1.0]], [1.0, 3.0])
    tensor([2.0000])
    """
    a, b = as_floating(a), as_floating(b)
    found = pinv(a, rcond) @ (b[..., None] if b.ndim == 1 else b)
    return found[..., 0] if b.ndim == 1 else found


def norm(x: TensorLike, ord: Any = None, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The norm of vectors (one axis), matrices (two axes) or all entries; Euclidean or as `ord` says.

    >>> ops.linalg.norm([3.0, 4.0])
    tensor(5.)
    >>> ops.linalg.norm([[3.0, 4.0], [6.0, 8.0]], ord=2, axis=1)
    tensor([ 5., 10.])
    """
    x = as_floating(x)
    if ord is None:
        return torch.linalg.vector_norm(x, 2, as_axes(axis), keepdims)
    axes = tuple(range(x.ndim)) if axis is None else as_axes(axis)
    if len(axes) == 1:
        return torch.linalg.vector_norm(x, ord, axes, keepdims)
    return torch.linalg.matrix_norm(x, ord, axes, keepdims)
