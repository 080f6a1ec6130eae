"""`Trainable`: what training needs to know of a model, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from torchfunc.metrics import Metric
from torchfunc.modules import OutputDescription, TrainingOutputs
from torchfunc.optimizers import Optimizer
from torchfunc.training.data.arrays import Data, Tensors
from torchfunc.training.distributed.meshes import Mesh
from torchfunc.training.run_context import RunContext
from torchfunc.training.settings import TrainingSettings

__all__ = ["Logs", "StepFunction", "Trainable"]

Logs: TypeAlias = dict[str, Any]
"""Results by name: numbers, scalar tensors, or what else a metric's `result` gives."""

StepFunction: TypeAlias = Callable[[Data], Any]
"""A function of one batch that returns what a step of its kind returns: logs, or for a prediction the outputs."""


class Trainable(nn.Module):
    """A model as training sees it: a module with named outputs that prepares its own inputs.

    Nothing is defined here: this is the type checker's view of what the class beside `Trainer` in `Model` brings, and
    of what the loop and the step use of `Trainer` itself.
    """

    if TYPE_CHECKING:

        @property
        def input_names(self) -> list[str] | None:
            """The inputs' names in order; None if they are known only when the model runs."""

        @property
        def output_names(self) -> list[str] | None:
            """The outputs' names in order; None if they are known only when the model runs (a subclassed model)."""

        @property
        def losses(self) -> list[Tensor]:
            """Scalars that join the loss: penalties on weights, and what the last call added."""

        def weight_penalties(self) -> list[Callable[[], Tensor]]:
            """One function for each regularized weight, giving its penalty as it stands when called."""

        def weight_constraints(self) -> list[Callable[[], None]]:
            """One function for each constrained weight, projecting it in place."""

        def prepare_inputs(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
            """The arguments of `forward` for what a user calls x. Raises ValueError if it does not fit the inputs."""

        def data_dtype(self) -> torch.dtype:
            """What NumPy's floats become among the data."""

        def forward_for_training(self, *prepared: Any, logits_of: Sequence[int] = ()) -> TrainingOutputs:
            """The outputs for prepared inputs, their masks, and the logits of the outputs of these numbers."""

        def describe_outputs(self) -> list[OutputDescription] | None:
            """Of each output, in flat order, the final activation and whether it has a mask; None if unknown."""

        def keeps_inputs(self) -> bool:
            """Whether a call surely leaves the memory of its inputs as it is."""

        def is_fully_built(self) -> bool:
            """Whether the model and every layer in it have their weights."""

        def build_from_inputs(self, *prepared: Any) -> None:
            """Make the weights, if they are not there yet, for arguments such as `prepare_inputs` returns."""

        name: str

        # Of Trainer

        _training_settings: TrainingSettings | None
        _run_context: RunContext | None
        _mesh: Mesh | None
        optimizer: Optimizer | None
        stop_training: bool
        stop_evaluating: bool
        stop_predicting: bool

        @property
        def metrics(self) -> list[Metric]:
            """All metrics."""

        def require_settings(self, method: str) -> TrainingSettings:
            """What `compile` made. Raises ValueError if it was not called."""

        def overrides(self, method: str) -> bool:
            """Whether the model redefines a method of `Trainer`."""

        def own_function(self, method: str) -> StepFunction | None:
            """The function that is to run in place of a step, if there is one."""

        def has_own_training(self) -> bool:
            """Whether a batch is trained on by code of the model's own."""

        def reset_metrics(self) -> None:
            """Reset all metrics."""

        def get_metrics_result(self) -> Logs:
            """The current results by log name."""

        def train_step(self, data: Data) -> Logs:
            """Train on one batch."""

        def test_step(self, data: Data) -> Logs:
            """Evaluate one batch."""

        def predict_step(self, data: Data) -> Any:
            """The outputs for one batch."""

        def compute_loss(
            self,
            x: Tensors = None,
            y: Tensors = None,
            y_pred: Any = None,
            sample_weight: Tensors = None,
            training: bool = True,
        ) -> Tensor:
            """The total loss of one batch."""

        def compute_metrics(self, x: Tensors, y: Tensors, y_pred: Any, sample_weight: Tensors = None) -> Logs:
            """Update the metrics with one batch."""
