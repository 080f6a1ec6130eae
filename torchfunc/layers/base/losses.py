"""LossHolder: what the calls of a layer add to the training loss, kept until the next call from outside.

It is kept by the thread that makes the call, so that a prediction adds nothing to the loss of a training beside it.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from torchfunc.graph import is_exporting, once_for_all, pass_over
from torchfunc.layers.base.weights import WeightHolder
from torchfunc.structures import leaves

__all__ = [
    "LossHolder",
    "added_losses",
    "apart_from_calls",
    "expect_losses",
    "forget_losses",
    "is_inside_a_call",
    "regularize_activity",
    "starts_call",
    "thread_calls",
]


class _Calls(threading.local):
    """The calls of this thread.

    Attributes:
        inside: whether it is inside the call of a layer or model that code outside of all layers made.
        added: what calls have added to the loss, by layer.
    """

    inside = False

    def __init__(self) -> None:
        self.added: weakref.WeakKeyDictionary[LossHolder, list[Tensor]] = weakref.WeakKeyDictionary()


thread_calls = _Calls()


class LossHolder(WeightHolder):
    """A module with the losses that its calls and those of its submodules add.

    Attributes:
        call_losses: what compiled code, which knows no threads, has added.
    """

    # Whether any layer has ever added a loss, or may: until then there are none to clear.
    adds_losses = False
    call_losses: list[Tensor]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        functions = [value for value in vars(cls).values() if isinstance(value, FunctionType)]
        if cls.__module__ != __name__ and any("add_loss" in function.__code__.co_names for function in functions):
            # Known before its first call, in which sublayers are called too.
            expect_losses()

    def add_loss(self, loss: Tensor | list[Tensor] | tuple[Tensor, ...]) -> None:
        """Add a scalar (or several) to the training loss; call it from `call`.

        The losses of a call remain until the layer, or the model with it, is called again, or until `clear_losses()`.

        >>> class Sparse(layers.Layer):
        ...     def call(self, inputs):
        ...         self.add_loss(0.1 * inputs.abs().sum())
        ...         return inputs
        >>> layer = Sparse()
        >>> outputs = layer(torch.tensor([[1.0, -2.0]]))
        >>> layer.losses
        [tensor(0.3000)]
        """
        if is_exporting():
            # An exported program returns outputs only; a loss stored here would belong to no call.
            return
        expect_losses()
        added = self.call_losses if torch.compiler.is_compiling() else thread_calls.added.setdefault(self, [])
        added.extend(loss if isinstance(loss, (list, tuple)) else [loss])

    @property
    def losses(self) -> list[Tensor]:
        """The current penalties on the weights, and what the last call added."""
        added = added_losses([module for module in self.modules() if isinstance(module, LossHolder)])
        return added + [penalty() for penalty in self.weight_penalties()]

    @pass_over
    def clear_losses(self) -> None:
        """Remove what calls have added to the losses."""
        forget_losses([module for module in self.modules() if isinstance(module, LossHolder)])

    @pass_over
    def run_outermost(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function as this layer's call: if no other layer is being called, with no losses added so far."""
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return self.run_outermost_eagerly(function, *args, **kwargs)

    @pass_over
    def run_outermost_eagerly(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The same where it is known that torch.compile does not trace this."""
        if thread_calls.inside:
            return function(*args, **kwargs)
        thread_calls.inside = True
        try:
            if LossHolder.adds_losses:
                # What earlier calls added to the losses is of no more use.
                self.clear_losses()
            return function(*args, **kwargs)
        finally:
            thread_calls.inside = False


def added_losses(holders: Iterable[LossHolder]) -> list[Tensor]:
    """What the calls of these layers on this thread have added to the loss, and calls of compiled code."""
    if torch.compiler.is_compiling():
        return [loss for holder in holders for loss in holder.call_losses]
    added = thread_calls.added
    return [loss for holder in holders for loss in (*holder.call_losses, *added.get(holder, ()))]


def forget_losses(holders: Iterable[LossHolder]) -> None:
    """Forget it."""
    added = None if torch.compiler.is_compiling() or not thread_calls.added else thread_calls.added
    for holder in holders:
        if holder.call_losses:
            holder.call_losses.clear()
        if added is not None:
            added.pop(holder, None)


@contextlib.contextmanager
def apart_from_calls() -> Iterator[None]:
    """A block in which layers are called within no other call, clear nothing, and what they add is not kept."""
    outer = thread_calls.inside, thread_calls.added
    thread_calls.inside, thread_calls.added = True, weakref.WeakKeyDictionary()
    try:
        yield
    finally:
        thread_calls.inside, thread_calls.added = outer


def is_inside_a_call() -> bool:
    """Whether this thread is inside a model's call, so that what a model in it gets is not a user's data."""
    return not torch.compiler.is_compiling() and thread_calls.inside


# torch.compile would compile anew when the answer changes; compiled code leaves the losses to who calls it.
@once_for_all
def starts_call() -> bool:
    """Whether a layer that is called now is called from outside of all layers, and may have losses to clear."""
    return LossHolder.adds_losses and not thread_calls.inside


# torch.compile (2.11) cannot set an attribute of a class.
@once_for_all
def expect_losses() -> None:
    """Let calls from outside clear the losses of the calls before."""
    LossHolder.adds_losses = True


def regularize_activity(layer: Any, args: object, outputs: object) -> None:
    """A forward hook: add the layer's penalty on its outputs to its losses."""
    for output in leaves(outputs):
        # By sample, as in Keras: the penalty does not grow with the batch.
        layer.add_loss(layer.activity_regularizer(output) / max(output.shape[0] if output.ndim else 1, 1))
