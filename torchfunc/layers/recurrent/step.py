"""RecurrentStep: the weights and the step that a recurrent cell and the layer over whole sequences have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc import activations
from torchfunc.layers.base.argument_types import ActivationLike, Config, RoleArguments
from torchfunc.layers.base.checks import positive
from torchfunc.layers.base.input_dtype import in_dtype_of
from torchfunc.layers.base.weighted_layer import HasActivation, WeightedLayer
from torchfunc.layers.base.weights import LINEAR, Layout
from torchfunc.layers.recurrent.kernels import run_kernel
from torchfunc.layers.recurrent.loop import ReturnOptions, run_steps
from torchfunc.layers.regularization import Dropout

__all__ = ["RecurrentStep", "project"]


class RecurrentStep(HasActivation, WeightedLayer):
    """One step from states to states, with its weights. Cells run it once, `Recurrent` layers over sequences.

    Args:
        units: the length of the output and of each state.
        activation: of the candidate (and of an LSTM's output): name, callable or module.
        use_bias: whether there are biases.
        weights: of the roles "kernel", "recurrent" and "bias", see `WeightedLayer`.
        dropout: the share of input features that training drops; the same ones at every step.
        recurrent_dropout: the share of the state that training drops on its way into each gate, the same at every step.
        seed: an integer for reproducible dropout (see `Dropout`).
        **kwargs: of the next base, and Keras' `implementation`, which is without effect.
    """

    gates: ClassVar[int] = 1
    state_count: ClassVar[int] = 1
    # How Keras' (inputs, gates * units) is stored in torch's parameters.
    kernel_layout: ClassVar[Layout] = LINEAR
    # The suffix of torch's parameter names in layers over sequences.
    _suffix: ClassVar[str] = ""
    # The axis along which a projection is the concatenation of the gates.
    _gate_axis: int = -1
    # Whether training drops other input features for each gate; Keras' layers do only beside recurrent dropout.
    _input_masks_by_gate: ClassVar[bool] = False

    def __init__(
        self,
        *,
        units: int,
        activation: ActivationLike,
        use_bias: bool,
        weights: Mapping[str, RoleArguments],
        dropout: float,
        recurrent_dropout: float,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("implementation", None)
        super().__init__(weights=weights, **kwargs)
        self.units = positive(units, "units", type(self).__name__)
        self.activation: Any = activation
        self.use_bias = bool(use_bias)
        self.dropout = min(1.0, max(0.0, dropout))
        self.recurrent_dropout = min(1.0, max(0.0, recurrent_dropout))
        self.seed = seed
        self._input_dropout = Dropout(self.dropout, seed=seed) if self.dropout else None
        state_seed = None if seed is None else seed + 1
        self._state_dropout = Dropout(self.recurrent_dropout, seed=state_seed) if self.recurrent_dropout else None

    # Weights

    def _build_weights(self, kernel_shape: Sequence[int], recurrent_shape: Sequence[int]) -> None:
        """Make all weights; the shapes are of one gate, in Keras' layout."""
        shapes = {"kernel": ("weight_ih", kernel_shape), "recurrent": ("weight_hh", recurrent_shape)}
        for role, (name, (*sizes, units)) in shapes.items():
            keras_name = "kernel" if role == "kernel" else "recurrent_kernel"
            shape = (*sizes, self.gates * units)
            self._make_weight(role, shape, name + self._suffix, self.kernel_layout, keras_name=keras_name)
        self._build_biases()

    def _build_biases(self) -> None:
        self._make_weight("bias", (self.gates * self.units,), "bias_ih" + self._suffix, used=self.use_bias)

    def _weight(self, name: str) -> Any:
        return getattr(self, name + self._suffix)

    def _in_own_dtype(self, inputs: Tensor) -> Tensor:
        """The inputs in the dtype of the weights."""
        return in_dtype_of(self._weight("weight_ih"), inputs)

    # One step

    # How inputs, and states, are multiplied by a weight.
    _apply_inputs: Callable[..., Tensor] = staticmethod(F.linear)
    _apply_state: Callable[..., Tensor] = staticmethod(F.linear)

    def _project_inputs(self, inputs: Tensor, masks: list[Tensor] | None) -> Tensor:
        weights = self._weight("weight_ih"), self._weight("bias_ih")
        return project(inputs, *weights, masks, self._apply_inputs, self._gate_axis)

    def _step(self, projected: Tensor, states: Sequence[Tensor], masks: list[Tensor] | None) -> list[Tensor]:
        """The projected input (batch, gates * units), states, dropout masks for each gate -> new states, h first."""
        raise NotImplementedError

    def _draw_masks(
        self, inputs: Tensor, state: Tensor, training: bool
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """Dropout's masks for inputs and states, shaped like these; None where nothing is dropped."""
        input_masks = state_masks = None
        if training and self._state_dropout is not None:
            state_masks = _dropout_masks(self._state_dropout, state, self.gates)
        if training and self._input_dropout is not None:
            by_gate = self._input_masks_by_gate or state_masks is not None
            input_masks = _dropout_masks(self._input_dropout, inputs, self.gates if by_gate else 1)
        return input_masks, state_masks

    # Whole sequences

    def _kernel(self) -> str | None:
        """The name of torch's kernel that computes the same; None if there is none."""
        return None

    def _kernel_weights(self) -> list[Tensor]:
        """What the kernel takes: two weights, and two biases if any."""
        weights: list[Tensor] = [self._weight("weight_ih"), self._weight("weight_hh")]
        bias = self._weight("bias_ih")
        return weights if bias is None else [*weights, bias, torch.zeros_like(bias)]

    def _freeze_idle_states(
        self, sequences: Tensor, idle: Tensor, weights: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Inputs and weights with which the kernel does not change the states besides the output at `idle` steps."""
        return sequences, weights

    def _run_sequence(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, returned: ReturnOptions
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all steps of (batch, time, ...) with torch's kernel if it computes the same, else one by one.

        Returns:
            The output, of every step or of the last, and the states after the last.
        """
        kernel = self._kernel()
        if kernel is None or (training and self._state_dropout is not None):
            return self._run_steps(sequences, states, mask, training, returned)
        if training and self._input_dropout is not None:
            sequences = sequences * _dropout_masks(self._input_dropout, sequences[:, :1], 1)[0]
        if mask is not None:
            return self._run_kernel_masked(kernel, sequences, states, mask, returned)
        outputs, states = run_kernel(kernel, sequences, states, self._kernel_weights())
        return outputs if returned.sequences else states[0], states

    def _run_kernel_masked(
        self, kernel: str, sequences: Tensor, states: list[Tensor], mask: Tensor, returned: ReturnOptions
    ) -> tuple[Tensor, list[Tensor]]:
        """Move the unmasked steps to the front, run the kernel, and gather each step's output from there.

        This takes any mask, and never reads its values on the host: no device has to be waited for.
        """
        order = torch.argsort(mask.to(torch.uint8), dim=1, descending=True, stable=True)
        # The number of unmasked steps up to each step; 0 before the first.
        counted = mask.cumsum(1)
        packed, weights = _take_steps(sequences, order), self._kernel_weights()
        if returned.states and self.state_count > 1:
            idle = torch.arange(mask.shape[1], device=mask.device) >= counted[:, -1:]
            packed, weights = self._freeze_idle_states(packed, idle, weights)
        outputs, finals = run_kernel(kernel, packed, states, weights)
        if returned.states:
            last = _take_steps(torch.cat([states[0].unsqueeze(1).to(outputs.dtype), outputs], 1), counted[:, -1:])
            finals = [last.squeeze(1), *finals[1:]]
        steps = slice(None) if returned.sequences else slice(-1, None)
        output = _take_steps(F.pad(outputs, (0, 0, 1, 0)), counted[:, steps])
        if returned.zeros:
            output = output * mask[:, steps].unsqueeze(-1)
        return output if returned.sequences else output.squeeze(1), finals

    def _run_steps(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool, returned: ReturnOptions
    ) -> tuple[Tensor, list[Tensor]]:
        input_masks, state_masks = self._draw_masks(sequences[:, :1], states[0], training)
        projected = self._project_inputs(sequences, input_masks)

        def step(inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            new = self._step(inputs, states, state_masks)
            return new[0], new

        return run_steps(step, projected.unbind(1), states, mask, returned)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self._weights_config(),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
        }


def _take_steps(sequences: Tensor, steps: Tensor) -> Tensor:
    """(batch, time, features), (batch, steps) -> (batch, steps, features)."""
    return sequences.gather(1, steps.unsqueeze(-1).expand(-1, -1, sequences.shape[-1]))


def _dropout_masks(dropout: Dropout, like: Tensor, count: int) -> list[Tensor]:
    return [dropout.call(torch.ones_like(like), training=True) for _ in range(count)]


def project(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    masks: Sequence[Tensor] | None,
    apply: Callable[..., Tensor] = F.linear,
    axis: int = -1,
) -> Tensor:
    """`apply(inputs, weight, bias)`; with several dropout masks, each of them for its own share of the outputs."""
    if masks is None:
        return apply(inputs, weight, bias)
    biases = [None] * len(masks) if bias is None else bias.chunk(len(masks))
    shares = zip(masks, weight.chunk(len(masks)), biases, strict=True)
    return torch.cat([apply(inputs * mask, *share) for mask, *share in shares], axis)
