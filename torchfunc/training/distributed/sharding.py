"""FSDP2: the weights of a model, their gradients and the optimizer's state sharded over the processes, layer by layer.

torch's `fully_shard` gathers a layer's weights when it is called, and again for its gradients, which it then reduces.
It does so in hooks of `backward()`, so that a step is not one graph. Of a mesh with two axes it does so along the outer
one, with the parts of layers that are split along the inner one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from torchfunc.optimizers import Adafactor, LossScaleOptimizer
from torchfunc.saving.sharded import is_sharded
from torchfunc.training.chosen_modules import ChosenModules, chosen_modules
from torchfunc.training.distributed.meshes import Mesh
from torchfunc.training.distributed.parallel_plan import make_plan
from torchfunc.training.distributed.processes import Processes
from torchfunc.training.distributed.tensor_parallel import split_layers
from torchfunc.training.settings import Execution
from torchfunc.training.trainable import Trainable

__all__ = ["check_same_mesh", "shard", "sharded_gradients", "whole_penalty"]


def shard(model: Trainable, processes: Processes, execution: Execution) -> None:
    """Shard the whole weights of a built model, in place; those of the first process.

    Raises:
        ValueError: a module to shard is not the model's, or the optimizer has state for whole weights, or something is
            not available with sharded weights; a layer cannot be split as the plan says.
    """
    # (Not needed otherwise.)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    strategy = "strategy='fsdp'" if processes.mesh is None else "A mesh as `strategy`"
    if execution.jit is True:
        raise ValueError(f"{strategy} works layer by layer, and no step is one graph: leave out jit_compile=True.")
    if model.has_own_training():
        raise ValueError(f"{strategy} needs the default training step, and this model has one of its own.")
    if model.optimizer is not None and model.optimizer.built:
        raise ValueError(
            f"The optimizer was built for whole weights, and {strategy} shards them. Call `compile` again with a "
            "new one; a torch optimizer is given as a class, functools.partial or function."
        )
    if isinstance(model.optimizer, (Adafactor, LossScaleOptimizer)):
        raise ValueError(
            f"{strategy} shards the weights, with which {type(model.optimizer).__name__} does not work. Take "
            "another optimizer (and, in place of '16-mixed', the precision 'bf16-mixed'), or strategy='ddp'."
        )
    sparse = [path for path, layer in model.named_modules() if getattr(layer, "sparse_gradient", False)]
    if sparse:
        raise ValueError(
            f"{strategy} shards gradients, and that of layer {sparse[0]!r} is sparse. Make it with "
            "sparse_gradient=False, or take strategy='ddp'."
        )
    weights = next(model.parameters(), None)
    if weights is None:
        return
    if processes.mesh is None:
        mesh = init_device_mesh(weights.device.type, (processes.size,))
    else:
        mesh = _split(model, processes.mesh, weights.device, execution)
    low = execution.precision.dtype
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32) if low else MixedPrecisionPolicy()
    for module in _units(model, execution.shard_modules):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(model, "forward_for_training")
    model.__dict__["_mesh"] = None if isinstance(execution.strategy, str) else execution.strategy


def check_same_mesh(model: Trainable, strategy: str | Mesh | None) -> None:
    """Raise ValueError if the weights of a model are sharded over other axes than a strategy has."""
    mesh = None if isinstance(strategy, str) else strategy
    if is_sharded(model) and model._mesh != mesh:
        raise ValueError(
            f"The weights of the model {model.name!r} are sharded "
            + ("by strategy='fsdp'" if model._mesh is None else f"over {model._mesh}")
            + f", so `strategy` cannot become {strategy!r}. Make the model anew, from a file say, for another strategy."
        )


def _split(model: Trainable, mesh: DeviceMesh, device: torch.device, execution: Execution) -> DeviceMesh:
    """Split layers along the axis "model" of a mesh. Returns the other axis."""
    if mesh.device_type != device.type:
        raise ValueError(
            f"The model is on {device.type!r}, and the mesh for `strategy` on {mesh.device_type!r}. Make the mesh with "
            f"init_device_mesh({device.type!r}, ...), or give `compile` the device."
        )
    if mesh["model"].size() > 1:
        plan = make_plan(model, mesh["model"].size(), execution.parallelize_plan)
        split_layers(model, mesh["model"], plan)
        styles = {path: split.style for path, split in plan.items() if split.style != "apart"}
        model.__dict__["parallelize_plan"] = styles
    return mesh["data"]


def _units(model: Trainable, chosen: ChosenModules | None) -> list[nn.Module]:
    """The modules that are sharded each by itself, inner ones first: those chosen, or each layer with weights."""
    if chosen is not None:
        return chosen_modules(model, chosen, "shard_modules")
    layers: list[Any] = list(_layers(model))
    return [layer for layer in layers if next(layer.parameters(), None) is not None]


def _layers(model: Any) -> Iterable[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def whole_penalty(value: Tensor) -> Tensor:
    """The penalty on a weight, of all its shards, as a number without a gradient."""
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole.detach()


def sharded_gradients(
    loss: Tensor,
    weights: Sequence[Tensor],
    penalties: Sequence[Callable[[], Tensor]],
    scale: Callable[[Tensor], Tensor],
) -> list[Tensor | None]:
    """The gradients of sharded weights: those of a loss, which are reduced over all processes, and of penalties.

    Penalties are the same in all processes, each of which has the gradients for its shards at once.

    Args:
        loss: this process' share of the loss, scaled.
        weights: the weights.
        penalties: functions that give what is added to the loss of the whole batch.
        scale: scales a penalty as the loss.
    """
    before = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        loss.backward()
        gradients = [weight.grad for weight in weights]
    finally:
        for weight, grad in zip(weights, before, strict=True):
            weight.grad = grad
    for penalty in penalties:
        for number, more in enumerate(torch.autograd.grad(scale(penalty()), weights, allow_unused=True)):
            if more is not None:
                own = gradients[number]
                gradients[number] = more if own is None else own + more
    return gradients
