"""Operations that sum up or count along axes (all of them by default), beyond the everyday ones of arithmetic.py."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike
from torchfunc.ops.reductions import cumsum, max, mean, min, sum, var
from torchfunc.ops.tensors import Axes, TensorLike, as_axes, as_floating, as_tensor, optional_dtype

__all__ = [
    *("amax", "amin"),
    *("argpartition", "average", "bincount", "corrcoef", "count_nonzero", "cumprod", "digitize", "histogram"),
    *("in_top_k", "median", "moments", "nanargmax", "nanargmin", "nancumprod", "nancumsum", "nanmax", "nanmean"),
    *("nanmedian", "nanmin", "nanpercentile", "nanprod", "nanquantile", "nanstd", "nansum", "nanvar", "percentile"),
    *("ptp", "quantile", "searchsorted", "trapezoid", "unique"),
]

amax, amin = max, min


def average(x: TensorLike, axis: Axes = None, weights: TensorLike | None = None) -> Tensor:
    """The mean of entries that count as much as their weights, of the shape of `x` or, along one axis, a row.

    >>> ops.average([1.0, 4.0], weights=[2, 1])
    tensor(2.)
    """
    if weights is None:
        return mean(x, axis)
    x, weights = as_floating(x), as_floating(weights)
    if weights.ndim == 1 and x.ndim > 1 and isinstance(axis, int):
        weights = torch.reshape(weights, [-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])
    return sum(x * weights, axis) / sum(weights * torch.ones_like(x), axis)


def moments(x: TensorLike, axes: Axes, keepdims: bool = False, synchronized: bool = False) -> tuple[Tensor, Tensor]:
    """The mean and the variance. (`synchronized` over several processes is not supported: ValueError.)

    >>> ops.moments([1.0, 3.0], axes=0)
    (tensor(2.), tensor(1.))
    """
    if synchronized:
        raise ValueError("ops.moments(synchronized=True) is not supported: use torch.distributed, or SyncBatchNorm.")
    return mean(x, axes, keepdims), var(x, axes, keepdims)


def ptp(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest entry less the smallest.

    >>> ops.ptp([1, 5, 3])
    tensor(4)
    """
    return max(x, axis, keepdims) - min(x, axis, keepdims)


def argpartition(x: TensorLike, kth: int, axis: int = -1) -> Tensor:
    """Indices along `axis` with which the `kth` entry is where it would be if sorted, smaller ones before it.

    >>> ops.argpartition([30, 10, 20], kth=1)[1]  # the middle one
    tensor(2)
    """
    return torch.argsort(as_tensor(x), dim=axis, stable=True)


def count_nonzero(x: TensorLike, axis: Axes = None) -> Tensor:
    """How many entries are not 0.

    >>> ops.count_nonzero([[0, 1], [2, 3]], axis=1)
    tensor([1, 2])
    """
    return torch.count_nonzero(as_tensor(x), as_axes(axis))


