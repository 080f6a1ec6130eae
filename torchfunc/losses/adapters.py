"""Whatever `compile()` is given as a loss, as a `Loss`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchfunc.batch_parts import BatchPart
from torchfunc.losses.base import Loss, LossFunctionWrapper
from torchfunc.losses.catalogue import CLASS_OF_FUNCTION, get
from torchfunc.losses.probabilistic import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
from torchfunc.losses.shapes import same_shape, target_kind
from torchfunc.losses.weighting import divide_no_nan
from torchfunc.registry import to_snake_case

__all__ = ["TorchLoss", "as_loss", "is_torch_loss", "object_name", "parse_loss"]

_CROSSENTROPIES: dict[str, type[Loss]] = {
    "binary": BinaryCrossentropy,
    "sparse": SparseCategoricalCrossentropy,
    "categorical": CategoricalCrossentropy,
}
_OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss, F.cross_entropy, F.nll_loss, F.multi_margin_loss)
_OF_ELEMENTS = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.PoissonNLLLoss),
    *(nn.KLDivLoss, nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss, nn.HingeEmbeddingLoss),
    *(F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy, F.poisson_nll_loss, F.kl_div),
    *(F.binary_cross_entropy_with_logits, F.soft_margin_loss, F.multilabel_soft_margin_loss, F.hinge_embedding_loss),
)

_OF_LABELS = (
    *(nn.BCELoss, nn.BCEWithLogitsLoss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits),
    *(nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss),
)


def object_name(obj: Any) -> str:
    """The name that an object goes by in logs: its own, its function's, or its class's in snake case.

    >>> losses.object_name(losses.mean_squared_error), losses.object_name(torch.nn.MSELoss())
    ('mean_squared_error', 'mse_loss')
    """
    name = getattr(obj, "name", None)
    if isinstance(name, str):
        return name
    return to_snake_case(getattr(obj, "__name__", None) or type(obj).__name__)


def is_torch_loss(loss: Any) -> bool:
    """Whether this is torch's kind of loss, called `(predictions, targets)`: a module, or one of `F.*`.

    >>> losses.is_torch_loss(torch.nn.MSELoss()), losses.is_torch_loss(losses.Huber())
    (True, False)
    """
    function = loss.func if isinstance(loss, functools.partial) else loss
    return isinstance(loss, nn.Module) or getattr(function, "__module__", None) == F.__name__


class TorchLoss(Loss):
    """A torch loss, `nn.CrossEntropyLoss()` or `F.mse_loss`, in a `Loss`'s place.

    It is called as torch calls it, `(predictions, targets)`, and follows torch: classes are on axis 1, nothing is
    cast to another precision, and masks count only where it returns one loss a sample (`reduction="none"`). Class
    indices may be floats, and have an axis of size 1; `(batch,)` and `(batch, 1)` are taken for one another.

    Args:
        loss: the module or function. It does not become part of the model.
        name: as for `Loss`.

    >>> loss = losses.TorchLoss(torch.nn.CrossEntropyLoss())
    >>> loss([1, 0], torch.zeros(2, 2))
    tensor(0.6931)
    """

    _per_sample_advice = 'Create it with reduction="none"; the mean is then taken here.'

    def __init__(self, loss: Callable[..., Tensor], name: str | None = None) -> None:
        super().__init__(name=name or object_name(loss))
        self.loss = loss
        function = loss.func if isinstance(loss, functools.partial) else loss
        self._of_classes = _is_one_of(function, _OF_CLASSES)
        self._of_elements = _is_one_of(function, _OF_ELEMENTS)
        self.target_form = "labels" if _is_one_of(function, _OF_LABELS) else None

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.loss(y_pred, y_true)

    def to(self, device: torch.device | str) -> Loss:
        """Move the module's buffers (class weights ...) to `device`."""
        if isinstance(self.loss, nn.Module):
            self.loss.to(device)
        return self

    def get_config(self) -> dict[str, Any]:
        """Raises ValueError: a torch module has no config."""
        raise ValueError(
            f"The loss {self.name!r} is a torch module or function, which cannot be written to a config. "
            "Use one of torchfunc.losses, or compile the loaded model again."
        )

    def _prepare(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        if self._of_elements:
            return same_shape(self.name, y_true, y_pred)
        if self._of_classes and y_true.shape != y_pred.shape:
            return self._class_indices(y_true, y_pred), y_pred
        return (y_true.to(y_pred.dtype) if y_true.is_floating_point() or self._of_classes else y_true), y_pred

    @property
    def _counts_rows(self) -> bool:
        return False

    def _values_of_part(self, y_true: Tensor, y_pred: Tensor, part: BatchPart) -> Tensor:
        reduction = getattr(self.loss, "reduction", None)
        counted = self._weight_of_classes(y_true) if reduction == "mean" else None
        if counted is None:
            values = self._values(y_true, y_pred)
            return values * part.ratio if reduction == "sum" else values
        summing = copy.copy(self.loss)
        summing.reduction = "sum"  # type: ignore[attr-defined]
        return divide_no_nan(summing(y_pred, y_true) * part.ratio, part.sum(counted))

    def _weight_of_classes(self, y_true: Tensor) -> Tensor | None:
        """What torch divides a sum of losses by, where that is not their number: the weights of the classes."""
        loss = self.loss
        if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) or y_true.is_floating_point():
            return None
        counts = y_true != loss.ignore_index
        if loss.weight is None:
            return counts.sum().float()
        return (loss.weight[y_true.clamp(0, len(loss.weight) - 1)] * counts).sum()

    def _class_indices(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        given = tuple(y_true.shape)
        if y_true.ndim == y_pred.ndim:
            y_true = y_true.squeeze(1) if y_true.shape[1:2] == (1,) else y_true
            y_true = y_true.squeeze(-1) if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
        expected = y_pred.shape[:1] + y_pred.shape[2:] if y_pred.ndim > 1 else ()
        if y_true.shape != expected:
            raise ValueError(
                f"{self.name}: y_pred has shape {tuple(y_pred.shape)}, y_true {given}. This torch loss takes the "
                f"classes on axis 1 of y_pred and one class index for each prediction, shape {tuple(expected)}. For "
                "classes on the last axis use torchfunc.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )
        return y_true.long()


def _is_one_of(function: Any, kinds: Sequence[Any]) -> bool:
    return any(isinstance(function, kind) if isinstance(kind, type) else function is kind for kind in kinds)


class CrossentropyByShape(Loss):
    """What "crossentropy" stands for until shapes are known: the binary, sparse or categorical one."""

    def for_shapes(self, y_true_shape: Sequence[int | None] | None, y_pred_shape: Sequence[int | None] | None) -> Loss:
        """The crossentropy for these shapes. Raises ValueError if one of them is not known."""
        return _CROSSENTROPIES[target_kind(y_true_shape, y_pred_shape, "crossentropy")](name=self.name)


def parse_loss(identifier: Any, name: str | None = None) -> Loss:
    """A `Loss` for anything `compile(loss=...)` takes; arguments as for `as_loss`.

    `for_shapes` of the result is the loss for data of given shapes.

    Raises:
        ValueError: there is no such loss.
    """
    if isinstance(identifier, str) and identifier.lower() in ("crossentropy", "ce"):
        return CrossentropyByShape(name=name or identifier)
    loss = get(identifier)
    if loss is None:
        raise ValueError("A loss is needed here, got None.")
    if isinstance(loss, Loss):
        return loss
    name = name or (identifier if isinstance(identifier, str) else object_name(loss))
    if is_torch_loss(loss):
        return TorchLoss(loss, name)
    if isinstance(loss, FunctionType) and loss in CLASS_OF_FUNCTION:
        return CLASS_OF_FUNCTION[loss](name=name)
    return LossFunctionWrapper(loss, name=name)


def as_loss(
    identifier: Any,
    name: str | None = None,
    y_true_shape: Sequence[int | None] | None = None,
    y_pred_shape: Sequence[int | None] | None = None,
) -> Loss:
    """A `Loss` for anything `compile(loss=...)` takes.

    Args:
        identifier: a name, config, class or instance; a torch loss module or function of `torch.nn.functional`,
            called `(predictions, targets)`; any `f(y_true, y_pred)` that returns one loss per sample or a scalar;
            "crossentropy" or "ce", binary, sparse or categorical by the shapes.
        name: for a loss made here; by default the string given, or the function's name. A `Loss` keeps its own.
        y_true_shape: shape of the targets with the batch axis, for "crossentropy".
        y_pred_shape: shape of the predictions with the batch axis.

    Raises:
        ValueError: there is no such loss, or "crossentropy" without shapes.

    >>> losses.as_loss("mse").name, losses.as_loss(torch.nn.functional.mse_loss).name
    ('mse', 'mse_loss')
    >>> losses.as_loss(lambda y_true, y_pred: (y_true - y_pred).abs().mean(-1))([[0.0]], [[3.0]])
    tensor(3.)
    """
    return parse_loss(identifier, name).for_shapes(y_true_shape, y_pred_shape)
