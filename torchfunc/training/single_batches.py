"""The methods for single batches, `train_on_batch` and its like, and the building of a model for its first one."""

from __future__ import annotations

from typing import Any

import torch

from torchfunc.batch_parts import BatchPart
from torchfunc.callbacks.callback_list import plain_logs
from torchfunc.structures import first_leaf
from torchfunc.training import checks, run_modes
from torchfunc.training.building import built_for
from torchfunc.training.checks import class_weigher
from torchfunc.training.data.arrays import (
    Arrays,
    ClassWeight,
    Data,
    Expected,
    WeighByClass,
)
from torchfunc.training.data.conversion import ArrayLike
from torchfunc.training.data.parts import PartBatch
from torchfunc.training.distributed.runs import joined, shared_logs, shared_training
from torchfunc.training.failed_steps import explained
from torchfunc.training.loop import run_single_prediction
from torchfunc.training.run_context import RunContext
from torchfunc.training.settings import TrainingSettings, device_of
from torchfunc.training.step_functions import StepFunctions, make_step, makes_own_logs
from torchfunc.training.trainable import Logs

__all__ = ["SingleBatches"]


class SingleBatches(StepFunctions):
    """Gives a model `train_on_batch`, `test_on_batch` and `predict_on_batch`."""

    def _expected_data(self) -> Expected:
        return Expected(self.input_names, self.output_names, self.data_dtype())

    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike = None,
        sample_weight: ArrayLike = None,
        class_weight: ClassWeight | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One training step on one batch of arrays; returns its loss and metrics as `evaluate` does.

        Args:
            x, y, sample_weight, class_weight: as for `fit`, of one batch.
            return_dict: whether to return a dict by name, as `evaluate` does.

        Raises:
            ValueError: the data do not fit each other or the model, or the model was not compiled.

        >>> model = Sequential([Input((1,)), layers.Dense(1, kernel_initializer="ones")])
        >>> model.compile("sgd", "mse")
        >>> model.train_on_batch(np.ones((8, 1)), np.full((8, 1), 3.0))  # the loss before the step
        4.0
        """
        settings = self.require_settings("train_on_batch")
        device = device_of(self, settings.device)
        weigh = class_weigher(class_weight, self, settings)
        data = self._one_batch(x, y, sample_weight, weigh, settings, device)
        with joined(settings, device) as processes, run_modes.training(self, settings, device) as run:
            first = processes is not None and settings.optimizer is not None and not settings.optimizer.iterations
            with shared_training(self, processes, copies=first):
                return run.settings.returned(self._logs_of_batch(run, "train_step", data, device), return_dict)

    def test_on_batch(
        self, x: ArrayLike, y: ArrayLike = None, sample_weight: ArrayLike = None, return_dict: bool = False
    ) -> Any:
        """The loss and metrics of one batch of arrays, as `evaluate` returns them.

        Args:
            x, y, sample_weight, return_dict: as for `train_on_batch`.

        Raises:
            ValueError: the data do not fit each other or the model, or the model was not compiled.

        >>> model = Sequential([Input((1,)), layers.Dense(1, kernel_initializer="ones")])
        >>> model.compile("sgd", "mse", metrics=["mae"])
        >>> model.test_on_batch(np.ones((8, 1)), np.full((8, 1), 3.0), return_dict=True)
        {'loss': 4.0, 'mae': 2.0}
        """
        settings = self.require_settings("test_on_batch")
        device = device_of(self, settings.device)
        data = self._one_batch(x, y, sample_weight, None, settings, device)
        with joined(settings, device), run_modes.evaluating(self, settings) as run:
            return run.settings.returned(self._logs_of_batch(run, "test_step", data, device), return_dict)

    def _logs_of_batch(self, run: RunContext, method: str, data: Data, device: torch.device) -> Logs:
        processes = run.settings.processes
        self.reset_metrics()
        step = make_step(self, run, method, device)
        doing = explained(self, data, "training" if method == "train_step" else "evaluation")
        if processes is None:
            with doing:
                logs = step(data)
            return plain_logs(self.get_metrics_result() if logs is None else logs)
        # Of several processes each has rows of its own.
        rows = first_leaf(data).shape[0]
        processes.align_generators(device)
        part = PartBatch(data, BatchPart(rows, sum(processes.gather_counts(rows)), processes.rows_group))
        with doing:
            logs = step(part)
        return shared_logs(processes, self, logs, makes_own_logs(self, method))

    def predict_on_batch(self, x: ArrayLike) -> Any:
        """The outputs for one batch of arrays, as NumPy arrays.

        Raises:
            ValueError: the data do not fit the model.

        >>> model = Sequential([Input((1,)), layers.Dense(1, kernel_initializer="ones")])
        >>> model.predict_on_batch(np.array([[3.0]]))
        array([[3.]], dtype=float32)
        """
        settings = self._training_settings
        device = device_of(self, None if settings is None else settings.device)
        data = self._one_batch(x, None, None, None, None, device)
        return run_single_prediction(self, settings, data, device)

    def _one_batch(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike,
        weigh: WeighByClass | None,
        settings: TrainingSettings | None,
        device: torch.device,
    ) -> Data:
        """Arrays as one batch on the device, with the model built for it."""
        arrays = Arrays.parse(x, y, sample_weight, self._expected_data())
        data = built_for(self, arrays.to(device).weighted(weigh).packed, device)
        if settings is not None and y is not None:
            checks.check_labels(self, settings.objectives, data)
        return data
