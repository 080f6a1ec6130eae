"""`TrainingSettings`: what `compile` was given, and what was made of it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from torchfunc.graph import modules_within
from torchfunc.meta_weights import require_values
from torchfunc.metrics import Metric
from torchfunc.metrics.reduction import LossMean
from torchfunc.modules.recomputation import Recomputing
from torchfunc.optimizers import Optimizer
from torchfunc.structures import first_leaf
from torchfunc.training.compiled_step import CompiledStep
from torchfunc.training.data.arrays import Tensors
from torchfunc.training.distributed.meshes import Mesh, Strategy, parse_mesh
from torchfunc.training.distributed.processes import STRATEGIES, Processes
from torchfunc.training.matching import flatten_outputs
from torchfunc.training.outputs import Objectives, ParsedObjectives, matching_outputs
from torchfunc.training.payback import Payback
from torchfunc.training.process_settings import ThreadProbe

__all__ = ["Execution", "Precision", "TrainingSettings", "device_of", "parameters_of", "wanted_device"]

# Lightning's names and Keras' for the same thing.
_PRECISIONS = {
    "32": None,
    "float32": None,
    "32-true": None,
    "bf16-mixed": torch.bfloat16,
    "mixed_bfloat16": torch.bfloat16,
    "16-mixed": torch.float16,
    "mixed_float16": torch.float16,
}


class Precision:
    """What `compile(precision=...)` says: weights stay as they are, and `torch.autocast` picks the type of each kernel.

    Args:
        name: None or "32" for no autocast, "bf16-mixed" or "16-mixed"; Keras' "mixed_bfloat16" and "mixed_float16" mean
            the same.

    Attributes:
        name: what was given.
        dtype: the type for `torch.autocast`; None without autocast.

    Raises:
        ValueError: there is no such precision.
    """

    def __init__(self, name: str | int | None) -> None:
        key = "32" if name is None else str(name)
        if key not in _PRECISIONS:
            raise ValueError(f"`precision` is '32', 'bf16-mixed' or '16-mixed', got {name!r}.")
        self.name = name
        self.dtype = _PRECISIONS[key]

    @property
    def needs_loss_scale(self) -> bool:
        """Whether small gradients would become 0: float16 has but five bits for the exponent."""
        return self.dtype is torch.float16

    def autocast(self, x: Tensors) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass on these inputs, and of its losses."""
        return contextlib.nullcontext() if self.dtype is None else torch.autocast(first_leaf(x).device.type, self.dtype)


@dataclass(frozen=True)
class Execution:
    """The settings of `compile` that say how steps are executed.

    Attributes:
        jit: whether steps are compiled: True, False, "auto" or "payback".
        steps: how many steps are executed at once.
        precision: what they compute in.
        strategy: how several processes share the work: "auto", "ddp", "fsdp" or a mesh; None if each works for itself.
        check_nan: whether each step is checked for values that are no finite numbers.
        shard_modules: where weights are sharded, the modules that are so each by itself; None for the layers.
        parallelize_plan: how layers are split over the axis "model" of a mesh, where not as by default.
        remat: what is recomputed for the gradients: "auto", or layers; None for nothing.
    """

    jit: bool | str
    steps: int
    precision: Precision
    strategy: str | Mesh | None = "auto"
    check_nan: bool = False
    shard_modules: Sequence[Any] | None = None
    parallelize_plan: Mapping[Any, str | None] | None = None
    remat: str | Sequence[Any] | None = None

    @classmethod
    def make(
        cls,
        run_eagerly: bool,
        steps_per_execution: int,
        jit_compile: bool | str | None,
        precision: str | int | None,
        strategy: Strategy = "auto",
        check_nan: bool = False,
        shard_modules: Sequence[Any] | None = None,
        parallelize_plan: Mapping[Any, str | None] | None = None,
    ) -> Execution:
        """Check the arguments of `compile`. Raises ValueError for what is none of the choices."""
        if isinstance(steps_per_execution, bool) or not isinstance(steps_per_execution, int) or steps_per_execution < 1:
            raise ValueError(f"`steps_per_execution` is an integer of at least 1, got {steps_per_execution!r}.")
        jit = False if jit_compile is None else jit_compile
        if jit not in (True, False, "auto", "payback"):
            raise ValueError(f"`jit_compile` is True, False, 'auto' or 'payback', got {jit_compile!r}.")
        if run_eagerly and jit is True:
            raise ValueError("`run_eagerly=True` and `jit_compile=True` exclude each other.")
        shared = parse_mesh(strategy) if isinstance(strategy, (DeviceMesh, Mapping)) else strategy
        if not isinstance(strategy, (DeviceMesh, Mapping)) and strategy not in STRATEGIES:
            raise ValueError(f"`strategy` is 'auto', 'ddp', 'fsdp', a mesh or None, got {strategy!r}.")
        if parallelize_plan is not None and (shared is None or isinstance(shared, str)):
            raise ValueError(
                "`parallelize_plan` says how layers are split over the axis 'model' of a mesh, and `strategy` is "
                f"{strategy!r}."
            )
        if parallelize_plan is not None and not isinstance(parallelize_plan, Mapping):
            raise ValueError(
                f"`parallelize_plan` is a dict of layers and how they are split, got {parallelize_plan!r}."
            )
        if not isinstance(check_nan, bool):
            raise ValueError(f"`check_nan` is True or False, got {check_nan!r}.")
        jit = False if run_eagerly else jit
        return cls(jit, steps_per_execution, Precision(precision), shared, check_nan, shard_modules, parallelize_plan)

    def saving_memory(self, remat: str | Sequence[Any] | None) -> Execution:
        """The same with less memory. Raises ValueError for what is none of the choices."""
        if remat not in (None, "auto") and not isinstance(remat, (list, tuple)):
            raise ValueError(f"`remat` is 'auto', a list of layers, their names or classes, or None, got {remat!r}.")
        return dataclasses.replace(self, remat=remat)

    @property
    def shards(self) -> bool:
        """Whether each of several processes is to have but a part of the weights."""
        return self.strategy not in ("auto", "ddp", None)

    def compiles(self, method: str, device: torch.device) -> bool:
        """Whether this kind of step is compiled on this device, or may be."""
        if self.weighs(device):
            return method == "train_step"
        return device.type == "cuda" if self.jit == "auto" else bool(self.jit)

    def weighs(self, device: torch.device) -> bool:
        """Whether it depends on how long a training takes: on the CPU, compiling takes longer than most save."""
        return self.jit == "payback" or (self.jit == "auto" and device.type == "cpu")


