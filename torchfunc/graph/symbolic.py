"""SymbolicTensor and SymbolicInt: values of a graph that is being drawn; whatever is called on them is recorded."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from torch.overrides import is_tensor_method_or_property, resolve_name
from torch.utils._pytree import KeyPath, tree_leaves

from torchfunc.assignable import VARIABLE_NAMES
from torchfunc.dtypes import dtype_name
from torchfunc.errors import MissingAttribute
from torchfunc.frames import frame_to_array, is_frame
from torchfunc.graph.example_sizes import example_shapes
from torchfunc.graph.in_place import refuse_in_place
from torchfunc.graph.inference import infer_call
from torchfunc.graph.node import (
    Args,
    Kwargs,
    Node,
    Opaque,
    Outputs,
    ReturnedMask,
    Spec,
    Specs,
    SymbolicValue,
    symbolic_leaves,
)
from torchfunc.graph.source import Source, format_source, located
from torchfunc.graph.torch_internals import is_all_true, is_of_torch
from torchfunc.graph.tracing import pass_over
from torchfunc.readable_arrays import readable
from torchfunc.structures import Structure, map_structure

__all__ = [
    "SymbolicInt",
    "SymbolicTensor",
    "contains_symbolic",
    "only_real",
    "record",
    "record_function",
    "record_input",
    "record_method",
    "symbolic_tensors",
    "with_constants",
]


def record(op: str, target: Any, args: Args, kwargs: Kwargs, specs: Specs, source: Source | None = None) -> Node:
    """Add one call whose outputs are known to be `specs` (a structure of `Spec`s and constants) to the graph."""
    return Node(op, target, args, kwargs, specs, _make_value, source)


def record_input(target: Any, shape: tuple[int | None, ...], dtype: torch.dtype) -> Node:
    """Add an input of this shape, None standing for unknown sizes, to the graph.

    Args:
        target: the layer that declares it, or what to call one that only stands in for a tensor.
        shape: the sizes, the batch axis included.
        dtype: the dtype.
    """
    return record("input", target, (), {}, Spec(shape, dtype, example_shapes(shape)))


def _make_value(spec: Spec, node: Node, path: KeyPath) -> SymbolicValue:
    return (SymbolicInt if spec.shape is None else SymbolicTensor)(spec, node, path)


def record_function(function: Callable[..., Any], args: Args, kwargs: Kwargs) -> Outputs:
    """Record a call of a torch function or an operator and return its symbolic outputs."""
    if function is is_all_true:
        # A check of values, of which there are none yet.
        return True
    if is_tensor_method_or_property(function):
        return record_method(function.__name__, args, kwargs)
    name = resolve_name(function) or getattr(function, "__name__", repr(function))
    if function is not getattr(operator, function.__name__, None):
        # Of Python's operators only `and_` and `or_` end like an in-place function.
        refuse_in_place(name, kwargs)
    return _record_call("function", function, args, kwargs, name)


def record_method(name: str, args: Args, kwargs: Kwargs) -> Outputs:
    """Record a call of the tensor method `name` on `args[0]` and return its symbolic outputs."""
    refuse_in_place(f"Tensor.{name}", kwargs)
    if name in ("reshape", "view"):
        args = _with_unknown_sizes(args)
    return _record_call("method", name, args, kwargs, f"Tensor.{name}")


def _with_unknown_sizes(args: Args) -> Args:
    """The arguments of `x.reshape(x.shape[0], -1)`: None at place i can only mean the unknown size of axis i."""
    tensor, *sizes = args
    grouped = len(sizes) == 1 and isinstance(sizes[0], (tuple, list))
    given = sizes[0] if grouped else sizes
    if not isinstance(tensor, SymbolicTensor) or not any(size is None for size in given):
        return args
    found = []
    for axis, size in enumerate(given):
        if size is None and (axis >= tensor.ndim or tensor.shape[axis] is not None):
            raise ValueError(
                located(
                    f"None among the sizes {tuple(given)} stands for the unknown size of an axis of {tensor!r}, but "
                    f"not of axis {axis}. Write x.size(i) for the size of axis i, such as x.reshape(x.size(0), -1)."
                )
            )
        found.append(tensor.size(axis) if size is None else size)
    return (tensor, tuple(found)) if grouped else (tensor, *found)


def _record_call(op: str, target: Any, args: Args, kwargs: Kwargs, label: str) -> Outputs:
    args, kwargs = with_constants(args, kwargs)
    specs = infer_call(target, args, kwargs, label)
    # A question about the tensor, not a computation on it (`x.dim()`): the answer is known now.
    return record(op, target, args, kwargs, specs).outputs if _has_spec(specs) else specs


def _has_spec(specs: Specs) -> bool:
    return isinstance(specs, Spec) or any(isinstance(leaf, Spec) for leaf in tree_leaves(specs))


def with_constants(args: Args, kwargs: Kwargs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arrays among the arguments become tensors; a tensor that would silently stop training is refused."""
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = map_structure(_constant, (tuple(args), dict(kwargs)))
    return arguments


