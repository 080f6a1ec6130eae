"""Activation checkpointing: what `compile(remat=...)` asks for, in the runs that train."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from torch import nn

from torchfunc.graph import modules_within
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.recomputation import Recomputing, Replacement, replaced
from torchfunc.modules.segments import call_recomputed, segments_recomputed
from torchfunc.training.chosen_modules import ChosenModules, chosen_modules
from torchfunc.training.settings import TrainingSettings
from torchfunc.training.trainable import Trainable

__all__ = ["check_remat", "rematerialized"]


@contextlib.contextmanager
def rematerialized(model: Trainable, settings: TrainingSettings) -> Iterator[None]:
    """Let a built model recompute, for a run, what it was compiled to.

    Raises:
        ValueError: a layer to recompute is not the model's.
    """
    if settings.execution.remat is None:
        yield
        return
    graph = model.graph if isinstance(model, GraphNetwork) else None
    key = graph, *((part, getattr(part, "graph", None)) for part in modules_within(model)[1:])
    if settings.recomputing is None or settings.recomputing.key != key:
        settings.recomputing = Recomputing(key, _replacements(model, settings.execution.remat))
    with replaced(settings.recomputing.replacements):
        yield


def _replacements(model: Trainable, remat: str | ChosenModules) -> list[Replacement]:
    if not isinstance(remat, str):
        return [call_recomputed(module) for module in chosen_layers(model, remat)]
    found = segments_recomputed(model)
    if not found and not isinstance(model, GraphNetwork):
        warnings.warn(
            f"remat='auto' finds no blocks (layers with layers in them) in {model.name!r}, whose graph is not known: "
            "nothing is recomputed. Choose: compile(remat=[...]) takes layers, their names and classes.",
            stacklevel=5,
        )
    return found


def check_remat(model: Trainable, remat: str | ChosenModules | None) -> None:
    """Raise ValueError if a layer to recompute is not the model's, as far as this is built."""
    if remat is not None and not isinstance(remat, str) and model.is_fully_built():
        chosen_layers(model, remat)


def chosen_layers(model: Trainable, chosen: ChosenModules) -> list[nn.Module]:
    """The modules of a model that `compile(remat=[...])` names.

    Raises:
        ValueError: something is no module within the model, or is never called.
    """
    found = chosen_modules(model, chosen, "remat")
    for module in found:
        if type(module).forward is nn.Module.forward:
            raise ValueError(
                f"`remat` holds a {type(module).__name__}, which is not called itself: name the layers in it."
            )
    return found
