"""Tensor parallelism: layers whose weights are split over the processes that get the same rows.

torch's `parallelize_module` with styles for the layers here, which compute with a process' own part of the weights and
exchange what belongs together: an input's gradient and an output's columns where a layer is split by columns, an
output's sum where by rows. The weights are `DTensor`s.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from torchfunc import layers
from torchfunc.layers.base.input_dtype import in_dtype_of
from torchfunc.training.distributed.parallel_plan import Split, WeightAxes

__all__ = ["split_layers"]


def split_layers(model: nn.Module, mesh: DeviceMesh, plan: Mapping[str, Split]) -> None:
    """Split layers, whose weights are the same in all processes, in place.

    Args:
        model: the model.
        mesh: the one axis of the processes that get the same rows.
        plan: how, by the paths of layers.
    """
    # (Not needed otherwise.)
    from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module

    class Style(ParallelStyle):
        def __init__(self, split: Split) -> None:
            super().__init__()
            self.split = split

        def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
            if self.split.style == "apart":
                _draw_apart(module, device_mesh)
            elif self.split.style == "heads":
                _split_heads(module, device_mesh)
            else:
                _split_weights(module, device_mesh, self.split)
            return module

    # Which advises another mesh whenever a weight is put together over both axes.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    for path, split in plan.items():
        parallelize_module(model.get_submodule(path), mesh, Style(split))


def _split_weights(layer: Any, mesh: DeviceMesh, split: Split, copied: bool = False) -> None:
    """Keep a part of a layer's weights, and compute with it.

    Args:
        layer: the layer.
        mesh: the processes.
        split: by columns or by rows.
        copied: whether the input's gradients are summed already.
    """
    from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

    axes = WeightAxes.of(layer)
    by_columns = split.style == "colwise"
    axis = axes.columns if by_columns else axes.rows
    assert axis is not None
    places: dict[str, Any] = {"weight": Shard(axis), "bias": Replicate()}
    bias = layer._parameters.get("bias")
    if by_columns and bias is not None and axes.bias is not None:
        places["bias"] = Shard(axes.bias % bias.ndim)
    # A bias for all columns gets the gradients of all.
    sums_bias = by_columns and axes.bias is None
    for name, weight in layer._parameters.items():
        if weight is not None:
            part = distribute_tensor(weight.detach(), mesh, [places[name]], src_data_rank=None)
            layer.register_parameter(name, nn.Parameter(part, requires_grad=weight.requires_grad))
    kind = _Columns if by_columns else (_Vectors if isinstance(layer, layers.Embedding) else _Rows)
    exchange = _Exchange(mesh)
    # Not by `__setattr__`, which looks for layers in what it is given.
    layer.__dict__["forward"] = kind(layer, exchange, split.within, copied, [Partial()] if sums_bias else None).forward


def _split_heads(layer: Any, mesh: DeviceMesh) -> None:
    exchange = _Exchange(mesh)
    for name, projection in layer.named_children():
        if "weight" in projection._parameters:
            style = "rowwise" if name == "out_proj" else "colwise"
            _split_weights(projection, mesh, Split(style, within=True), copied=True)
    layer.register_forward_pre_hook(partial(_enter_heads, exchange), with_kwargs=True)
    if layer.dropout:
        _draw_apart(layer, mesh)


def _enter_heads(
    exchange: _Exchange, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask = kwargs.get("attention_mask")
    query = args[0] if args else kwargs["query"]
    if kwargs.get("return_attention_scores") or (mask is not None and mask.ndim > query.ndim and mask.shape[-3] > 1):
        raise ValueError(
            f"{layer.describe()} is split by its heads over several processes, so it takes no mask for each head and "
            "returns no scores. Leave it whole by `parallelize_plan`."
        )
    copies: dict[int, Tensor] = {}

    def copied(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if id(value) not in copies:
            copies[id(value)] = exchange.copy(value)
        return copies[id(value)]

    return tuple(map(copied, args)), {name: copied(value) for name, value in kwargs.items()}


def _draw_apart(module: Any, mesh: DeviceMesh) -> None:
    """Let a module that meets parts draw other random numbers in each process, and leave the shared ones alike."""
    restores: list[Any] = []

    def enter(module: Any, args: Any) -> None:
        if not module.training:
            return
        # The same in all processes, as are the numbers that come after it.
        seed = int(torch.randint(2**62, ()))
        fork = torch.random.fork_rng([torch.cuda.current_device()] if mesh.device_type == "cuda" else [])
        fork.__enter__()
        restores.append(fork)
        torch.manual_seed(seed + mesh.get_local_rank())

    def leave(module: Any, args: Any, output: Any) -> None:
        if restores:
            restores.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)


class _Exchange:
    """What processes with the same rows exchange; each is right in both directions.

    Args:
        mesh: the processes.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

        self.size, self.rank = mesh.size(), mesh.get_local_rank()
        self._whole, self._part, self._sum = Replicate, Shard, Partial
        self._of = partial(DTensor.from_local, device_mesh=mesh, run_check=False)

    def copy(self, whole: Tensor) -> Tensor:
        """What all have, for parts of a layer: its gradient is the sum of theirs."""
        copied: Tensor = self._of(whole, placements=[self._whole()]).to_local(grad_placements=[self._sum()])
        return copied

    def split(self, whole: Tensor) -> Tensor:
        """The columns of this process; the gradient is that of all columns."""
        return self._moved(whole, self._whole(), self._part(whole.ndim - 1))

    def gather(self, part: Tensor) -> Tensor:
        """The columns of all processes."""
        return self._moved(part, self._part(part.ndim - 1), self._whole())

    def add(self, summand: Tensor) -> Tensor:
        """The sum of what the processes have."""
        return self._moved(summand, self._sum(), self._whole())

    def _moved(self, tensor: Tensor, before: Any, after: Any) -> Tensor:
        moved: Tensor = self._of(tensor, placements=[before]).redistribute(placements=[after]).to_local()
        return moved