@dataclass
class TrainingSettings:
    """What `compile` was given, and what was made of it.

    One plain object, so that nothing in it (a torch loss module, say) is taken for a part of the model.

    Attributes:
        optimizer: the optimizer; None for a model that is only evaluated.
        execution: how steps are executed.
        parsed: losses and metrics as they were given.
        device: where the model is to be; None leaves it where it is.
        loss_takes_training: whether the model's `compute_loss` has an argument `training`.
        loss_tracker: the mean of the total loss, "loss" in the logs.
        objectives: losses and metrics output by output; None until the outputs are known.
        missing_gradients_checked: whether weights without a gradient were looked for.
        graphs: for each method ("train_step" ...) its compiled steps, by their graph keys.
        payback: says when to compile, if that depends on how long the training takes.
        thread_probe: finds the number of threads for a run, if that is asked for.
        processes: those that share the work of the current run, if there are several.
        recomputing: what recomputes in training runs, if that is asked for.
        is_known: whether all losses and metrics are torchfunc's or torch's own code.
    """

    optimizer: Optimizer | None
    execution: Execution
    parsed: ParsedObjectives
    device: torch.device | None = None
    loss_takes_training: bool = True
    loss_tracker: LossMean = field(default_factory=lambda: LossMean("loss"))
    objectives: Objectives | None = None
    missing_gradients_checked: bool = False
    graphs: dict[str, dict[Hashable, CompiledStep]] = field(default_factory=dict)
    payback: Payback | None = None
    thread_probe: ThreadProbe | None = None
    processes: Processes | None = None
    recomputing: Recomputing | None = None
    is_known: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_known = all(each.graph_key() is not None for each in self.parsed.losses_and_metrics())

    def __getstate__(self) -> dict[str, Any]:
        # These are bound to this very model, not to a copy.
        of_model = dict.fromkeys(("payback", "thread_probe", "processes", "recomputing"))
        return {**self.__dict__, **of_model, "graphs": {}}

    def only_graph(self, method: str) -> CompiledStep:
        """The one compiled step of this kind that there is."""
        [graph] = self.graphs[method].values()
        return graph

    def apart(self) -> TrainingSettings:
        """The same settings for a run beside another one: copies of the metrics, and steps that are not compiled.

        Raises:
            ValueError: a metric cannot be copied.
        """
        kept = [self.parsed.given, *self.parsed.losses_and_metrics()]
        shared: dict[int, Any] = {id(each): each for each in kept if not isinstance(each, Metric)}
        try:
            with matching_outputs, torch.inference_mode(False):
                counted = copy.deepcopy((self.loss_tracker, self.objectives, self.parsed), shared)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                "Another thread trains or evaluates this model now, so this run needs metrics of its own, but the "
                f"metrics cannot be copied: {error}"
            ) from error
        tracker, objectives, parsed = counted
        alone = dataclasses.replace(self.execution, jit=False)
        return dataclasses.replace(
            self,
            execution=alone,
            parsed=parsed,
            loss_tracker=tracker,
            objectives=objectives,
            graphs={},
            payback=None,
            thread_probe=None,
        )

    def match_outputs(self, names: list[str] | None, count: int) -> Objectives:
        """Match losses and metrics with outputs that are now known.

        Raises:
            ValueError: something names no output, or a list does not fit the outputs.
        """
        self.objectives = Objectives.match(self.parsed, names, count)
        return self.objectives

    def objectives_for(self, y_pred: Any) -> Objectives:
        """Losses and metrics, matched now if the model's outputs are only known from a call."""
        if self.objectives is not None:
            return self.objectives
        leaves, names = flatten_outputs(y_pred, None)
        return self.match_outputs(names, len(leaves))

    @property
    def metrics(self) -> list[Metric]:
        """All metrics: the total loss, each output's loss, then those given. Some are known from the first batch on."""
        objectives = self.objectives
        if objectives is None or not objectives.resolved:
            return [self.loss_tracker]
        return [self.loss_tracker, *objectives.trackers, *(metric for _, metric in objectives.log_names)]

    def to(self, device: torch.device) -> None:
        """Move metrics and losses to the model's device."""
        for metric in self.metrics:
            metric.to(device)
        if self.objectives is not None and self.objectives.resolved:
            for output in self.objectives.outputs:
                if output.loss is not None:
                    output.loss.to(device)

    def results(self) -> dict[str, Any]:
        """The current values under their log names, still on the device."""
        found = {"loss": self.loss_tracker.result()}
        if self.objectives is None:
            return found
        for name, metric in self.objectives.log_names:
            result = metric.result()
            if isinstance(result, Mapping):
                # Its own names, unless another metric has them.
                found.update({f"{name}_{key}" if key in found else key: value for key, value in result.items()})
            else:
                found[name] = result
        found.update({tracker.name: tracker.result() for tracker in self.objectives.trackers})
        return found

    def in_order(self, logs: Mapping[str, Any]) -> list[str]:
        """The names of `logs` in the order of the list that `evaluate` returns.

        As in Keras: the loss, metrics that are logged under their own name, the outputs' losses, then all else by name.
        """
        first = ["loss"]
        if self.objectives is not None:
            first += [metric.name for _, metric in self.objectives.log_names]
            first += [tracker.name for tracker in self.objectives.trackers]
        first = [name for name in dict.fromkeys(first) if name in logs]
        return first + sorted(name for name in logs if name not in first)

    def returned(self, logs: dict[str, Any], return_dict: bool) -> Any:
        """What `evaluate` returns: the logs, or their values with the loss first, or the loss alone."""
        if return_dict:
            return logs
        values = [logs[name] for name in self.in_order(logs)]
        return values[0] if len(values) == 1 else values