def cumprod(x: TensorLike, axis: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """The running product along `axis`; of the flattened tensor if no axis is given.

    >>> ops.cumprod([1, 2, 3])
    tensor([1, 2, 6])
    """
    x = as_tensor(x)
    return torch.cumprod(torch.ravel(x) if axis is None else x, axis or 0, dtype=optional_dtype(dtype))


def quantile(x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False) -> Tensor:
    """The value below which a share `q` of the entries is; between two entries as `method` says.

    Args:
        x: the tensor.
        q: one share or several, in [0, 1]; several make up a new first axis.
        axis: the axis or axes.
        method: "linear", "lower", "higher", "midpoint" or "nearest".
        keepdims: whether the axes stay, with size 1.

    >>> ops.quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    tensor(2.5000)
    >>> ops.quantile([1.0, 2.0, 3.0, 4.0], 0.5, method="lower")
    tensor(2.)
    """
    return _quantile(torch.quantile, as_floating(x), q, axis, method, keepdims)


def nanquantile(
    x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` of the entries that are not NaN.

    >>> ops.nanquantile([1.0, float("nan"), 3.0], 0.5)
    tensor(2.)
    """
    return _quantile(torch.nanquantile, as_floating(x), q, axis, method, keepdims)


def percentile(
    x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` for shares out of 100.

    >>> ops.percentile([1.0, 2.0, 3.0], 50)
    tensor(2.)
    """
    return quantile(x, as_floating(q) / 100, axis, method, keepdims)


def nanpercentile(
    x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`nanquantile` for shares out of 100.

    >>> ops.nanpercentile([1.0, float("nan"), 3.0], 50)
    tensor(2.)
    """
    return nanquantile(x, as_floating(q) / 100, axis, method, keepdims)


def median(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The middle value, or the mean of the two.

    >>> ops.median([1.0, 9.0, 2.0, 4.0])
    tensor(3.)
    """
    return quantile(x, 0.5, axis, keepdims=keepdims)


def nanmedian(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """`median` of the entries that are not NaN.

    >>> ops.nanmedian([1.0, float("nan"), 3.0])
    tensor(2.)
    """
    return nanquantile(x, 0.5, axis, keepdims=keepdims)


def _quantile(
    function: Callable[..., Tensor], x: Tensor, q: TensorLike, axis: Axes, method: str, keepdims: bool
) -> Tensor:
    """A quantile over several axes, which torch takes over one: they are moved to the end and flattened."""
    axes = sorted(each % x.ndim for each in (range(x.ndim) if axis is None else as_axes(axis)))
    moved = torch.movedim(x, axes, list(range(-len(axes), 0)))
    flat = torch.flatten(moved, -len(axes)) if axes else moved[None]
    shares = as_floating(q).to(x.dtype)
    found = function(flat, shares, -1, interpolation=method)
    if keepdims:
        for each in axes:
            found = torch.unsqueeze(found, shares.ndim + each)
    return found


# Entries that are NaN are left out: they count as what changes nothing.


def _filled(x: TensorLike, instead: float) -> Tensor:
    x = as_floating(x)
    return torch.where(torch.isnan(x), instead, x)


def nansum(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The sum.

    >>> ops.nansum([1.0, float("nan"), 3.0])
    tensor(4.)
    """
    return sum(_filled(x, 0.0), axis, keepdims)


def nanmean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean.

    >>> ops.nanmean([1.0, float("nan"), 3.0])
    tensor(2.)
    """
    return torch.nanmean(as_floating(x), as_axes(axis), keepdims)


def nanvar(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The variance.

    >>> ops.nanvar([1.0, float("nan"), 3.0])
    tensor(1.)
    """
    x = as_floating(x)
    return torch.nanmean((x - torch.nanmean(x, as_axes(axis), True)) ** 2, as_axes(axis), keepdims)


def nanstd(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The standard deviation.

    >>> ops.nanstd([1.0, float("nan"), 5.0])
    tensor(2.)
    """
    return torch.sqrt(nanvar(x, axis, keepdims))


def nanprod(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The product; along one axis or, without `keepdims`, along all.

    >>> ops.nanprod([2.0, float("nan"), 3.0])
    tensor(6.)
    """
    filled = _filled(x, 1.0)
    return torch.prod(filled) if axis is None else torch.prod(filled, axis, keepdims)


def nanmax(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest entry; NaN where all are.

    >>> ops.nanmax([1.0, float("nan"), 3.0])
    tensor(3.)
    """
    return _nan_where_all_are(max(_filled(x, -torch.inf), axis, keepdims), x, axis, keepdims)


def nanmin(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest entry; NaN where all are.

    >>> ops.nanmin([1.0, float("nan"), 3.0])
    tensor(1.)
    """
    return _nan_where_all_are(min(_filled(x, torch.inf), axis, keepdims), x, axis, keepdims)


def _nan_where_all_are(found: Tensor, x: TensorLike, axis: Axes, keepdims: bool) -> Tensor:
    none = torch.all(torch.isnan(as_floating(x)), dim=as_axes(axis), keepdim=keepdims)
    return torch.where(none, torch.nan, found)


def nanargmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the largest entry; in the flattened tensor if no axis is given; -1 where all are NaN.

    >>> ops.nanargmax([1.0, float("nan"), 3.0])
    tensor(2)
    """
    return _nanarg(torch.argmax, x, -torch.inf, axis, keepdims)


def nanargmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the smallest entry; in the flattened tensor if no axis is given; -1 where all are NaN.

    >>> ops.nanargmin([1.0, float("nan"), 3.0])
    tensor(0)
    """
    return _nanarg(torch.argmin, x, torch.inf, axis, keepdims)


def _nanarg(function: Callable[..., Tensor], x: TensorLike, instead: float, axis: int | None, keepdims: bool) -> Tensor:
    none = torch.all(torch.isnan(as_floating(x)), dim=as_axes(axis), keepdim=keepdims)
    return torch.where(none, -1, function(_filled(x, instead), axis, keepdims))


def nancumsum(x: TensorLike, axis: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """The running sum along `axis`; of the flattened tensor if no axis is given.

    >>> ops.nancumsum([1.0, float("nan"), 3.0])
    tensor([1., 1., 4.])
    """
    return cumsum(_filled(x, 0.0), axis, dtype)


def nancumprod(x: TensorLike, axis: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """The running product along `axis`; of the flattened tensor if no axis is given.

    >>> ops.nancumprod([2.0, float("nan"), 3.0])
    tensor([2., 2., 6.])
    """
    return cumprod(_filled(x, 1.0), axis, dtype)


# Counts and places


def bincount(x: TensorLike, weights: TensorLike | None = None, minlength: int = 0, sparse: bool = False) -> Tensor:
    """How often each whole number from 0 on occurs, or the sum of the weights there; of each row if there are several.

    Raises:
        ValueError: `sparse` is True.

    Args:
        minlength: the least length of the result.

    >>> ops.bincount([0, 2, 2])
    tensor([1, 0, 2])
    """
    if sparse:
        raise ValueError("ops.bincount(sparse=True) is not supported: it returns a dense tensor.")
    x, given = as_tensor(x), None if weights is None else as_tensor(weights)
    if x.ndim == 1:
        return torch.bincount(x, given, minlength)
    length = builtins.max(minlength, int(x.max()) + 1)
    rows = torch.zeros((*x.shape[:-1], length), dtype=x.dtype if given is None else given.dtype)
    return rows.scatter_add(-1, x.to(torch.int64), torch.ones_like(x) if given is None else given)


def digitize(x: TensorLike, bins: TensorLike) -> Tensor:
    """The number of the bin that each entry falls into; `bins` are their edges, increasing.

    >>> ops.digitize([0.5, 1.0, 7.0], bins=[1.0, 5.0])
    tensor([0, 1, 2])
    """
    return torch.bucketize(as_tensor(x), as_tensor(bins), right=True)


def histogram(x: TensorLike, bins: int = 10, range: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
    """How many entries fall into each of so many equal bins, and the bins' edges. Not symbolically.

    Args:
        range: the least and the largest edge; those of `x` by default.

    >>> ops.histogram([1.0, 2.0, 2.5, 4.0], bins=3)
    (tensor([1., 2., 1.]), tensor([1., 2., 3., 4.]))
    """
    x = as_floating(x)
    low, high = (x.min().item(), x.max().item()) if range is None else range
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = torch.histogram(x.detach().cpu(), bins, range=(float(low), float(high)))
    return counts.to(x.device), edges.to(x.device)


def in_top_k(targets: TensorLike, predictions: TensorLike, k: int) -> Tensor:
    """Whether the prediction (batch, classes) for the target (batch) is among the `k` largest of its row.

    >>> ops.in_top_k([0, 1], [[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]], k=2)
    tensor([False,  True])
    """
    scores = as_tensor(predictions)
    of_targets = torch.take_along_dim(scores, as_tensor(targets).to(torch.int64)[:, None], -1)
    return torch.any(of_targets >= torch.topk(scores, k).values, dim=-1)


def searchsorted(sorted_sequence: TensorLike, values: TensorLike, side: str = "left") -> Tensor:
    """Where the values would have to be put in so that the sequence stays sorted.

    With `side` "right", behind equal entries, and not before them.

    >>> ops.searchsorted([1, 3, 5], [0, 3, 9])
    tensor([0, 1, 3])
    """
    return torch.searchsorted(as_tensor(sorted_sequence), as_tensor(values), side=side)


def unique(
    x: TensorLike,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: float | None = None,
) -> Any:
    """The different entries, or the different slices along `axis`. Not symbolically: how many is not known.

    Raises:
        ValueError: `return_index`, `size` or `fill_value` is given, which torch does not know.

    Args:
        sorted: whether they are in order.
        return_inverse, return_counts: whether to return also where each entry went, and how often each occurs.

    >>> ops.unique([3, 1, 3])
    tensor([1, 3])
    """
    if return_index or size is not None or fill_value is not None:
        raise ValueError("ops.unique() takes neither return_index nor size and fill_value here: torch.unique does not.")
    return torch.unique(as_tensor(x), sorted, return_inverse, return_counts, axis)


def corrcoef(x: TensorLike) -> Tensor:
    """The correlations of the rows of `x` (variables, observations) with each other.

    >>> ops.corrcoef([[1.0, 2.0, 3.0], [6.0, 4.0, 2.0]])
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    x = as_floating(x)
    centred = x - torch.mean(x, -1, keepdim=True)
    products = centred @ torch.swapaxes(centred, -1, -2)
    scale = torch.sqrt(torch.diagonal(products))
    return torch.clamp(products / scale[:, None] / scale[None], -1, 1)


def trapezoid(y: TensorLike, x: TensorLike | None = None, dx: float = 1.0, axis: int = -1) -> Tensor:
    """The integral along `axis` by the trapezoidal rule, of samples at the places `x` or at distances `dx`.

    >>> ops.trapezoid([0.0, 1.0, 2.0])
    tensor(2.)
    """
    y = as_floating(y)
    return torch.trapezoid(y, dx=dx, dim=axis) if x is None else torch.trapezoid(y, as_tensor(x), dim=axis)
