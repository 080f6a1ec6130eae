"""Process-wide defaults: the float type, the fuzz factor and the image layout, under Keras' names; and threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torchfunc.dtypes import dtype_name

__all__ = [
    "DTypePolicy",
    "backend",
    "disable_interactive_logging",
    "disable_traceback_filtering",
    "dtype_policy",
    "enable_interactive_logging",
    "enable_traceback_filtering",
    "epsilon",
    "floatx",
    "image_data_format",
    "is_interactive_logging_enabled",
    "is_reproducible",
    "is_traceback_filtering_enabled",
    "probes_threads",
    "set_dtype_policy",
    "set_epsilon",
    "set_floatx",
    "set_image_data_format",
    "set_num_threads",
    "set_reproducible",
    "standardize_data_format",
]

_FLOAT_TYPES = ("bfloat16", "float16", "float32", "float64")
_DATA_FORMATS = ("channels_last", "channels_first")
_MIXED = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
_values: dict[str, Any] = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "probes_threads": False,
    "mixed": None,
    "interactive_logging": True,
    "reproducible": False,
}


def floatx() -> str:
    """The dtype new weights and converted NumPy floats get, as a name. Default "float32".

    >>> config.floatx()
    'float32'
    """
    return _values["floatx"]


def set_floatx(value: str) -> None:
    """Set the default float type: "bfloat16", "float16", "float32" or "float64" (or the torch dtype).

    >>> config.set_floatx("float64")
    >>> layers.Dense(2).dtype
    torch.float64
    >>> config.set_floatx("float32")
    """
    name = dtype_name(value)
    if name not in _FLOAT_TYPES:
        raise ValueError(f"set_floatx() takes one of {', '.join(_FLOAT_TYPES)}, got {value!r}.")
    _values["floatx"] = name


@dataclass(frozen=True)
class DTypePolicy:
    """What a model computes in, and what its weights are: "float32", "mixed_bfloat16" ...

    Attributes:
        name: "mixed_bfloat16", "mixed_float16", or a float type.

    Raises:
        ValueError: there is no such policy.

    >>> config.DTypePolicy("mixed_bfloat16").compute_dtype
    'bfloat16'
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in (*_FLOAT_TYPES, *_MIXED):
            raise ValueError(f"A dtype policy is one of {', '.join((*_FLOAT_TYPES, *_MIXED))}, got {self.name!r}.")

    @property
    def compute_dtype(self) -> str:
        """What the steps of `fit`, `evaluate` and `predict` compute in."""
        return _MIXED.get(self.name, self.name)

    @property
    def variable_dtype(self) -> str:
        """The type of weights."""
        return "float32" if self.name in _MIXED else self.name


def set_dtype_policy(policy: str | DTypePolicy) -> None:
    """Set what models compute in that are compiled from now on without `precision`; or the type of new weights.

    "mixed_bfloat16" and "mixed_float16" are the default of `compile(precision=...)`: weights stay float32, and
    `torch.autocast` picks the type of each kernel within steps. A float type is set as `set_floatx` does.

    Raises:
        ValueError: there is no such policy.

    >>> config.set_dtype_policy("mixed_bfloat16")
    >>> config.dtype_policy()
    DTypePolicy(name='mixed_bfloat16')
    >>> config.set_dtype_policy("float32")
    """
    policy = policy if isinstance(policy, DTypePolicy) else DTypePolicy(policy)
    _values["mixed"] = policy.name if policy.name in _MIXED else None
    set_floatx(policy.variable_dtype)


def dtype_policy() -> DTypePolicy:
    """What `set_dtype_policy` set; `floatx()` by default.

    >>> config.dtype_policy().name
    'float32'
    """
    return DTypePolicy(_values["mixed"] or floatx())


def mixed_dtype() -> str | None:
    """What a mixed policy computes in; None without one."""
    return _MIXED.get(_values["mixed"])


def backend() -> str:
    """ "torch": there is no other.

    >>> config.backend()
    'torch'
    """
    return "torch"


def epsilon() -> float:
    """The small constant that keeps logarithms and divisions finite. Default 1e-7.

    >>> config.epsilon()
    1e-07
    """
    return _values["epsilon"]


