"""Names of the layers in a model: the same code always gives the same names.

A layer without a name is numbered when it joins its first model, by type, in the order of the calls. What was named
before keeps its name; where two names meet in one model, the later automatic one is renamed in that model's keys only.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Set
from typing import Any

from torch import nn

from torchfunc.graph import Node
from torchfunc.layers import Layer
from torchfunc.naming import numbered_name, unique_name
from torchfunc.registry import to_snake_case

__all__ = ["Namer", "name_nodes", "submodule_key"]


def submodule_key(name: str, taken: Set[str], is_reserved: Callable[[str], bool]) -> str:
    """The key a layer is registered under: its name, with `_` for what generated code cannot write in one.

    A layer called "output" is registered as `output_`, since `model.output` is the model's output, and one called
    "lambda" as `lambda_`, since code cannot say `self.lambda`.
    """
    key = re.sub(r"""[.\\"'\x00-\x1f]""", "_", name)
    return unique_name(f"{key}_" if is_reserved(key) or keyword.iskeyword(key) else key, taken)


class Namer:
    """Gives the layers and calls of one model their names, each the next one free.

    Args:
        taken: names that are not free.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken: set[str] = set(taken)
        # How many of a kind there are: spares a long chain from trying every number again.
        self._counts: dict[str, int] = {}

    def explicit(self, layer: Layer) -> str:
        """The name its user gave a layer.

        Raises:
            ValueError: another layer of this model has it.
        """
        if layer.name in self.taken:
            raise ValueError(
                f"Two different layers of this model are called {layer.name!r}: the names of a model's layers "
                "must differ. Rename one, or call one layer twice if they were meant to share weights."
            )
        self.taken.add(layer.name)
        return layer.name

    def automatic(self, target: Any) -> str:
        """The name of a layer or module without one; a layer keeps it for the models to come."""
        if not isinstance(target, Layer):
            return self.next(to_snake_case(type(target).__name__))
        if target.assigned_name is None:
            target.assign_name(self.next(target.name))
            return target.name
        if target.name in self.taken:
            return self.next(to_snake_case(type(target).__name__))
        self.taken.add(target.name)
        return target.name

    def name(self, target: nn.Module) -> str:
        """The name of a layer or module: that its user gave it, or an automatic one."""
        own = isinstance(target, Layer) and target.has_explicit_name
        return self.explicit(target) if own else self.automatic(target)  # type: ignore[arg-type]

    def next(self, base: str) -> str:
        """`base`, or the first of `base_1`, `base_2` ... that is free."""
        number = self._counts.get(base, 0)
        while (name := numbered_name(base, number)) in self.taken:
            number += 1
        self._counts[base] = number + 1
        self.taken.add(name)
        return name

    def release(self, name: str) -> None:
        """Let a name be given again."""
        self.taken.discard(name)
        self._counts.clear()


def name_nodes(nodes: Iterable[Node], taken: Iterable[str] = ()) -> dict[Any, str]:
    """Give each layer, module and function call a name that is not taken yet.

    Returns:
        The names, by layer or module for "input" and "module" nodes, by node for the others.

    Raises:
        ValueError: two different layers have one explicit name.
    """
    nodes, namer = list(nodes), Namer(taken)
    targets = list(dict.fromkeys(node.target for node in nodes if node.op in ("input", "module")))
    own = [target for target in targets if isinstance(target, Layer) and target.has_explicit_name]
    explicit = {target: namer.explicit(target) for target in own}
    names: dict[Any, str] = {target: explicit.get(target) or namer.automatic(target) for target in targets}
    for node in nodes:
        if node.op in ("function", "method"):
            base = node.args[1] if node.target is getattr else getattr(node.target, "__name__", node.target)
            names[node] = namer.next(re.sub(r"\W", "_", base).strip("_"))
    return names
