"""Loops, branches and functions of functions. On symbolic tensors: what can be a part of a graph, and an error else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from torchfunc.graph import SymbolicValue, symbolic_leaves
from torchfunc.ops.tensors import as_tensor
from torchfunc.structures import Structure, leaves, map_structure

__all__ = [
    *(
        "cond",
        "custom_gradient",
        "fori_loop",
        "jvp",
        "map",
        "scan",
        "switch",
        "vectorize",
        "vectorized_map",
        "while_loop",
    ),
]

_map = map


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """What `true_fn()` returns if `pred` holds, else what `false_fn()` does.

    Of a symbolic condition, or one within torch.compile, both are called, and torch.where chooses.

    >>> ops.cond(3 > 2, lambda: "greater", lambda: "smaller")
    'greater'
    """
    chosen_later = isinstance(pred, SymbolicValue) or (isinstance(pred, Tensor) and torch.compiler.is_compiling())
    if not chosen_later:
        return true_fn() if pred else false_fn()
    return map_structure(lambda one, other: torch.where(pred, one, other), true_fn(), false_fn())


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """What the branch of this number returns; the first or last for a number that there is none of.

    `operands` are handed to the branch.

    Raises:
        ValueError: `index` is symbolic.

    >>> ops.switch(1, [lambda x: x + 1, lambda x: 10 * x], 5)
    50
    """
    _refuse_symbolic("ops.switch()", index)
    return branches[min(max(int(index), 0), len(branches) - 1)](*operands)


def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: int | None = None
) -> Any:
    """`loop_vars = body(*loop_vars)` again and again, while `cond(*loop_vars)` holds.

    Args:
        maximum_iterations: after how many rounds to stop; None for no limit.

    Raises:
        ValueError: `loop_vars` are symbolic.

    >>> ops.while_loop(lambda n: n < 100, lambda n: 2 * n, 3)
    192
    """
    _refuse_symbolic("ops.while_loop()", loop_vars)
    single = not isinstance(loop_vars, (tuple, list))
    values = (loop_vars,) if single else tuple(loop_vars)
    done = 0
    while (maximum_iterations is None or done < maximum_iterations) and cond(*values):
        found = body(*values)
        values = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        done += 1
    return values[0] if single else values


def fori_loop(lower: int, upper: int, body_fun: Callable[[int, Any], Any], init_val: Any) -> Any:
    """`value = body_fun(i, value)` for each `i` from `lower` up to and without `upper`.

    >>> ops.fori_loop(0, 5, lambda i, total: total + i, 0)
    10
    """
    value = init_val
    for index in range(int(lower), int(upper)):
        value = body_fun(index, value)
    return value


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Structure = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """`carry, y = f(carry, x)` for each slice `x` of `xs` along the first axis.

    Args:
        f: what is called.
        init: the first `carry`.
        xs: a tensor or a structure of some; None for `length` calls with None.
        length: how many calls.
        reverse: whether to begin at the end.
        unroll: accepted for compatibility with Keras, without effect.

    Returns:
        The last carry, and the `y` stacked along a new first axis.

    Raises:
        ValueError: neither `xs` nor `length` is given, or the number of slices is not known.

    >>> ops.scan(lambda total, x: (total + x, 10 * total), torch.tensor(0), torch.tensor([1, 2, 3]))
    (tensor(6), tensor([ 0, 10, 30]))
    """
    count = length if xs is None else len(as_tensor(leaves(xs)[0]))
    if count is None:
        raise ValueError("ops.scan() needs xs or length.")
    carry, found = init, []
    for index in reversed(range(count)) if reverse else range(count):
        carry, y = f(carry, map_structure(lambda x, at=index: x[at], xs) if xs is not None else None)
        found.append(y)
    return carry, _stacked(found[::-1] if reverse else found)


def map(f: Callable[[Any], Any], xs: Structure) -> Any:
    """`f` of each slice of `xs` along the first axis, stacked.

    >>> ops.map(lambda row: row.sum(), torch.tensor([[1, 2], [3, 4]]))
    tensor([3, 7])
    """
    count = len(as_tensor(leaves(xs)[0]))
    return _stacked([f(map_structure(lambda x, at=index: x[at], xs)) for index in range(count)])


def vectorized_map(function: Callable[[Any], Any], elements: Structure) -> Any:
    """`function` of each slice of `elements` along the first axis, all at once (by torch.vmap).

    >>> ops.vectorized_map(lambda row: row.sum(), torch.tensor([[1, 2], [3, 4]]))
    tensor([3, 7])
    """
    _refuse_symbolic("ops.vectorized_map()", elements)
    return torch.vmap(function)(tree_map(as_tensor, elements))


def vectorize(
    pyfunc: Callable[..., Any], *, excluded: object = None, signature: str | None = None
) -> Callable[..., Any]:
    """`pyfunc` of numbers as a function of tensors, entry by entry (by torch.vmap).

    Raises:
        ValueError: `excluded` or `signature` is given.

    >>> clipped = ops.vectorize(lambda x, y: torch.minimum(x, y))
    >>> clipped([1, 5], 3)
    tensor([1, 3])
    """
    if excluded is not None or signature is not None:
        raise ValueError("ops.vectorize() takes neither excluded nor signature here. Use torch.vmap.")

    def vectorized(*args: Any) -> Any:
        tensors = torch.broadcast_tensors(*_map(as_tensor, args))
        found = torch.vmap(pyfunc)(*(tensor.reshape(-1) for tensor in tensors))
        return tree_map(lambda each: each.reshape(tensors[0].shape), found)

    return vectorized


def jvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
    """`fun(*primals)`, and how it changes as its arguments change by `tangents`.

    With `has_aux`, `fun` returns a second value that is handed on as it is.

    >>> ops.linalg.jvp(lambda x: x**2, [3.0], [1.0])
    (tensor(9.), tensor(6.))
    """
    given = tuple(_map(as_tensor, primals)), tuple(_map(as_tensor, tangents))
    return torch.func.jvp(fun, *given, has_aux=has_aux)


def custom_gradient(f: Callable[..., tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
    """A function with its own gradient: `f(*args)` returns the result and a function `grad(*upstream)`.

    >>> @ops.custom_gradient
    ... def clipped_gradient(x):
    ...     return 100 * x, lambda upstream: upstream.clamp(-1, 1)
    >>> x = torch.tensor(2.0, requires_grad=True)
    >>> clipped_gradient(x).backward()
    >>> x.grad
    tensor(1.)
    """

    def call(*args: Any) -> Any:
        return _OwnGradient.apply(f, *args)

    return call


class _OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Callable[..., tuple[Any, Callable[..., Any]]], *args: Any) -> Any:
        result, ctx.gradient = f(*args)
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        found = ctx.gradient(*upstream)
        return None, *(found if isinstance(found, (tuple, list)) else (found,))


def _stacked(found: Sequence[Any]) -> Any:
    if not found or found[0] is None:
        return None
    return map_structure(lambda *each: torch.stack([as_tensor(one) for one in each]), *found)


def _refuse_symbolic(what: str, values: Structure) -> None:
    if symbolic_leaves(values):
        raise ValueError(f"{what} needs values, and a symbolic tensor has none: call it in a Layer's call().")
