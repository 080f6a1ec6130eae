"""The first value that is no finite number: looked for after each step if `compile` is asked to, and where it is from.

Where it comes from is looked up when it is there, and costs nothing before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.graph import FailedCall, format_source
from torchfunc.modules import GraphNetwork, TrainingOutputs
from torchfunc.snapshots import restored, snapshot
from torchfunc.structures import leaves
from torchfunc.training.data.array_batches import gathered
from torchfunc.training.data.arrays import Batch, unpack_x_y_sample_weight
from torchfunc.training.data.parts import data_of
from torchfunc.training.odd_values import list_values, named_inputs, named_targets, not_finite
from torchfunc.training.resume import optimizer_state, set_optimizer_state, weights_of
from torchfunc.training.settings import TrainingSettings
from torchfunc.training.trainable import Trainable

__all__ = ["CheckedStep", "source_of_nan"]


class CheckedStep:
    """A step that is undone when it meets the first NaN or infinity, and raises an error that says where it is from.

    Args:
        step: the step, a function of one batch.
        model: the model.
        settings: what it was compiled with.
        trains: whether the step changes the weights.
    """

    def __init__(self, step: Callable[[Any], Any], model: Trainable, settings: TrainingSettings, trains: bool) -> None:
        self._step, self._model, self._settings, self._trains = step, model, settings, trains

    def __call__(self, data: Any) -> Any:
        undo = self._undo() if self._trains else None
        outcome = self._step(data)
        loss = self._settings.loss_tracker.result()
        logs = outcome[0]
        if isinstance(logs, dict) and "loss" in logs:
            loss = torch.as_tensor(logs["loss"])
        odd = not bool(torch.isfinite(loss).all())
        if odd or (self._trains and any(not_finite(weight) is not None for weight in self._model.parameters())):
            if undo is not None:
                undo()
            what = f"The loss is {loss.item()}" if odd else "An update makes weights that are not finite"
            source = source_of_nan(self._model, self._settings, [data], self._trains)
            raise ValueError(f"{what}. {source}{' The model is as it was before.' if self._trains else ''}")
        return outcome

    def _undo(self) -> Callable[[], None]:
        """What restores weights, buffers and the optimizer as they are now."""
        restore = snapshot(weights_of(self._model).values())
        optimizer = self._settings.optimizer
        state = copy.deepcopy(optimizer_state(optimizer))

        def undo() -> None:
            restore()
            with torch.no_grad():
                set_optimizer_state(optimizer, state)

        return undo


def source_of_nan(model: Trainable, settings: TrainingSettings, batches: Sequence[Any], training: bool) -> str:
    """A sentence or two on where the first value that is no finite number comes from.

    Args:
        model: the model.
        settings: what it was compiled with.
        batches: those of the step that met it.
        training: whether that was training.
    """
    batch = Batch(None)
    for each in batches:
        batch = unpack_x_y_sample_weight(data_of(gathered(each)))
        for name, value in (*named_inputs(model, batch.x), *named_targets(batch)):
            odd = not_finite(value)
            if odd is not None:
                return f"{name} holds {list_values(value, odd)}."
    for name, weight in model.named_parameters():
        odd = not_finite(weight)
        if odd is not None:
            return (
                f"No value of the batch's data is to blame, but the weight {name!r} holds "
                f"{list_values(weight.detach(), odd)}. `compile(check_nan=True)` stops before a step that makes such "
                "weights, and says where it comes from."
            )
    with torch.no_grad(), restored(model.buffers()):
        prepared = model.prepare_inputs(batch.x)
        drawn = isinstance(model, GraphNetwork) and model.keeps_inputs()
        found = (_in_graph if drawn else _in_modules)(model, prepared, training)
        return found or _in_losses(model, settings, batch, prepared, training)


def _in_graph(model: Any, prepared: Sequence[Any], training: bool) -> str | None:
    """The first call of a drawn model that makes such a value of finite ones."""
    drawn = model.drawn
    nodes = [node for node in drawn.nodes if node.op != "input"]
    computed = model.compute([node.output_values for node in nodes], *prepared, training=training)
    known = dict(zip(drawn.input_tensors, prepared, strict=True))
    for node, outputs in zip(nodes, computed, strict=True):
        given = [known[value] for value in node.inputs if value in known]
        for value, output in zip(node.output_values, outputs, strict=True):
            known[value] = output
            odd = not_finite(output)
            if odd is not None:
                kind = type(node.target).__name__ if isinstance(node.target, nn.Module) else "a call"
                where = format_source(node.source)
                return _made(f"{drawn.name_of(node)!r} ({kind}{f', drawn at {where}' if where else ''})", output, given)
    return None


def _in_modules(model: Any, prepared: Sequence[Any], training: bool) -> str | None:
    """The first part of any other model that makes such a value."""
    found: list[str] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        tensors = [leaf for leaf in leaves(args) if isinstance(leaf, Tensor)]
        for leaf in leaves(output) if not found else ():
            if not_finite(leaf) is not None:
                found.append(_made(FailedCall(module, ()).describe(model), leaf, tensors))
                return

    hooks = [module.register_forward_hook(look) for module in model.modules() if module is not model]
    try:
        model(*prepared, training=training)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _made(what: str, output: Tensor, given: Sequence[Any]) -> str:
    odd = not_finite(output)
    assert odd is not None
    ranges = ", and between ".join(_range(value) for value in given if isinstance(value, Tensor) and value.numel())
    said = f"No value of the batch's data is to blame: {what} makes {list_values(output, odd)}"
    return f"{said}, from values between {ranges}." if ranges else f"{said}."


def _range(tensor: Tensor) -> str:
    return f"{tensor.min().item():.4g} and {tensor.max().item():.4g}"


def _in_losses(
    model: Trainable, settings: TrainingSettings, batch: Batch, prepared: Sequence[Any], training: bool
) -> str:
    outputs = TrainingOutputs(model(*prepared, training=training))
    objectives = settings.objectives_for(outputs.y_pred)
    for output, part in zip(objectives.outputs, objectives.match_batch(batch, outputs), strict=True):
        if output.loss is None or part.target is None:
            continue
        value = output.loss(part.target, part.prediction, part.sample_weight, part.mask)
        if not_finite(value) is not None:
            return (
                f"All that the model computes is finite, but the loss{output.of} ({output.loss.name}) is "
                f"{value.item()}, for targets between {_range(part.target)} and predictions between "
                f"{_range(part.prediction)}."
            )
    return (
        "Data, layers and the losses of the outputs are finite, so it is a gradient, a penalty on weights, or what "
        "`add_loss` added. A smaller learning rate, or the optimizer's `clipnorm=1.0`, often helps."
    )
