"""The public names whose docstring shows no example that runs: prints one a line, and fails if there are any.

python scripts/undocumented.py
"""

from __future__ import annotations

import inspect
import re
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

# Those whose examples do not run, and why not.
_DATA = ("boston_housing", "california_housing", "cifar10", "cifar100", "fashion_mnist", "imdb", "mnist", "reuters")
NOT_RUN = {
    **{f"torchfunc.datasets.{name}.load_data": "it downloads the data" for name in _DATA},
    "torchfunc.datasets.imdb.get_word_index": "it downloads the words",
    "torchfunc.datasets.reuters.get_word_index": "it downloads the words",
    "torchfunc.applications.efficientnet.decode_predictions": "it downloads the names of the classes",
}


def public_names(namespace: ModuleType = torchfunc) -> Iterator[tuple[str, Any]]:
    """What can be called in a namespace and those within it, each once, by the first name that it has."""
    seen: set[int] = set()
    pending = [namespace]
    for module in pending:
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                pending.append(value)
            elif callable(value) and id(value) not in seen:
                seen.add(id(value))
                is_object = not (inspect.isclass(value) or inspect.isroutine(value))
                yield f"{module.__name__}.{name}", value.__call__ if is_object else value
                for method in METHODS.get(value, ()) if inspect.isclass(value) else ():
                    yield f"{module.__name__}.{name}.{method}", getattr(value, method)


def without_example() -> list[str]:
    """The public names whose docstring has no example, or one that does not run and has no reason for it."""
    found = []
    for name, value in public_names():
        # A class does not inherit its docstring.
        examples = re.findall(r"^ *>>> .*$", value.__doc__ or "", flags=re.MULTILINE)
        skipped = [example for example in examples if example.endswith("# doctest: +SKIP")]
        if not examples or (skipped and name not in NOT_RUN):
            found.append(name)
    return found


if __name__ == "__main__":
    names = without_example()
    print("\n".join(names))
    sys.exit(bool(names))
