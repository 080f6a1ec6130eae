"""Bidirectional: a recurrent layer in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import check_output_shape
from torchfunc.layers.base.layer import Layer, takes_mask
from torchfunc.layers.base.masks import Masks, check_mask
from torchfunc.layers.base.shapes import Shape, Shapes
from torchfunc.layers.recurrent.loop import States
from torchfunc.registry import deserialize_keras_object, in_process_configs, serialize_keras_object

__all__ = ["Bidirectional"]

_MERGE_MODES = ("concat", "sum", "mul", "ave", None)


class Bidirectional(Layer):
    """A recurrent layer over the sequence forwards, and another over it backwards.

    Shape: of the layer, with both outputs merged; with `return_sequences` the backward one is reversed, so that
    both belong to the same step. With `return_state` a tuple: the output (two with `merge_mode=None`), the forward
    layer's states, the backward layer's.

    The layers are copies of the argument, as `.forward_layer` and `.backward_layer`, with separate weights.
    With `return_sequences` masked steps give zeros.

    Args:
        layer: a recurrent layer, or any layer with `go_backwards`, `return_sequences`, `return_state`, `stateful` and
            a config.
        merge_mode: "concat", "sum", "mul", "ave", or None for both outputs in a tuple.
        weights: arrays in Keras' layout, to start from: the forward layer's, then the backward layer's.
        backward_layer: the layer for the other direction, which is not copied; by default a copy of `layer`.
        **kwargs: `activity_regularizer`, `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is none of these, or the two layers do not fit together.

    >>> layers.Bidirectional(layers.LSTM(8))(Input((10, 4))).shape
    (None, 16)
    >>> layers.Bidirectional(layers.GRU(8), merge_mode="sum")(Input((10, 4))).shape
    (None, 8)
    """

    supports_masking = True

    def __init__(
        self,
        layer: Layer,
        merge_mode: str | None = "concat",
        weights: Sequence[np.ndarray | Tensor] | None = None,
        backward_layer: Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        for given in (layer, backward_layer):
            if given is not None and not (isinstance(given, Layer) and hasattr(given, "go_backwards")):
                raise ValueError(f"{owner} goes around a recurrent layer, such as LSTM, got {given!r}.")
        if merge_mode not in _MERGE_MODES:
            raise ValueError(f"{owner} takes one of {_MERGE_MODES} for merge_mode, got {merge_mode!r}.")
        self.forward_layer: Any = _copy(layer, "forward")
        self.backward_layer: Any = backward_layer or _copy(layer, "backward", go_backwards=True)
        self._check_layers()
        self.return_sequences: bool = self.forward_layer.return_sequences
        self.return_state: bool = self.forward_layer.return_state
        self.stateful: bool = self.forward_layer.stateful
        for each in (self.forward_layer, self.backward_layer):
            if hasattr(each, "zero_output_for_mask"):
                each.zero_output_for_mask = self.return_sequences
        self.merge_mode = merge_mode
        self._initial_weights = weights
        # Looked up here, since compiled code cannot look at signatures.
        self._takes_masks = tuple(takes_mask(each) for each in (self.forward_layer, self.backward_layer))
        self.input_spec = layer.input_spec
        if not self.trainable:
            self.trainable = False

    def _check_layers(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                f"The layers of a {type(self).__name__} go in different directions, but go_backwards is "
                f"{forward.go_backwards} for both {forward.describe()} and {backward.describe()}."
            )
        for name in ("stateful", "return_sequences", "return_state"):
            ours, theirs = getattr(forward, name), getattr(backward, name)
            if ours != theirs:
                raise ValueError(
                    f"The layers of a {type(self).__name__} must agree on {name}, but it is {ours} for "
                    f"{forward.describe()} and {theirs} for {backward.describe()}."
                )

    def build(self, sequences_shape: Shape, initial_state_shape: Shapes | None = None) -> None:
        check_output_shape(self, sequences_shape)
        for layer in (self.forward_layer, self.backward_layer):
            if not layer.built:
                layer.build_from_shapes({"sequences_shape": sequences_shape})
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)
            self._initial_weights = None

    def call(self, sequences: Tensor, initial_state: States | None = None, mask: Tensor | None = None) -> Any:
        half = 0 if initial_state is None else len(initial_state) // 2
        if mask is not None:
            self._check_mask(sequences, mask)
        results = []
        for layer, part, with_mask in self._parts(half):
            given = {} if initial_state is None else {"initial_state": initial_state[part]}
            if mask is not None and with_mask:
                given["mask"] = mask
            results.append(layer(sequences, **given))
        forward, backward = results
        if self.return_sequences:
            backward = (backward[0].flip(1), *backward[1:]) if self.return_state else backward.flip(1)
        return self._combine(forward, backward, self._merge)

    def _check_mask(self, inputs: Any, mask: Any) -> None:
        check_mask(mask, inputs.shape[:2], "(batch, time)", self.describe)

    def _parts(self, half: int) -> list[tuple[Any, slice, bool]]:
        """Each layer, its share of the initial states, and whether it takes a mask."""
        forward, backward = self._takes_masks
        return [(self.forward_layer, slice(half), forward), (self.backward_layer, slice(half, None), backward)]

    def _combine(self, forward: Any, backward: Any, merge: Callable[[Any, Any], Any]) -> Any:
        """The results of both layers, or their shapes or masks, in the structure that this layer returns."""
        states: tuple[Any, ...] = ()
        if self.return_state:
            (forward, *forward_states), (backward, *backward_states) = forward, backward
            states = (*forward_states, *backward_states)
        if self.merge_mode is None:
            return (forward, backward, *states)
        merged = merge(forward, backward)
        return (merged, *states) if self.return_state else merged

    def _merge(self, forward: Tensor, backward: Tensor) -> Tensor:
        if self.merge_mode == "concat":
            return torch.cat([forward, backward], -1)
        if self.merge_mode == "mul":
            return forward * backward
        total = forward + backward
        return total / 2 if self.merge_mode == "ave" else total

    @property
    def states(self) -> list[Tensor] | None:
        """The states of stateful layers after the last batch, forward and backward; None if there are none."""
        forward, backward = self.forward_layer.states, self.backward_layer.states
        return [*forward, *backward] if forward and backward else None

    def reset_state(self) -> None:
        """Reset the states of stateful layers to zeros."""
        if not self.stateful:
            raise AttributeError(f"{self.describe()} keeps no states: its layers are not stateful.")
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def reset_states(self) -> None:
        """`reset_state`, by the name it had before Keras 3."""
        self.reset_state()

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Shapes | None = None) -> Shapes:
        half = 0 if initial_state_shape is None else len(initial_state_shape) // 2
        forward, backward = (
            layer.compute_output_shape(
                sequences_shape, *(() if initial_state_shape is None else (initial_state_shape[part],))
            )
            for layer, part, _ in self._parts(half)
        )
        return self._combine(forward, backward, self._merged_shape)

    def _merged_shape(self, forward: Shape, backward: Shape) -> Shape:
        if self.merge_mode == "concat":
            known = forward[-1] is not None and backward[-1] is not None
            return (*forward[:-1], forward[-1] + backward[-1] if known else None)  # type: ignore[operator]
        if forward != backward:
            raise ValueError(
                f"merge_mode={self.merge_mode!r} takes two outputs of one shape, but the forward layer gives {forward} "
                f"and the backward layer {backward}. Use 'concat' or None."
            )
        return forward

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.forward_layer.compute_output_dtype(*input_dtypes)

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        layers = (self.forward_layer, self.backward_layer)
        forward, backward = (layer.compute_mask(inputs, mask) for layer in layers)
        return self._combine(forward, backward, lambda mask, _: mask)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "merge_mode": self.merge_mode,
            "layer": serialize_keras_object(self.forward_layer),
            "backward_layer": serialize_keras_object(self.backward_layer),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Bidirectional:
        names = ("layer", "backward_layer")
        layers = {name: deserialize_keras_object(config[name], custom_objects) for name in names if config.get(name)}
        return cls(**{**config, **layers})


def _copy(layer: Layer, direction: str, **changes: Any) -> Layer:
    """A layer with the same config and new weights. The classes in it need not be registered."""
    with in_process_configs():
        config = serialize_keras_object(layer)
        config.pop("build_config", None)
        config["config"] |= {"name": f"{direction}_{layer.name.removeprefix(direction + '_')}", **changes}
        copy = deserialize_keras_object(config)
    if hasattr(layer, "use_cudnn"):
        copy.use_cudnn = layer.use_cudnn
    return copy
