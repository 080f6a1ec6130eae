"""Layers that merge several tensors into one: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate, Dot.

Each also has a functional spelling: `layers.add([a, b])` is `layers.Add()([a, b])`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.arrays import as_tensor
from torchfunc.config import epsilon
from torchfunc.graph import located
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import check_output_shape
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.masks import Masks, check_mask
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.shapes import Shape, Shapes, is_shape

__all__ = [
    "Add",
    "Average",
    "Concatenate",
    "Dot",
    "Maximum",
    "Merge",
    "Minimum",
    "Multiply",
    "Subtract",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]


class Merge(Layer):
    """The base of layers on a list of tensors.

    Attributes:
        only: how many inputs the layer takes; None for any number.
    """

    supports_masking = True
    only: int | None = None

    def build(self, input_shape: Shapes) -> None:
        check_output_shape(self, input_shape)

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        shapes = None if input_shape is None or is_shape(input_shape) else list(input_shape)
        if not shapes:
            raise ValueError("a merge layer is called on a list of inputs, as in layer([a, b])")
        if self.only is not None and len(shapes) != self.only:
            raise ValueError(f"it takes exactly {self.only} inputs, got {len(shapes)}")
        return self._merged_shape([tuple(shape) for shape in shapes])

    def _merged_shape(self, shapes: list[Shape]) -> Shape:
        raise NotImplementedError(f"{type(self).__name__} does not say what shape it gives.")

    def _checked_masks(self, inputs: Any, mask: Masks) -> list[Any]:
        """One mask or None for each input."""
        if not isinstance(mask, (list, tuple)) or len(mask) != len(inputs):
            raise ValueError(
                located(
                    f"{self.describe()} takes a list of {len(inputs)} masks, one or None for each input, got {mask!r}."
                )
            )
        masks = [as_tensor(each) for each in mask]
        for tensor, own in zip(inputs, masks, strict=True):
            if own is not None:
                check_mask(own, tensor.shape[: own.ndim], "(the first axes of its input)", self.describe)
        return masks

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        if mask is None:
            return None
        masks = self._checked_masks(inputs, mask)
        if any(each is None for each in masks):
            return None
        return functools.reduce(torch.logical_or, _align(masks))


class _Operator(Merge):
    """A merge by an operator. Ranks may differ: the axes that are missing go in behind the batch axis."""

    operator: Callable[[Tensor, Tensor], Tensor]

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return functools.reduce(self.operator, _align(inputs))

    def _step_masks(self, inputs: Sequence[Tensor], mask: Masks) -> list[Masks] | None:
        """The masks with an axis for the features, None if there are none.

        As in Keras, an input that gets axes put in loses its own.
        """
        if mask is None:
            return None
        mask = self._checked_masks(inputs, mask)
        rank = max(x.ndim for x in inputs)
        masks = [None if m is None or x.ndim < rank else m.unsqueeze(-1) for x, m in zip(inputs, mask, strict=True)]
        return None if all(m is None for m in masks) else masks

    def _merged_shape(self, shapes: list[Shape]) -> Shape:
        batch_sizes = {shape[0] for shape in shapes if shape} - {None}
        if len(batch_sizes) > 1:
            raise ValueError(f"the batch sizes of {_listing(shapes)} differ (axis 0)")
        return (batch_sizes.pop() if batch_sizes else None, *functools.reduce(_broadcast, [s[1:] for s in shapes]))


class Add(_Operator):
    """The sum of the inputs. Shapes: any that broadcast, `(batch, ...)` each -> the broadcast shape.

    Raises:
        ValueError: the call is not on a list of inputs, or their shapes do not broadcast.

    >>> layers.Add()([torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])])
    tensor([[11., 22.]])
    """

    operator = staticmethod(torch.add)


class Subtract(_Operator):
    """The first of two inputs minus the second. Shapes: `(batch, ...)` each -> the broadcast shape.

    Raises:
        ValueError: the call is not on two inputs, or their shapes do not broadcast.

    >>> layers.Subtract()([torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])])
    tensor([[ -9., -18.]])
    """

    only = 2
    operator = staticmethod(torch.sub)


class Average(_Operator):
    """The mean of the inputs. Shapes: any that broadcast, `(batch, ...)` each -> the broadcast shape.

    Raises:
        ValueError: as for `Add`.

    >>> layers.Average()([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0]])])
    tensor([[2., 4.]])
    """

    operator = staticmethod(torch.add)

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return super().call(inputs) / len(inputs)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(super().compute_output_dtype(*input_dtypes), torch.get_default_dtype())


class Multiply(_Operator):
    """The product of the inputs. Shapes: any that broadcast, `(batch, ...)` each -> the broadcast shape.

    Steps that are masked in one input count as 1; steps that are masked in all inputs give 0.

    Raises:
        ValueError: as for `Add`.

    >>> layers.Multiply()([torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])])
    tensor([[10., 40.]])
    """

    operator = staticmethod(torch.mul)

    def call(self, inputs: Sequence[Tensor], mask: Masks = None) -> Tensor:
        masks = self._step_masks(inputs, mask)
        if masks is None:
            return super().call(inputs)
        masked = [x if m is None else torch.where(m, x, 1) for x, m in zip(_align(inputs), masks, strict=True)]
        output = super().call(masked)
        if any(m is None for m in masks):
            return output
        return torch.where(functools.reduce(torch.logical_or, masks), output, 0)


class _Extremum(_Operator):
    """A merge that leaves masked steps out: where only some inputs are masked, the others decide."""

    def call(self, inputs: Sequence[Tensor], mask: Masks = None) -> Tensor:
        masks = self._step_masks(inputs, mask)
        if masks is None:
            return super().call(inputs)
        (output, *others), (known, *masks) = _align(inputs), masks
        for x, own in zip(others, masks, strict=True):
            x = x if own is None else torch.where(own, x, output)
            output = self.operator(output if known is None else torch.where(known, output, x), x)
            known = None if own is None or known is None else torch.logical_or(known, own)
        return output


class Maximum(_Extremum):
    """The element-wise maximum. Shapes: any that broadcast, `(batch, ...)` each -> the broadcast shape.

    Raises:
        ValueError: as for `Add`.

    >>> layers.Maximum()([torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 2.0]])])
    tensor([[3., 5.]])
    """

    operator = staticmethod(torch.maximum)


class Minimum(_Extremum):
    """The element-wise minimum. Shapes: any that broadcast, `(batch, ...)` each -> the broadcast shape.

    Raises:
        ValueError: as for `Add`.

    >>> layers.Minimum()([torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 2.0]])])
    tensor([[1., 2.]])
    """

    operator = staticmethod(torch.minimum)


class Concatenate(Merge):
    """The inputs one behind the other. Shapes: equal but for `axis`, whose sizes add up.

    Args:
        axis: the axis, the batch axis counted.
        **kwargs: of `Layer`.

    Raises:
        ValueError: the call is not on a list of inputs, or their shapes differ in another axis.

    >>> layers.Concatenate()([torch.tensor([[1.0]]), torch.tensor([[2.0, 3.0]])])
    tensor([[1., 2., 3.]])
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(inputs), self.axis)

    def _merged_shape(self, shapes: list[Shape]) -> Shape:
        rank = len(shapes[0])
        if any(len(shape) != rank for shape in shapes):
            raise ValueError(f"the ranks of {_listing(shapes)} differ")
        if not -rank <= self.axis < rank:
            raise ValueError(f"axis={self.axis} is out of range for inputs with {rank} axes")
        concatenated = self.axis % rank
        for axis, sizes in enumerate(zip(*shapes, strict=True)):
            if axis != concatenated and len(set(sizes) - {None}) > 1:
                raise ValueError(
                    f"{_listing(shapes)} must be equal but for axis {concatenated}, and they differ in axis {axis}"
                )
        parts = [shape[concatenated] for shape in shapes]
        total = None if None in parts else sum(part for part in parts if part is not None)
        return (*shapes[0][:concatenated], total, *shapes[0][concatenated + 1 :])

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        if mask is None:
            return None
        mask = self._checked_masks(inputs, mask)
        given = [each for each in mask if each is not None]
        if not given:
            return None
        rank = inputs[0].ndim
        axis = self.axis % rank
        if all(each.ndim == rank - 1 for each in given):
            # A mask of positions is made from masks alone: that of a nested model's output must not need its layers.
            if axis == rank - 1:
                masks = [torch.ones_like(given[0]) if each is None else each for each in mask]
                return functools.reduce(torch.logical_or, masks)
            if len(given) == len(mask):
                return torch.cat(given, axis)
        masks = [_full_mask(as_tensor(x), each) for x, each in zip(inputs, mask, strict=True)]
        return torch.cat(masks, self.axis).any(-1)

    def get_config(self) -> Config:
        return {**super().get_config(), "axis": self.axis}