def _constant(leaf: Any) -> Any:
    if is_frame(leaf):
        leaf = frame_to_array(leaf, "an argument")
    if isinstance(leaf, np.ndarray):
        leaf = torch.from_numpy(readable(leaf))
        return leaf.to(torch.get_default_dtype()) if leaf.dtype == torch.float64 else leaf
    if isinstance(leaf, Opaque):
        raise ValueError(leaf.refusal)
    if isinstance(leaf, torch.Tensor) and leaf.requires_grad and not leaf.is_leaf:
        raise ValueError(
            f"A tensor of shape {tuple(leaf.shape)} computed from a parameter would enter the graph as a constant and "
            "no longer follow the parameter. Pass the parameter itself and compute with it inside the graph, for "
            "example F.linear(x, layer.weight), or do the computation in a Layer."
        )
    return leaf


# What `==` and `!=` compare element by element; anything else is unequal to a symbolic value.
_COMPARABLE = (bool, int, float, complex, np.ndarray, np.generic, torch.Tensor)


class _Recorded(SymbolicValue):
    """The operators: each is recorded as the call it is."""

    __slots__ = ()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        return record_function(func, args, kwargs or {})

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # NumPy asks this before an array's own operator gives up: `array * x` is ours, `np.sin(x)` is a mistake.
        function = _UFUNC_OPERATORS.get(ufunc.__name__)
        if function is None or method != "__call__" or kwargs:
            self._no_value(f"np.{ufunc.__name__}(...)", f"torch.{ufunc.__name__}")
        return record_function(function, inputs, {})

    def _no_value(self, what: str, instead: str) -> NoReturn:
        raise TypeError(
            f"{what} needs a value, but {self!r} is symbolic: it stands for a value that exists only when the model "
            f"runs. Use {instead}, or do this inside a Layer's call(), where tensors are real."
        )

    def __eq__(self, other: object) -> Any:
        """Element by element against numbers, arrays and real tensors; identity between symbolic values."""
        if isinstance(other, SymbolicValue):
            # torch.distributions ask `x == x` to see whether there are NaNs.
            same = self is other
            return (
                record_function(torch.eq, (self, other), {}) if same and is_of_torch(sys._getframe(1).f_code) else same
            )
        if not isinstance(other, _COMPARABLE):
            return NotImplemented
        return record_function(torch.eq if isinstance(self, SymbolicTensor) else operator.eq, (self, other), {})

    def __ne__(self, other: object) -> Any:
        """Element by element, also between symbolic values."""
        if not isinstance(other, (SymbolicValue, *_COMPARABLE)):
            return NotImplemented
        return record_function(torch.ne if isinstance(self, SymbolicTensor) else operator.ne, (self, other), {})

    __hash__ = SymbolicValue.__hash__

    def __bool__(self) -> bool:
        self._no_value("`if`, `and`, `while` or bool()", "torch.where for a choice by value")

    def __float__(self) -> float:
        self._no_value("float()", "the tensor itself in the computation")

    def __int__(self) -> int:
        self._no_value("int()", "the value itself in the computation (`.to(torch.int64)` casts)")

    def __index__(self) -> int:
        self._no_value("range() or an index into a Python list", "torch.arange or tensor indexing")

    def __contains__(self, item: object) -> bool:
        self._no_value("`in`", "torch.eq(x, value).any()")


