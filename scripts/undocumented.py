"""The public names whose docstring shows no example: prints one a line, and fails if there are any.

python scripts/undocumented.py
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torchfunc

# The methods that users call; an example of the others would show what only torchfunc itself asks for.
METHODS = {
    torchfunc.Model: (
        *("compile", "fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"),
        *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "reset_metrics"),
        *("summary", "activations", "profile", "rewire", "to_torch", "to_source", "export", "get_layer"),
        *("save", "save_weights", "load_weights", "to_json", "get_config", "from_config", "get_compile_config"),
    ),
    torchfunc.Sequential: ("add", "pop"),
    torchfunc.Layer: (
        *("build", "add_weight", "add_loss", "compute_output_shape", "compute_mask", "count_params"),
        *("get_weights", "set_weights", "get_config", "from_config"),
        *("get_input_at", "get_output_at", "get_input_shape_at", "get_output_shape_at"),
    ),
    torchfunc.losses.Loss: ("call", "get_config", "from_config"),
    torchfunc.metrics.Metric: ("update_state", "result", "reset_state", "add_variable", "get_config", "from_config"),
    torchfunc.optimizers.Optimizer: ("build", "apply", "apply_gradients", "get_config", "from_config"),
    torchfunc.callbacks.History: ("plot", "to_frame"),
}


def public_names(namespace: ModuleType = torchfunc) -> Iterator[tuple[str, Any]]:
    """The classes and functions of a namespace and those within it, each once, by the first name that it has."""
    seen: set[int] = set()
    pending = [namespace]
    for module in pending:
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                pending.append(value)
            elif (inspect.isclass(value) or inspect.isroutine(value)) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module.__name__}.{name}", value
                for method in METHODS.get(value, ()):
                    yield f"{module.__name__}.{name}.{method}", getattr(value, method)


def docstring(value: Any) -> str:
    """What a name says of itself; a class does not inherit it."""
    return inspect.cleandoc(value.__doc__ or "")


def without_example() -> list[str]:
    """The public names whose docstring has no line that begins with `>>>`."""
    return [name for name, value in public_names() if ">>> " not in docstring(value)]


if __name__ == "__main__":
    names = without_example()
    print("\n".join(names))
    sys.exit(bool(names))