class Dot(Merge):
    """The dot product of two inputs over one axis of each, sample by sample.

    Shapes: `(batch, ..., size, ...)` twice -> `(batch, rest of the first, rest of the second)`, and `(batch, 1)` if
    nothing is left of either.

    Args:
        axes: the axis to sum over, or two of them, one for each input. Not the batch axis.
        normalize: whether to scale each input to length 1 along its axis first: the cosine of the angle.
        **kwargs: of `Layer`.

    Raises:
        TypeError, ValueError: `axes` are no integers, or name no axes of the same size.

    >>> layers.Dot(axes=1)([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])])
    tensor([[11.]])
    """

    only = 2

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(axes, (int, list, tuple)):
            raise TypeError(f"Dot takes an integer or two of them for axes, got {axes!r}.")
        pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
        if len(pair) != 2 or not all(isinstance(axis, int) for axis in pair):
            raise ValueError(f"Dot takes an integer or two of them for axes, got {axes!r}.")
        self.axes = axes
        self.normalize = normalize
        self._pair = pair

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        first, second = inputs
        a, b = self._pair[0] % first.ndim, self._pair[1] % second.ndim
        if self.normalize:
            first, second = F.normalize(first, dim=a, eps=epsilon()), F.normalize(second, dim=b, eps=epsilon())
        # Axes by number, for einsum: 0 is the batch, 1 the axis that is summed over.
        left = [0, *range(2, first.ndim)]
        right = [0, *range(first.ndim, first.ndim + second.ndim - 2)]
        summed = [left[:a] + [1] + left[a:], right[:b] + [1] + right[b:]]
        output = torch.einsum(first, summed[0], second, summed[1], left + right[1:])
        return output.unsqueeze(1) if output.ndim == 1 else output

    def _merged_shape(self, shapes: list[Shape]) -> Shape:
        rests = []
        for shape, axis in zip(shapes, self._pair, strict=True):
            if len(shape) < 2 or not -len(shape) <= axis < len(shape) or axis % len(shape) == 0:
                raise ValueError(
                    f"axes={self.axes} names no axis of shape {shape} to sum over; the batch axis (0) cannot be one"
                )
            rests.append(tuple(size for index, size in enumerate(shape) if index not in (0, axis % len(shape))))
        sizes = [shape[axis] for shape, axis in zip(shapes, self._pair, strict=True)]
        if None not in sizes and sizes[0] != sizes[1]:
            raise ValueError(
                f"{_listing(shapes)} differ in what is summed over: size {sizes[0]} (axis {self._pair[0]}) "
                f"and size {sizes[1]} (axis {self._pair[1]})"
            )
        return (shapes[0][0], *(rests[0] + rests[1] or (1,)))

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        return None

    def get_config(self) -> Config:
        return {**super().get_config(), "axes": self.axes, "normalize": self.normalize}