@dataclass
class _Part:
    """A layer that computes with a process' own part of the weights.

    Attributes:
        layer: the layer.
        exchange: what it exchanges.
        within: as of `Split`.
        copied: whether the input's gradients are summed already.
        bias_gradient: how the gradient of the bias lies on the processes, if not as the bias does.
    """

    layer: Any
    exchange: _Exchange
    within: bool
    copied: bool
    bias_gradient: Any

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output."""
        (inputs,) = (*args, *kwargs.values())
        return self.output(inputs)

    def output(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def product(self, inputs: Tensor) -> Tensor:
        """The output of the own weights, without the bias."""
        layer, weight = self.layer, self.layer.weight.to_local()
        if isinstance(layer, layers.Embedding):
            ids = inputs if inputs.dtype in (torch.int64, torch.int32) else inputs.to(torch.int64)
            return F.embedding(ids, weight)
        inputs = in_dtype_of(weight, inputs)
        if isinstance(layer, layers.EinsumDense):
            return torch.einsum(layer.equation, inputs, weight)
        return F.linear(inputs, weight)

    def plus_bias(self, output: Tensor) -> Tensor:
        bias = self.layer._parameters.get("bias")
        return output if bias is None else output + bias.to_local(grad_placements=self.bias_gradient)

    def activated(self, output: Tensor) -> Tensor:
        activation = getattr(self.layer, "activation", None)
        return output if activation is None else activation(output)


class _Columns(_Part):
    """Split by its columns."""

    def output(self, inputs: Tensor) -> Tensor:
        whole = self.copied or not inputs.is_floating_point()
        output = self.plus_bias(self.product(inputs if whole else self.exchange.copy(inputs)))
        output = self.activated(output if self.within else self.exchange.gather(output))
        return self.layer.spread(output) if hasattr(self.layer, "spread") else output


class _Rows(_Part):
    """Split by its rows."""

    def output(self, inputs: Tensor) -> Tensor:
        summand = self.product(inputs if self.within else self.exchange.split(inputs))
        output = self.activated(self.plus_bias(self.exchange.add(summand)))
        return self.layer.spread(output) if hasattr(self.layer, "spread") else output


class _Vectors(_Part):
    """An embedding that is split by its vocabulary."""

    def output(self, inputs: Tensor) -> Tensor:
        count = self.layer.input_dim // self.exchange.size
        own = inputs - self.exchange.rank * count
        # What nobody has is an error at an end, as it is for a whole layer.
        missing = torch.zeros_like(own, dtype=torch.bool)
        if self.exchange.rank > 0:
            missing |= own < 0
        if self.exchange.rank < self.exchange.size - 1:
            missing |= own >= count
        vectors = self.product(own.masked_fill(missing, 0))
        return self.exchange.add(vectors.masked_fill(missing.unsqueeze(-1), 0.0))
