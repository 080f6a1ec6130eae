"""Trainer: `compile`, `fit`, `evaluate` and `predict` for a model."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from torchfunc.callbacks import CallbackList, History
from torchfunc.config import dtype_policy
from torchfunc.graph_keys import settings_key
from torchfunc.metrics import Metric
from torchfunc.metrics.attributes import metrics_in_attributes
from torchfunc.optimizers import LossScaleOptimizer, Optimizer, TorchOptimizer
from torchfunc.optimizers import get as get_optimizer
from torchfunc.training import run_modes
from torchfunc.training.building import build_for_data, built_for
from torchfunc.training.checks import (
    check_counts,
    check_data,
    check_fit,
    checked_verbose,
    class_weigher,
    set_offloading,
)
from torchfunc.training.chosen_modules import ChosenModules
from torchfunc.training.current_run import current_run, current_settings
from torchfunc.training.data.arrays import (
    ClassWeight,
)
from torchfunc.training.data.conversion import ArrayLike
from torchfunc.training.data.sources import (
    is_one_batch,
    make_batches,
    parse_data,
    takes_batch_size,
    with_validation,
)
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.distributed.agreement import check_agreement
from torchfunc.training.distributed.meshes import Mesh, Strategy
from torchfunc.training.distributed.processes import Processes, use_own_device
from torchfunc.training.distributed.runs import joined, prepare, shared_training
from torchfunc.training.distributed.sharding import check_same_mesh
from torchfunc.training.loop import run_epochs, run_evaluation, run_prediction, run_single_prediction
from torchfunc.training.matching import PerOutput
from torchfunc.training.outputs import ParsedObjectives
from torchfunc.training.overridable_steps import OverridableSteps
from torchfunc.training.remat import check_remat
from torchfunc.training.run_context import RunContext
from torchfunc.training.settings import Execution, TrainingSettings, device_of, wanted_device
from torchfunc.training.stopping import StopFlag, stoppable
from torchfunc.training.trainable import Logs

__all__ = ["Trainer"]


class Trainer(OverridableSteps):
    """Gives a model `compile`, `fit`, `evaluate`, `predict` and their relatives, under Keras' names and semantics.

    Attributes:
        compiled: whether `compile` was called.
        optimizer: the optimizer, None before `compile`.
        loss: what `compile` was given for it, which steps of a model's own may call.
        history: the `History` of the last `fit`.
        parallelize_plan: how layers are split over the axis "model" of a mesh, by their paths; None if none are.
        stop_training, stop_evaluating, stop_predicting: set to True (by a callback, say), the run ends after the
            current batch.
    """

    compiled = False
    optimizer: Optimizer | None = None
    loss: PerOutput
    history: History | None = None
    parallelize_plan: Mapping[str, str] | None = None
    stop_training = StopFlag("stop_training")
    stop_evaluating = StopFlag("stop_evaluating")
    stop_predicting = StopFlag("stop_predicting")
    _training_settings: TrainingSettings | None = None
    _run_context: RunContext | None = None
    _mesh: Mesh | None = None

    # Settings ------------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: PerOutput = None,
        loss_weights: PerOutput = None,
        metrics: PerOutput = None,
        weighted_metrics: PerOutput = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        precision: str | int | None = None,
        device: str | torch.device = "auto",
        strategy: Strategy = "auto",
        check_nan: bool = False,
        shard_modules: Sequence[Any] | None = None,
        parallelize_plan: Mapping[Any, str | None] | None = None,
        *,
        remat: str | ChosenModules | None = None,
        offload_optimizer: bool = False,
    ) -> None:
        """Say how the model is to be trained. (For torch's own compiler use `torch.compile(model)`.)

        Losses, weights and metrics may be given once, as a list in the outputs' order, or as a dict by their names.

        Args:
            optimizer: a name, an optimizer of `torchfunc.optimizers` or `torch.optim`, or what makes a torch optimizer
                from the weights: a class, `functools.partial` or function.
            loss: a name, a loss of `torchfunc.losses`, a torch loss module, or any `f(y_true, y_pred)`. None for an
                output that is not trained.
            loss_weights: numbers that the losses are multiplied by in the total.
            metrics: names, metrics of `torchfunc.metrics`, functions; they ignore sample weights.
            weighted_metrics: the like, weighted by sample and class weights.
            run_eagerly: the same as `jit_compile=False`.
            steps_per_execution: so many steps are executed at once, with one call of the hooks for batches.
            jit_compile: whether whole steps are compiled by torch.compile, one graph for each shape of batches: True;
                False; "auto": on CUDA, unless one cannot be, which is said once, and on the CPU as "payback": if it
                costs 5 % of a training at most. On the CPU another process prepares what holds no code of the user's
                and training goes on eagerly; after `utils.set_random_seed` or under
                `torch.use_deterministic_algorithms` the second step waits for it, and "payback" means False.
            auto_scale_loss: whether, under "16-mixed", the loss is scaled so that small gradients are not lost.
            precision: "32" (what None means unless `config.set_dtype_policy` said otherwise), "bf16-mixed" or
                "16-mixed": what `torch.autocast` computes in.
            device: where to train; "auto" is the accelerator if there is one and the model is still on the CPU.
            strategy: how several processes (`torchrun`) train one model. "ddp", which "auto" means: each has the whole
                model and its part of each batch, and gradients are summed. "fsdp": each has but a shard of the weights,
                their gradients and the optimizer's state, from the first `fit` on (torch's `fully_shard`; steps are not
                compiled). None: each works for itself. A mesh, a `torch.distributed.device_mesh.DeviceMesh` with the
                axes "data" and "model", or one of them, or their sizes, `{"data": 4, "model": 2}`: rows are shared out
                and weights sharded as with "fsdp" along the first, and layers split along the second (tensor
                parallelism), whose processes get the same rows.
            shard_modules: for "fsdp" and a mesh, what is gathered at once when it is called: modules of the model,
                their names or classes; by default each layer with weights.
            check_nan: whether to undo the first step that meets a NaN or an infinity, and raise a ValueError that says
                which input, target, layer or loss it is from. Each step waits for the device, and copies the weights.
            parallelize_plan: how layers are split along "model", by their names or classes: "colwise" and "rowwise"
                for Dense, EinsumDense, torch.nn.Linear and Embedding, "heads" for MultiHeadAttention and
                GroupQueryAttention, None for not at all. By default pairs of dense layers that follow each other
                elementwise, attention and embeddings are split where their sizes allow it, and all else is whole.
                `model.parallelize_plan` shows what came of it.
            remat: what is not kept for the gradients but computed again when they are, so that a step needs less memory
                and a third more time at most. "auto": the graph of a drawn model is cut into segments, of which but
                the inputs are kept, with as many as need the least by the shapes of what layers return (about sqrt(N)
                for N equal layers); of a model with a `call` each block: the layers and modules that hold others, and
                of those with lists of blocks these. Or a list of layers or modules, their names or classes. Random
                numbers, moving statistics, losses and metrics are those of one pass. (A compiled step keeps what it
                draws at random.)
            offload_optimizer: whether the optimizer's state is kept on the host, for weights on a device that it does
                not fit on beside them: each step copies gradients to the host (to pinned memory), is made there, and
                copies the weights back. With weights on the CPU it changes nothing. Not for torch optimizers, loss
                scaling ("16-mixed"), compiled steps and several processes.

        Raises:
            ValueError: a name is unknown, something belongs to no output, a setting is not available, or a torch
                optimizer holds none of the model's weights; a mesh has other axes, or is not one of all processes.

        >>> model = Sequential([Input((4,)), layers.Dense(1)])
        >>> model.compile(optimizers.Adam(0.01), "mse", metrics=["mae"])
        >>> model.compile(torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.MSELoss())
        """
        policy = dtype_policy()
        if precision is None and policy.compute_dtype != policy.variable_dtype:
            precision = policy.name
        execution = Execution.make(
            *(run_eagerly, steps_per_execution, jit_compile, precision),
            *(strategy, check_nan, shard_modules, parallelize_plan),
        ).saving_memory(remat)
        check_remat(self, remat)
        check_same_mesh(self, execution.strategy)
        use_own_device(strategy)
        made = get_optimizer(optimizer)
        scales = execution.precision.needs_loss_scale and auto_scale_loss
        if scales and made is not None and not isinstance(made, LossScaleOptimizer):
            made = LossScaleOptimizer(made)
        settings = TrainingSettings(
            made,
            execution,
            ParsedObjectives.parse(loss, loss_weights, metrics, weighted_metrics),
            wanted_device(self, device),
            loss_takes_training="training" in inspect.signature(self.compute_loss).parameters,
        )
        if (names := self.output_names) is not None:
            settings.match_outputs(list(names), len(names))
        if settings.device is not None:
            self.to(settings.device)
        weights = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # (Sharded weights are others than these, and so are those that take the place of weights on the meta device.)
        if isinstance(made, TorchOptimizer) and weights and not (execution.shards or any(w.is_meta for w in weights)):
            made.build(weights)
        # Nothing of an earlier `compile` is touched before all of this one is known to be right.
        set_offloading(offload_optimizer, made, execution)
        self._training_settings = settings
        self.optimizer = settings.optimizer
        if "loss" not in self._modules:
            # Not through `__setattr__`, which would make a part of the model of a module.
            self.__dict__["loss"] = loss
        self.compiled = True
        self.stop_training = False
        self.forget_functions()

    def require_settings(self, method: str) -> TrainingSettings:
        """What `compile` made. Raises ValueError, which names the method that needs it, if it was not called."""
        if self._training_settings is None:
            raise ValueError(f"Call `compile()` first: `{method}` needs to know the loss, the optimizer and metrics.")
        return self._training_settings

    def overrides(self, method: str) -> bool:
        """Whether the model redefines a method of `Trainer`."""
        return getattr(type(self), method) is not getattr(Trainer, method) or method in self.__dict__

    # Metrics -------------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[Metric]:
        """All metrics: the loss, the outputs' losses, those of `compile`, and those the model holds as attributes.

        Which metrics "accuracy" stands for, and the outputs of a subclassed model, are known after the first batch.
        """
        settings = current_settings(self)
        found = [] if settings is None else settings.metrics
        return found + [metric for metric in self._metrics_in_attributes() if metric not in found]

    def _metrics_in_attributes(self) -> list[Metric]:
        run = current_run(self)
        return metrics_in_attributes(self.modules()) if run is None else run.metrics

    @property
    def metrics_names(self) -> list[str]:
        """The names of the numbers that `evaluate` returns as a list. Raises AttributeError before `compile`."""
        settings = self._training_settings
        if settings is None:
            # Tools such as torch.jit.trace ask for all attributes.
            raise AttributeError("Call `compile()` first: `metrics_names` needs to know the loss and metrics.")
        names = {metric.name: metric for metric in self._metrics_in_attributes()}
        return settings.in_order({**settings.results(), **names})

    def reset_metrics(self) -> None:
        """Reset all metrics.

        >>> model = Sequential([Input((1,)), layers.Dense(1)])
        >>> model.compile("sgd", "mse", metrics=["mae"])
        >>> model.reset_metrics()
        """
        for metric in self.metrics:
            metric.reset_state()

    def get_metrics_result(self) -> Logs:
        """The current results by log name, as tensors on the model's device."""
        settings = current_settings(self)
        found = {} if settings is None else settings.results()
        return {**found, **{metric.name: metric.result() for metric in self._metrics_in_attributes()}}

    def graph_key(self) -> Hashable | None:
        """The settings that a compiled step takes for constants; as for `Layer.graph_key`."""
        # These are for the loop.
        return settings_key(self, ignored=("stop_training", "stop_evaluating", "stop_predicting", "loss"))

    # Whole data sets -----------------------------------------------------------------------------------------------

    def fit(
        self,
        x: ArrayLike = None,
        y: ArrayLike = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: ClassWeight | None = None,
        sample_weight: ArrayLike = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train the model.

        Args:
            x: inputs `(rows, ...)`: arrays, tensors, lists or dicts of them; or a `DataLoader`, a `Dataset`, or an
                iterable of batches `(x, y)` or `(x, y, sample_weight)`.
            y: targets, likewise; not beside a DataLoader or iterable.
            batch_size: rows a step, 32 by default; of several processes, all together. (The batches of a DataLoader or
                an iterable are those of each process.)
            epochs: the epoch to stop before, counted from 0.
            verbose: 0 for silence, 1 for a progress line (what "auto" means), 2 for one plain line an epoch.
            callbacks: a callback or a list of them.
            validation_split: the last share of the rows, before shuffling, is not trained on but evaluated.
            validation_data: `(x, y)`, `(x, y, sample_weight)`, or what gives such batches. Comes before the split.
            shuffle: whether rows come in a new order each epoch (by `torch.manual_seed`'s generator).
            class_weight: weights of samples by the class index of their target.
            sample_weight: weights `(rows,)` or of each value; like y for several outputs, or one array for all.
            initial_epoch: the epoch to begin with.
            steps_per_epoch: batches an epoch; by default all there are.
            validation_steps: batches of a validation; by default all there are.
            validation_batch_size: rows a validation step; by default `batch_size`.
            validation_freq: validate every so many epochs, or after the epochs in this list (counted from 1).

        Returns:
            the logs of all epochs.

        Raises:
            ValueError: the data do not fit each other or the model, or the model was not compiled.

        >>> model = Sequential([Input((1,)), layers.Dense(1)])
        >>> model.compile(optimizers.SGD(0.5), "mse")
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> history = model.fit(x, 3 * x + 2, epochs=50, verbose=0)
        >>> [round(weight.item(), 2) for weight in model.weights]
        [3.0, 2.0]
        """
        settings = self.require_settings("fit")
        device = device_of(self, settings.device)
        verbose = checked_verbose(verbose)
        check_fit(
            epochs,
            initial_epoch,
            validation_freq,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
        )
        weigh = class_weigher(class_weight, self, settings)
        expected = self._expected_data()
        data = parse_data(x, y, sample_weight, expected, batch_size)
        data, validation_data = with_validation(data, validation_data, validation_split, expected)
        with joined(settings, device) as processes, contextlib.ExitStack() as closing:
            batches_of = partial(make_batches, device=device, floats=expected.floats, processes=processes)
            stream = batches_of(data, batch_size, steps_per_epoch, shuffle, weigh, continues=True)
            validation = None
            if validation_data is not None:
                size = (validation_batch_size or batch_size) if takes_batch_size(validation_data) else None
                validation = batches_of(validation_data, size, validation_steps)
            callback_list = self._callback_list(callbacks, verbose, epochs, stream, processes, add_history=True)
            closing.callback(callback_list.close)
            build_for_data(self, stream, device)
            for part in (stream, validation):
                if part is not None:
                    check_data(self, settings.objectives, part)
            numbers = range(initial_epoch, epochs)
            check_agreement(processes, self, "fit", stream, validation, epochs=numbers, callbacks=callback_list)
            prepare(self, processes, settings.execution)
            with (
                run_modes.training(self, settings, device) as run,
                run_modes.undone_without_a_step(self, settings),
                shared_training(self, processes),
                stoppable(self, "stop_training") as stop,
            ):
                run_epochs(self, run, stream, callback_list, numbers, validation, validation_freq, stop)
            assert callback_list.history is not None
            return callback_list.history

    def evaluate(
        self,
        x: ArrayLike = None,
        y: ArrayLike = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: ArrayLike = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics over all the data; arguments as for `fit`.

        Returns:
            with `return_dict` the numbers by name; else the loss, or a list with the loss first (`metrics_names`).

        Raises:
            ValueError: the data do not fit each other or the model, or the model was not compiled.

        >>> model = Sequential([Input((1,)), layers.Dense(1, kernel_initializer="ones")])
        >>> model.compile("sgd", "mse", metrics=["mae"])
        >>> model.evaluate(np.ones((8, 1)), np.full((8, 1), 3.0), verbose=0)
        [4.0, 2.0]
        """
        settings = self.require_settings("evaluate")
        device = device_of(self, settings.device)
        check_counts(batch_size=batch_size, steps=steps)
        expected = self._expected_data()
        data = parse_data(x, y, sample_weight, expected, batch_size)
        verbose = checked_verbose(verbose)
        with joined(settings, device) as processes, contextlib.ExitStack() as closing:
            stream = make_batches(data, batch_size, steps, device=device, floats=expected.floats, processes=processes)
            callback_list = self._callback_list(callbacks, verbose, 1, stream, processes)
            closing.callback(callback_list.close)
            build_for_data(self, stream, device)
            check_data(self, settings.objectives, stream)
            check_agreement(processes, self, "evaluate", stream)
            with run_modes.evaluating(self, settings) as run:
                return run.settings.returned(run_evaluation(self, run, stream, callback_list), return_dict)

    def predict(
        self,
        x: ArrayLike,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for all the data, computed batch by batch; arguments as for `fit`. Needs no `compile`.

        Returns:
            NumPy arrays `(rows, ...)` in the structure that the model returns.

        >>> model = Sequential([Input((1,)), layers.Dense(2, kernel_initializer="ones")])
        >>> model.predict(np.array([[3.0], [5.0]]), verbose=0)
        array([[3., 3.],
               [5., 5.]], dtype=float32)
        """
        settings = self._training_settings
        device = device_of(self, None if settings is None else settings.device)
        check_counts(batch_size=batch_size, steps=steps)
        expected = self._expected_data()
        data = parse_data(x, expected=expected, batch_size=batch_size)
        if not verbose and callbacks is None and is_one_batch(data, batch_size, steps):
            # Of several processes, each computes it all.
            self.__dict__["stop_predicting"] = False
            batch = built_for(self, data.to(device).packed, device)
            return run_single_prediction(self, settings, batch, device)
        verbose = checked_verbose(verbose)
        with joined(settings, device) as processes, contextlib.ExitStack() as closing:
            stream = make_batches(data, batch_size, steps, device=device, floats=expected.floats, processes=processes)
            callback_list = self._callback_list(callbacks, verbose, 1, stream, processes)
            closing.callback(callback_list.close)
            build_for_data(self, stream, device)
            check_agreement(processes, self, "predict", stream)
            return run_prediction(self, settings, stream, callback_list, processes)

    def _callback_list(
        self,
        callbacks: Any,
        verbose: int,
        epochs: int,
        stream: EpochStream,
        processes: Processes | None,
        add_history: bool = False,
    ) -> CallbackList:
        """The user's callbacks, with a progress line and a history if asked for; a `CallbackList` is taken as it is."""
        is_first = processes is None or processes.is_first
        if isinstance(callbacks, CallbackList):
            callbacks.set_first_process(is_first)
            if add_history:
                callbacks.ensure_history(self)
            return callbacks
        params = {"verbose": verbose, "epochs": epochs, "steps": stream.num_batches}
        return CallbackList(callbacks, add_history, verbose != 0 and is_first, self, is_first, **params)