def set_epsilon(value: float) -> None:
    """Set the value that `epsilon()` returns.

    >>> config.set_epsilon(1e-5)
    >>> config.epsilon()
    1e-05
    >>> config.set_epsilon(1e-7)
    """
    _values["epsilon"] = float(value)


def image_data_format() -> str:
    """The layout image layers assume unless given another: "channels_last" (default) or "channels_first".

    >>> config.image_data_format()
    'channels_last'
    """
    return _values["image_data_format"]


def set_image_data_format(data_format: str) -> None:
    """Set the layout that image layers built from now on assume.

    >>> config.set_image_data_format("channels_first")
    >>> layers.Conv2D(8, 3)(Input((1, 28, 28))).shape
    (None, 8, 26, 26)
    >>> config.set_image_data_format("channels_last")
    """
    _values["image_data_format"] = standardize_data_format(data_format)


def set_num_threads(threads: int | str) -> None:
    """Set how many threads operations on the CPU take.

    Args:
        threads: a number is given to `torch.set_num_threads`. "probe": each `fit` on the CPU that runs eagerly times
            its first 35 steps, with one thread and with all that torch is set to in turns, and continues with what was
            faster; torch's own setting is back when it ends. Small models are often faster with one.

    Raises:
        ValueError: it is neither.

    >>> config.set_num_threads("probe")
    >>> config.probes_threads()
    True
    >>> config.set_num_threads(torch.get_num_threads())
    """
    if threads != "probe":
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"set_num_threads() takes a number of at least 1 or 'probe', got {threads!r}.")
        torch.set_num_threads(threads)
    _values["probes_threads"] = threads == "probe"


def probes_threads() -> bool:
    """Whether `fit` looks for the better number of threads. Default False.

    >>> config.probes_threads()
    False
    """
    return _values["probes_threads"]


def set_reproducible(value: bool) -> None:
    """Say whether the same program is to give the same numbers to the last digit. `utils.set_random_seed` sets it.

    Then nothing depends on how fast the machine is: a training begins to use compiled steps at its second one, however
    long it has to wait for the compiler.

    >>> config.set_reproducible(True)
    >>> config.is_reproducible()
    True
    >>> config.set_reproducible(False)
    """
    _values["reproducible"] = bool(value)


def is_reproducible() -> bool:
    """Whether `set_reproducible` or `torch.use_deterministic_algorithms` asks for the same numbers. Default False.

    >>> torch.use_deterministic_algorithms(True)
    >>> config.is_reproducible()
    True
    >>> torch.use_deterministic_algorithms(False)
    """
    return _values["reproducible"] or torch.are_deterministic_algorithms_enabled()


def disable_traceback_filtering() -> None:
    """Nothing to do: tracebacks are always complete. For code that was written for Keras, which shortens them.

    >>> config.disable_traceback_filtering()
    """


def enable_traceback_filtering() -> None:
    """Nothing to do: tracebacks stay complete. For code that was written for Keras.

    >>> config.enable_traceback_filtering()
    """


def is_traceback_filtering_enabled() -> bool:
    """False: tracebacks are always complete.

    >>> config.is_traceback_filtering_enabled()
    False
    """
    return False


def disable_interactive_logging() -> None:
    """Let `verbose="auto"` mean one plain line for each epoch, as a log file wants it, and no progress bar.

    >>> config.disable_interactive_logging()
    >>> config.is_interactive_logging_enabled()
    False
    >>> config.enable_interactive_logging()
    """
    _values["interactive_logging"] = False


def enable_interactive_logging() -> None:
    """Let `verbose="auto"` mean a progress bar, as at first.

    >>> config.enable_interactive_logging()
    """
    _values["interactive_logging"] = True


def is_interactive_logging_enabled() -> bool:
    """Whether `verbose="auto"` means a progress bar. Default True.

    >>> config.is_interactive_logging_enabled()
    True
    """
    return _values["interactive_logging"]


def standardize_data_format(data_format: str | None) -> str:
    """Return `data_format`, or the default when it is None. Raises ValueError for an unknown layout.

    >>> config.standardize_data_format(None)
    'channels_last'
    """
    if data_format is None:
        return image_data_format()
    if data_format not in _DATA_FORMATS:
        raise ValueError(f"data_format is one of {', '.join(map(repr, _DATA_FORMATS))}, got {data_format!r}.")
    return data_format
