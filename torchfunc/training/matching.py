"""Which loss, weight, target or metric belongs to which output: the one place that knows.

Everything may be given once, as a list in the order of the outputs, or as a dict by their names. A dict of outputs
keeps its own order, and lists follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils._pytree import GetAttrKey, SequenceKey, tree_flatten_with_path, tree_leaves

from torchfunc.errors import did_you_mean
from torchfunc.metrics import Metric
from torchfunc.structures import leaves
from torchfunc.training.data.arrays import Tensors

__all__ = ["MetricGiven", "PerOutput", "flatten_outputs", "match_metrics", "match_setting", "match_values"]

Names: TypeAlias = Sequence[str] | None

PerOutput: TypeAlias = Any
"""One value for all outputs, a list in their order, or a dict by their names."""


@dataclass(frozen=True)
class MetricGiven:
    """A metric with what the user gave for it."""

    metric: Metric
    given: Any

    @property
    def makes_new(self) -> bool:
        """Whether what was given stands for a new metric wherever it counts, and is no object or function itself."""
        return isinstance(self.given, (str, type))

    def __repr__(self) -> str:
        return repr(self.given)


def flatten_outputs(outputs: Any, names: Names) -> tuple[list[Tensor], list[str] | None]:
    """A model's outputs in order, and what they are called.

    Args:
        outputs: what the model returned: a tensor, or lists, tuples and dicts of tensors.
        names: the outputs' names, if the model knows them.

    Returns:
        the tensors, and their names: those given, else the keys of a dict, else None.

    Raises:
        ValueError: the model returned other outputs than it says it has.
    """
    if isinstance(outputs, Tensor):
        return [outputs], None if names is None else list(names)
    if isinstance(outputs, Mapping) and all(isinstance(value, Tensor) for value in outputs.values()):
        order = list(names) if names is not None and set(names) == set(outputs) else list(outputs)
        return [outputs[name] for name in order], order
    # A model may return classes that are registered with torch.
    tensors = tree_leaves(outputs)
    strange = next((leaf for leaf in tensors if not isinstance(leaf, Tensor)), None)
    if strange is not None or not tensors:
        raise ValueError(f"A model that is trained returns tensors, but this one returned {strange!r}.")
    if names is not None and len(names) != len(tensors):
        raise ValueError(f"The model returned {len(tensors)} outputs, but its outputs are {list(names)}.")
    return tensors, _path_names(outputs) if names is None else list(names)


def _path_names(outputs: Any) -> list[str] | None:
    """`b/c` for what stands there in dicts and classes with fields; None if there are none, or none that are named."""
    try:
        paths = [path for path, _ in tree_flatten_with_path(outputs)[0]]
    except ValueError:
        # A class that is registered without names for its parts.
        return None
    parts = [list(map(_part, path)) for path in paths]
    if all(isinstance(part, int) for path in parts for part in path):
        return None
    return ["/".join(map(str, path)) for path in parts]


def _part(key: Any) -> Any:
    """The key, field or position that an entry of torch's paths stands for."""
    if isinstance(key, SequenceKey):
        return key.idx
    return key.name if isinstance(key, GetAttrKey) else getattr(key, "key", str(key))


def match_setting(argument: str, value: PerOutput, names: Names, count: int) -> list[Any]:
    """One entry of `value` for each output; None where it has none. One value alone is taken for every output.

    Args:
        argument: what `value` was given as ("loss"), for messages.
        value: None, one value, a list in the outputs' order, or a dict by their names.
        names: the outputs' names, if they have any.
        count: how many outputs there are.

    Raises:
        ValueError: a dict has keys that are no outputs, or a list has another length.
    """
    if isinstance(value, Mapping):
        return _by_name(argument, value, names, count)
    if isinstance(value, (list, tuple)):
        value = _flat_in_order(value, count)
        if len(value) != count:
            raise ValueError(
                f"`{argument}` is a list of {len(value)}, but there are {_outputs(names, count)}. "
                "Give one for each, None where there is none, or a dict by output name."
            )
        return list(value)
    return [value] * count