_UFUNC_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "power": operator.pow,
    "matmul": operator.matmul,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor")
_BINARY_PLAIN = ("lshift", "rshift")
_COMPARISONS = ("lt", "le", "gt", "ge")
_UNARY = ("neg", "pos", "invert", "abs")


def _operator_method(function: Callable[..., Any], reflected: bool = False) -> Callable[..., Any]:
    def forward(self: Any, *others: Any) -> Outputs:
        return record_function(function, (self, *others), {})

    def backward(self: Any, other: Any) -> Outputs:
        return record_function(function, (other, self), {})

    return backward if reflected else forward


for _name in _BINARY + _BINARY_PLAIN + _COMPARISONS + _UNARY:
    _function, _bare = getattr(operator, _name), _name.rstrip("_")
    setattr(_Recorded, f"__{_bare}__", _operator_method(_function))
    if _name in _BINARY + _BINARY_PLAIN:
        setattr(_Recorded, f"__r{_bare}__", _operator_method(_function, reflected=True))
# What torch calls `__rtruediv__`.
setattr(_Recorded, "__rdiv__", _operator_method(operator.truediv, reflected=True))  # noqa: B010


class SymbolicInt(_Recorded):
    """An unknown size of a symbolic tensor, or a number computed from one: `x.view(x.size(0), -1) / x.size(1) ** 0.5`.

    Torch takes it wherever a symbolic tensor or a tuple of sizes is among the arguments. Where neither is, give the
    sizes as one tuple: `torch.zeros((x.size(0), 3))`, `parameter.expand((x.size(0), -1))`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<SymbolicInt of {self.node.target!r}>"


class SymbolicTensor(_Recorded):
    """A tensor of a graph that is being drawn.

    Operators, indexing, `torch.Tensor` methods and properties, and every function that honours
    `__torch_function__` record a node and return new symbolic tensors. `==` between two of them, and `hash`, are
    identity; `==` with numbers, arrays and real tensors, `!=`, `torch.eq` and `torch.ne` are element-wise.

    Attributes:
        shape: the sizes, None where unknown (the batch axis, usually). `.size(i)` gives an int, or a `SymbolicInt`
            that can be used in `view`, `reshape`, `expand`, `arange` and arithmetic.
        dtype: the `torch.dtype`.
        name: the name of the input or layer that made it.
        node: the recorded call that made it.
        mask: the symbolic boolean tensor that says which steps count, or None.

    >>> x = Input((4,), name="x")
    >>> (2 * x + 1).shape
    (None, 4)
    >>> x[:, :2].shape, torch.cat([x, x], dim=-1).shape
    ((None, 2), (None, 8))
    >>> bool(x)
    Traceback (most recent call last):
        ...
    TypeError: `if`, `and`, `while` or bool() needs a value, but ...
    """

    __slots__ = ()

    @property
    def mask(self) -> SymbolicTensor | None:
        # (A mask that was given may also be a tensor.)
        found: Any = self.node.masks.get(self.path)
        if isinstance(found, ReturnedMask):
            found = self.node.mask_value(found)
        return found

    @mask.setter
    def mask(self, mask: SymbolicTensor | None) -> None:
        if mask is None:
            self.node.masks.pop(self.path, None)
        else:
            # (A node does not hold what it makes, which refers to it.)
            is_own = isinstance(mask, SymbolicTensor) and mask.node is self.node
            own = mask.returned_mask if is_own else None
            self.node.masks[self.path] = own or mask

    # As real tensors have it.
    _keras_mask = mask

    @property
    def shape(self) -> tuple[int | None, ...]:
        assert self.spec.shape is not None
        return self.spec.shape

    @property
    def dtype(self) -> torch.dtype:
        assert self.spec.dtype is not None
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def name(self) -> str:
        target = self.node.target
        return target if isinstance(target, str) else getattr(target, "name", None) or _label(target)

    def size(self, dim: int | None = None) -> Any:
        """The sizes as a tuple, or one of them: an int where known, a `SymbolicInt` where not."""
        if dim is None:
            return tuple(self.size(axis) for axis in range(self.ndim))
        known = self.shape[dim]
        return known if known is not None else record_method("size", (self, dim), {})

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numpy(self) -> NoReturn:
        self._no_value(".numpy()", "a new Model with this tensor as output, and its predict()")

    def item(self) -> NoReturn:
        self._no_value(".item()", "the tensor itself")

    def tolist(self) -> NoReturn:
        self._no_value(".tolist()", "the tensor itself")

    def backward(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._no_value("backward()", "model.compile() and fit(), or backward() on the loss of what the model returns")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._no_value("A NumPy function", "the torch function of that name")

    def __len__(self) -> int:
        if self.ndim == 0 or self.shape[0] is None:
            self._no_value("len() of an unknown size", "x.size(0)")
        return self.shape[0]

    def __iter__(self) -> Iterator[SymbolicTensor]:
        if self.ndim == 0 or self.shape[0] is None:
            self._no_value("Iterating over an unknown size", "indexing such as x[:, i] or torch.unbind on a known axis")
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Outputs:
        return record_function(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse_in_place("Tensor.__setitem__", {})

    def __getattr__(self, name: str) -> Any:
        if name == "device":
            raise AttributeError(
                f"{self!r} is symbolic and on no device. Make tensors beside it with x.new_zeros(...), "
                "torch.zeros_like(x) and their kin, or inside a Layer's call()."
            )
        attribute = None if name.startswith("__") or name in VARIABLE_NAMES else getattr(torch.Tensor, name, None)
        if attribute is None:
            raise MissingAttribute(
                f"A symbolic tensor has no attribute {name!r}; neither has torch.Tensor.", name, _attributes
            )
        if not callable(attribute):
            return record_function(getattr, (self, name), {})

        def method(*args: Any, **kwargs: Any) -> Any:
            return record_method(name, (self, *args), kwargs)

        method.__name__ = name
        method.__doc__ = attribute.__doc__
        return method

    def __repr__(self) -> str:
        return f"<SymbolicTensor shape={self.shape}, dtype={dtype_name(self.dtype)}, name={self.name}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What a notebook shows: beside the usual, the line that made it."""
        made_at = format_source(self.node.source)
        return {"text/plain": f"{self!r}\n  made at {made_at}" if made_at else repr(self)}


