"""What is done with one batch: the methods that a model of one's own overrides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchfunc.training import run_modes
from torchfunc.training.current_run import current_run, single_call
from torchfunc.training.data.arrays import Batch, Data, Tensors
from torchfunc.training.single_batches import SingleBatches
from torchfunc.training.step import Outcome, evaluate_batch, predict_batch, total_loss, train_batch
from torchfunc.training.trainable import Logs

__all__ = ["OverridableSteps"]


class OverridableSteps(SingleBatches):
    """Gives a model the steps of `fit`, `evaluate` and `predict`, and what they call for the loss and the metrics.

    Called in a loop of the user's, outside of these, they use what `compile` made.
    """

    def train_step(self, data: Data) -> Logs:
        """Train on one batch; override it for a step of your own.

        Args:
            data: `x`, `(x, y)` or `(x, y, sample_weight)`, tensors on the model's device.

        Returns:
            logs: numbers or scalar tensors by name.

        >>> class Noisy(Sequential):
        ...     def train_step(self, data):
        ...         x, y = data
        ...         return super().train_step((x + 0.1 * torch.randn_like(x), y))
        >>> model = Noisy([Input((1,)), layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> sorted(model.fit(np.ones((8, 1)), np.ones((8, 1)), verbose=0).history)
        ['loss']
        """
        run = current_run(self)
        if run is None:
            return self._outside_run("train_step", OverridableSteps.train_step, data)
        return self._logs_of(train_batch(self, run, data))

    def test_step(self, data: Data) -> Logs:
        """Evaluate one batch; arguments and result as for `train_step`.

        >>> model = Sequential([Input((1,)), layers.Dense(1, kernel_initializer="ones")])
        >>> model.compile("sgd", "mse", device="cpu")
        >>> model.test_step((torch.ones(8, 1), torch.full((8, 1), 3.0)))
        {'loss': tensor(4.)}
        """
        run = current_run(self)
        if run is None:
            return self._outside_run("test_step", OverridableSteps.test_step, data)
        return self._logs_of(evaluate_batch(self, run, data))

    def _logs_of(self, outcome: Outcome) -> Logs:
        logs, deferred = outcome
        for metric, target, prediction in deferred:
            metric.update_state(target, prediction)
        return self.get_metrics_result() if logs is None else logs

    def _outside_run(self, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of this class in a context for one batch, in a loop of the user's."""
        with single_call(self, run_modes.new_context(self, self.require_settings(method))):
            return function(self, *arguments)

    def predict_step(self, data: Data) -> Any:
        """The outputs for one batch; `data` as for `train_step`.

        >>> model = Sequential([Input((1,)), layers.Dense(1, kernel_initializer="ones")])
        >>> model.predict_step(torch.tensor([[3.0]])).tolist()
        [[3.0]]
        """
        return predict_batch(self, data)

    def compute_loss(
        self,
        x: Tensors = None,
        y: Tensors = None,
        y_pred: Any = None,
        sample_weight: Tensors = None,
        training: bool = True,
    ) -> Tensor:
        """The total loss of one batch: the outputs' weighted losses, penalties on weights, and what `add_loss` added.

        Args:
            x: what went into the model.
            y: the targets.
            y_pred: what came out.
            sample_weight: weights of the samples.
            training: whether this is for training or evaluation.

        Returns:
            a scalar.

        Raises:
            ValueError: there is no loss at all, or targets do not fit the outputs.

        >>> model = Sequential([Input((1,)), layers.Dense(1)])
        >>> model.compile("sgd", "mse", device="cpu")
        >>> model.compute_loss(y=torch.zeros(2, 1), y_pred=torch.tensor([[1.0], [3.0]]))
        tensor(5.)
        """
        run = current_run(self)
        if run is None:
            return self._outside_run(
                "compute_loss", OverridableSteps.compute_loss, x, y, y_pred, sample_weight, training
            )
        return total_loss(run, Batch(x, y, sample_weight), run.outputs_for(y_pred))[1]

    def compute_metrics(self, x: Tensors, y: Tensors, y_pred: Any, sample_weight: Tensors = None) -> Logs:
        """Update the metrics with one batch; returns the results of all of them. Arguments as for `compute_loss`.

        >>> model = Sequential([Input((1,)), layers.Dense(1)])
        >>> model.compile("sgd", "mse", metrics=["mae"], device="cpu")
        >>> model.compute_metrics(None, torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]))["mae"]
        tensor(2.)
        """
        run = current_run(self)
        if run is None:
            return self._outside_run("compute_metrics", OverridableSteps.compute_metrics, x, y, y_pred, sample_weight)
        objectives = run.settings.objectives_for(y_pred)
        parts = objectives.match_batch(Batch(x, y, sample_weight), run.outputs_for(y_pred))
        return self._logs_of((None, objectives.update_metrics(parts)))