def device_of(model: nn.Module, wanted: torch.device | None = None) -> torch.device:
    """Where batches are needed: `wanted`, else where the model's first weight is, else the CPU.

    Raises:
        ValueError: that is the meta device.
    """
    found = _first_device(model) if wanted is None else wanted
    if found.type == "meta":
        require_values(model)
    return found


def _first_device(model: nn.Module) -> torch.device:
    modules = modules_within(model)
    tables: list[Mapping[str, Any]] = [each._parameters for each in modules] + [each._buffers for each in modules]
    for table in tables:
        for _, tensor in table.items():
            if tensor is not None:
                return torch.device(tensor.device)
    return torch.device("cpu")


def parameters_of(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of these modules, each once: what `parameters()` gives, which takes longer than a small call."""
    tables = [module._parameters for module in modules]
    # (By `items()`: of a ScriptModule this is not quite a dict.)
    return list({id(each): each for table in tables for _, each in table.items() if each is not None}.values())


def wanted_device(model: nn.Module, device: str | torch.device) -> torch.device | None:
    """Where `compile(device=...)` wants the model: "auto" is the accelerator, for a model that is still on the CPU."""
    if device != "auto":
        return torch.device(device)
    here = _first_device(model)
    return torch.accelerator.current_accelerator() if here.type == "cpu" and torch.accelerator.is_available() else None