def _attributes() -> list[str]:
    return [*dir(SymbolicTensor), *dir(torch.Tensor)]


def symbolic_tensors(structure: Structure) -> list[SymbolicTensor]:
    """The symbolic tensors in nested lists, tuples, dicts and slices, left to right; symbolic integers left out."""
    return [value for value in symbolic_leaves(structure) if isinstance(value, SymbolicTensor)]


def _label(target: Any) -> str:
    return getattr(target, "__name__", None) or type(target).__name__


@pass_over
def contains_symbolic(args: Iterable[Any], kwargs: Kwargs) -> bool:
    """Whether any argument is or holds a symbolic value; quick to say no for plain tensors."""
    # (torch.compile of torch 2.11 cannot ask a dict for its truth, but for its length.)
    return _any_symbolic(args) or (len(kwargs) > 0 and _any_symbolic(kwargs.values()))


@pass_over
def _any_symbolic(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, SymbolicValue):
            return True
        if isinstance(value, (list, tuple)) and _any_symbolic(value):
            return True
        if isinstance(value, dict) and _any_symbolic(value.values()):
            return True
    return False


@pass_over
def only_real(values: Iterable[Any]) -> bool:
    """Whether all these are real tensors or plain Python values, or lists, tuples and dicts of them."""
    for value in values:
        if isinstance(value, (torch.Tensor, bool, int, float, str)) or value is None:
            continue
        if isinstance(value, (list, tuple)) and only_real(value):
            continue
        if isinstance(value, dict) and only_real(value.values()):
            continue
        return False
    return True
