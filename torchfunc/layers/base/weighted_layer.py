"""Layers with weights: WeightedLayer, whose weights have roles, KernelLayer, and ActivationLast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc import activations, constraints, initializers, regularizers
from torchfunc.layers.base.argument_types import ActivationLike, Config, RoleArguments
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.weights import SAME_LAYOUT, Layout, Weight

__all__ = ["ActivationLast", "HasActivation", "KernelLayer", "WeightedLayer", "has_kernel", "kernel_of"]


class HasActivation(Layer):
    """A layer whose `activation`, also one set later, may be given as a name, or as None for none."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, activations.get(value) if name in _ACTIVATIONS else value)


_ACTIVATIONS = ("activation", "recurrent_activation")


class ActivationLast(HasActivation):
    """A layer that ends in an activation. A subclass writes `before_activation` instead of `call`.

    A loss can then be computed from the logits, the input of a final softmax or sigmoid.
    """

    activation: Callable[[Tensor], Tensor]

    def before_activation(self, inputs: Tensor) -> Tensor:
        """The input of the activation."""
        raise NotImplementedError

    def _rectified(self, inputs: Tensor) -> Tensor:
        """The output where the activation is ReLU, which some layers compute with less memory."""
        return torch.relu(self.before_activation(inputs))

    def call(self, inputs: Tensor) -> Tensor:
        if self.activation is activations.relu:
            return self._rectified(inputs)
        return self.activation(self.before_activation(inputs))


class WeightedLayer(Layer):
    """A layer whose weights have roles ("kernel", "bias", "alpha" ...), each with its own arguments.

    The arguments become `<role>_initializer`, `<role>_regularizer` and `<role>_constraint`.

    Args:
        weights: by role: an initializer (name, config or callable, on Keras' layout), a regularizer (a penalty that
            joins the training loss) and a constraint (a projection applied after every update).
        **kwargs: of `Layer`.
    """

    def __init__(self, weights: Mapping[str, RoleArguments], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._roles = tuple(weights)
        values: dict[str, Any] = {}
        for role, (initializer, regularizer, constraint) in weights.items():
            values[f"{role}_initializer"] = initializers.get(initializer)
            values[f"{role}_regularizer"] = None if regularizer is None else regularizers.get(regularizer)
            values[f"{role}_constraint"] = None if constraint is None else constraints.get(constraint)
        # All at once, which takes a fraction of the time. Only a module has to be registered.
        self.__dict__.update(values)
        for name in [name for name, value in values.items() if isinstance(value, nn.Module)]:
            setattr(self, name, values[name])

    def _make_weight(
        self,
        role: str,
        shape: Sequence[int],
        names: str | tuple[str, ...],
        layout: Layout = SAME_LAYOUT,
        *,
        initializer: Callable[..., Tensor] | None = None,
        used: bool = True,
        keras_name: str = "",
    ) -> None:
        """Make the weight of a role.

        Args:
            role: one of the layer's roles.
            shape: in Keras' layout.
            names: of the parameter, or of the parameters that the layout splits the weight into.
            layout: how torch stores it.
            initializer: instead of the role's own.
            keras_name: the attribute by which Keras' layer has it: the role by default.
            used: whether there is such a weight; if not, the parameters are None.
        """
        names = (names,) if isinstance(names, str) else names
        if not used:
            for name in names:
                self.register_parameter(name, None)
            return
        self.add_weight(
            shape,
            initializer or getattr(self, f"{role}_initializer"),
            regularizer=getattr(self, f"{role}_regularizer"),
            constraint=getattr(self, f"{role}_constraint"),
            layout=layout,
            names=names,
            keras_name=keras_name or role,
        )

    def _weights_config(self) -> Config:
        families = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints}
        return {
            f"{role}_{kind}": family.serialize(getattr(self, f"{role}_{kind}"))
            for kind, family in families.items()
            for role in self._roles
        }


class KernelLayer(ActivationLast, WeightedLayer):
    """A layer with a kernel (`weight`), an optional bias (`bias`) and an activation.

    Args:
        activation: name, callable or module applied to the output; none by default.
        use_bias: whether to add a bias.
        kernel_initializer, bias_initializer: name, config or callable, on Keras' layout.
        kernel_regularizer, bias_regularizer: penalties on the weights that join the training loss.
        kernel_constraint, bias_constraint: projections applied to the weights after every update.
        **kwargs: of `Layer`.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self, activation: ActivationLike, use_bias: bool, weights: Mapping[str, RoleArguments], **kwargs: Any
    ) -> None:
        super().__init__(weights, **kwargs)
        self.activation = activation  # type: ignore[assignment]
        self.use_bias = bool(use_bias)

    def _make_bias(self, shape: Sequence[int]) -> None:
        self._make_weight("bias", shape, "bias", used=self.use_bias)

    def _kernel_config(self) -> Config:
        return {
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self._weights_config(),
        }


def has_kernel(layer: nn.Module) -> bool:
    """Whether a layer's first weight is what Keras calls its kernel or its embeddings."""
    if not isinstance(layer, WeightedLayer):
        return False
    # Keras calls neither of the two of a separable convolution a kernel, and none of a recurrent layer's.
    roles = layer._roles
    return roles[0] in ("kernel", "embeddings", "depthwise") and not {"pointwise", "recurrent"} & set(roles)


def kernel_of(layer: WeightedLayer) -> Weight:
    """The kernel or the embeddings of a built layer that has some."""
    return layer._weights[0]