def match_metrics(argument: str, value: PerOutput, names: Names, count: int) -> list[list[MetricGiven]]:
    """The list of metrics of each output. The metrics of a single output need no nesting.

    Raises:
        ValueError: as for `match_setting`; or one metric object would have to count for several outputs.
    """
    if isinstance(value, Mapping):
        matched = _by_name(argument, value, names, count)
    elif count == 1:
        matched = [value]
    else:
        matched = match_setting(argument, value, names, count)
        if isinstance(value, MetricGiven) and not value.makes_new:
            raise ValueError(
                f"`{argument}={value!r}` is one object, which cannot tell {_outputs(names, count)} apart. "
                "Give a list with one entry for each output, or a dict by output name."
            )
    return [_flat(entry) for entry in matched]


def _flat(value: Any) -> list[MetricGiven]:
    """A metric, or lists of them in any nesting, as one list."""
    return [leaf for leaf in leaves(value) if leaf is not None]


def match_values(argument: str, value: Tensors, names: Names, needed: Sequence[bool]) -> list[Tensor | None]:
    """One array of targets or weights for each output; None for outputs that have none.

    Args:
        argument: "y" or "sample_weight", for messages.
        value: None, one array, a list in the outputs' order (or only of those needed), or a dict by their names.
        names: the outputs' names, if they have any.
        needed: for each output, whether a loss or metric asks for it.

    Raises:
        ValueError: what is needed is missing, or something does not belong to any output.
    """
    count = len(needed)
    if value is None or isinstance(value, Tensor):
        if count == 1:
            return [value]
        if value is not None:
            raise ValueError(
                f"`{argument}` is one array of shape {tuple(value.shape)}, but there are {_outputs(names, count)}. "
                "Give one for each: a list in this order, or a dict."
            )
        return [None] * count
    if isinstance(value, Mapping):
        if names is None and count == 1 and len(value) == 1:
            return list(value.values())
        return _by_name(argument, value, names, count)
    values = _flat_in_order(value, count)
    if len(values) == count:
        return list(values)
    if len(values) == sum(needed):
        given = iter(values)
        return [next(given) if wanted else None for wanted in needed]
    return match_setting(argument, value, names, count)


def _by_name(argument: str, value: Mapping[str, Any], names: Names, count: int) -> list[Any]:
    if names is None:
        raise ValueError(
            f"`{argument}` is a dict with the keys {list(value)}, but the model's outputs have no names. "
            "Give a list, or let the model return a dict."
        )
    value = _by_path(value, names)
    unknown = [key for key in value if key not in names]
    if unknown:
        raise ValueError(
            f"`{argument}` has the key(s) {', '.join(map(repr, unknown))}, but the model's outputs are "
            f"{', '.join(map(repr, names))}.{did_you_mean(unknown[0], names)}"
        )
    return [value.get(name) for name in names]


def _flat_in_order(value: Sequence[Any], count: int) -> Sequence[Any]:
    """Nested containers as one list, if they hold one for each output."""
    if not any(isinstance(item, (list, tuple, Mapping)) for item in value):
        return value
    flat = leaves(value)
    return flat if len(flat) == count else value


def _by_path(value: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Nested dicts by the names of nested outputs: `{"b": {"c": 1}}` as `{"b/c": 1}`.

    What is given for a container of outputs counts for each of them, or in their order if it is a list for them.
    """
    found: dict[str, Any] = {}
    for key, item in value.items():
        within = [name.removeprefix(f"{key}/") for name in names if name.startswith(f"{key}/")]
        if key in names or not within:
            found[key] = item
        elif isinstance(item, Mapping):
            found.update({f"{key}/{name}": each for name, each in _by_path(item, within).items()})
        else:
            in_order = isinstance(item, (list, tuple)) and len(item) == len(within)
            found.update({f"{key}/{name}": item[i] if in_order else item for i, name in enumerate(within)})
    return found


def _outputs(names: Names, count: int) -> str:
    counted = "1 output" if count == 1 else f"{count} outputs"
    return counted if names is None else f"{counted}: {', '.join(map(repr, names))}"
