"""What the layers of a model give for a batch."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.errors import did_you_mean
from torchfunc.graph import Node
from torchfunc.modules import GraphNetwork, Network
from torchfunc.structures import map_structure

__all__ = ["Activations", "layer_outputs"]

Activations = dict[str, Any]
"""What each layer returned, by its name; a list of it, one for each call, for a layer that is called several times."""


def layer_outputs(model: Network, x: Any, names: Sequence[str] | None = None) -> Activations:
    """Run a model once, in evaluation mode, and return what its layers gave.

    Args:
        model: the model. Of one drawn as a graph, functions can be named as well as layers.
        x: a batch, as the model takes it.
        names: the layers to tell of, in this order; all but the inputs by default.

    Returns:
        tensors without gradients, nested as the layer returns them.

    Raises:
        ValueError: there is no layer of a name.
    """
    inputs = model.prepare_inputs(*([x] if not isinstance(x, tuple) else x))
    drawn = model.drawn if isinstance(model, GraphNetwork) and not model.graph_was_changed else None
    if drawn is None:
        return _by_hooks(model, inputs, names)
    calls: dict[str, list[Any]] = {}
    for node in drawn.nodes:
        calls.setdefault(drawn.name_of(node), []).append(node)
    wanted = [name for name, nodes in calls.items() if nodes[0].op != "input"] if names is None else list(names)
    _check(model, wanted, calls)
    outputs = {str(place): [node.outputs for node in calls[name]] for place, name in enumerate(wanted)}
    assert isinstance(model, GraphNetwork)
    with torch.no_grad():
        values = model.compute(outputs, *inputs, training=False)
    return {name: _one_or_all(values[str(place)]) for place, name in enumerate(wanted)}


def _by_hooks(model: Network, inputs: Sequence[Any], names: Sequence[str] | None) -> Activations:
    """The same of a model whose calls are known only when it runs."""
    model.build_from_inputs(*inputs)
    layers = dict(zip(model.layer_names(), model.layers, strict=True))
    wanted = list(layers) if names is None else list(names)
    _check(model, wanted, layers)
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    # Another thread may be running the model.
    thread = threading.get_ident()

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                found[name].append(
                    map_structure(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, output)
                )

        return hook

    hooks = [layers[name].register_forward_hook(keep(name)) for name in wanted]
    try:
        with torch.no_grad():
            model(*inputs, training=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _one_or_all(outputs) for name, outputs in found.items() if outputs or names is not None}


def _one_or_all(outputs: Sequence[Any]) -> Any:
    return outputs[0] if len(outputs) == 1 else list(outputs)


def _check(model: Network, wanted: Sequence[str], known: Mapping[str, nn.Module | Sequence[Node]]) -> None:
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"Model {model.name!r} has no layer called {name!r}.{did_you_mean(name, known)} "
                f"Its layers are: {', '.join(known)}."
            )