def _listing(shapes: Sequence[Shape]) -> str:
    return " and ".join(map(str, shapes))


def _broadcast(first: Shape, second: Shape) -> Shape:
    """The shape two shapes broadcast to; a size that may still turn out to be 1 stays unknown, as in Keras."""
    first, second = sorted((first, second), key=len, reverse=True)
    extra = len(first) - len(second)
    sizes: list[int | None] = list(first[:extra])
    for axis, (a, b) in enumerate(zip(first[extra:], second, strict=True), extra + 1):
        if a is not None and b is not None and a != b and 1 not in (a, b):
            raise ValueError(
                f"the sizes of axis {axis} do not broadcast: {a} and {b} (batch, then {first} and {second}). Make them "
                "equal, by a Dense layer or a 1x1 convolution on one side, or one of them 1"
            )
        sizes.append(None if a is None or b is None else b if a == 1 else a)
    return tuple(sizes)


def _align(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors with axes of size 1 behind the batch axis, so that all have the largest rank."""
    rank = max(tensor.ndim for tensor in tensors)
    if all(tensor.ndim == rank for tensor in tensors):
        return list(tensors)
    return [tensor[(slice(None), *[None] * (rank - tensor.ndim))] for tensor in tensors]


def _full_mask(inputs: Tensor, mask: Tensor | None) -> Tensor:
    """The mask in the shape of its input; all True for an input without one."""
    if mask is None:
        return torch.ones_like(inputs, dtype=torch.bool)
    if mask.ndim == inputs.ndim:
        return mask
    # In operations that Keras has, for configs.
    return torch.logical_or(mask.unsqueeze(-1), torch.zeros_like(inputs, dtype=torch.bool))


def add(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Add(**kwargs)(inputs)`.

    >>> layers.add([Input((3,)), Input((3,))]).shape
    (None, 3)
    """
    return Add(**kwargs)(inputs)


def subtract(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Subtract(**kwargs)(inputs)`.

    >>> layers.subtract([torch.tensor([[5.0]]), torch.tensor([[3.0]])])
    tensor([[2.]])
    """
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Multiply(**kwargs)(inputs)`.

    >>> layers.multiply([torch.tensor([[5.0]]), torch.tensor([[3.0]])])
    tensor([[15.]])
    """
    return Multiply(**kwargs)(inputs)


def average(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Average(**kwargs)(inputs)`.

    >>> layers.average([torch.tensor([[5.0]]), torch.tensor([[3.0]])])
    tensor([[4.]])
    """
    return Average(**kwargs)(inputs)


def maximum(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Maximum(**kwargs)(inputs)`.

    >>> layers.maximum([torch.tensor([[5.0]]), torch.tensor([[3.0]])])
    tensor([[5.]])
    """
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Minimum(**kwargs)(inputs)`.

    >>> layers.minimum([torch.tensor([[5.0]]), torch.tensor([[3.0]])])
    tensor([[3.]])
    """
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Sequence[Any], axis: int = -1, **kwargs: Any) -> Any:
    """`Concatenate(axis, **kwargs)(inputs)`.

    >>> layers.concatenate([Input((3,)), Input((4,))]).shape
    (None, 7)
    """
    return Concatenate(axis, **kwargs)(inputs)


def dot(inputs: Sequence[Any], axes: int | Sequence[int] = -1, normalize: bool = False, **kwargs: Any) -> Any:
    """`Dot(axes, normalize, **kwargs)(inputs)`.

    >>> layers.dot([Input((3,)), Input((3,))], axes=1).shape
    (None, 1)
    """
    return Dot(axes, normalize, **kwargs)(inputs)
