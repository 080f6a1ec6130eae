"""What is said of calls that fail: which module failed, on what, and at which line of the user's code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

from torchfunc.dtypes import shape_and_dtype
from torchfunc.errors import add_note
from torchfunc.graph.example_sizes import Examples
from torchfunc.graph.node import SymbolicValue
from torchfunc.graph.source import format_source, is_of_library, located, user_source
from torchfunc.structures import leaves

__all__ = ["CALL_ERRORS", "FailedCall", "explained", "failed_calls", "innermost_locals"]

# What a user's forward may raise when it is given something it cannot work with.
CALL_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class FailedCall:
    """A call of a module that an error came out of.

    Attributes:
        module: the module.
        given: the tensors that it was called on.
    """

    module: nn.Module
    given: Sequence[torch.Tensor]

    def describe(self, owner: nn.Module) -> str:
        """`Linear 'encoder.second', called on (12, 3) float32`, as a part of `owner`."""
        path = next((path for path, module in owner.named_modules() if module is self.module), "")
        name = getattr(self.module, "name", None)
        name = name if isinstance(name, str) and "." not in path else path
        described = f"{type(self.module).__name__}{f' {name!r}' if name else ''}"
        given = ", ".join(map(shape_and_dtype, self.given))
        return f"{described}, called on {given}" if given else described


def failed_calls(error: BaseException) -> list[FailedCall]:
    """The modules whose calls an error came out of, the innermost last."""
    found: list[FailedCall] = []
    for frame in _frames(error.__traceback__):
        module, given = _call_in(frame)
        if module is not None and not (found and found[-1].module is module):
            found.append(FailedCall(module, given))
    return found


def innermost_locals(error: BaseException, kind: type) -> dict[str, Any] | None:
    """The variables of the innermost method of an object of this class that an error came out of, if there is one."""
    frames = (frame for frame in _frames(error.__traceback__) if isinstance(frame.f_locals.get("self"), kind))
    return next((frame.f_locals for frame in list(frames)[::-1]), None)


def explained(
    label: str, values: Sequence[SymbolicValue], tried: Sequence[Sequence[Examples]], error: Exception
) -> Any:
    """What to raise for a call that failed while its result was inferred, and its cause.

    That torch cannot compute with these shapes is an error of the call. What the code of a layer or module itself
    raises says best what is wrong: it is raised as it is, with one line added.

    Args:
        label: what to call the target of the call.
        values: the symbolic values among its arguments.
        tried: the examples of them that it failed on.
        error: what it raised first.
    """
    shapes = ", ".join(str(value.spec.shape) for value in values if value.spec.shape is not None) or "these arguments"
    if any(value.spec.shape is not None and None in value.spec.shape for value in values):
        shapes += f", tried as {', '.join(str(pair[0]) for pair in tried[0])}"
    within = _part_that_failed(error)
    if not isinstance(error, CALL_ERRORS) or not is_of_library(_last_frame(error)):
        where = format_source(user_source())
        add_note(error, f"{label} was called on {shapes}{within}{', at ' if where else ''}{where}")
        return error, error.__cause__
    message = f"{label} cannot be called on {shapes}{within}: {type(error).__name__}: {error}"
    if any(value.spec.shape is None or None in value.spec.shape[1:] for value in values):
        sizes = "; ".join(", ".join(str(pair[0]) for pair in examples) for examples in tried)
        message += (
            f"\n(The unknown sizes were tried as {sizes}. If only some sizes work, give them to Input(...), "
            "or wrap the module as layers.TorchModule(module, output_shape=...).)"
        )
    return ValueError(located(message)), error


def _part_that_failed(error: BaseException) -> str:
    calls = failed_calls(error)
    return f" (it failed in {calls[-1].describe(calls[0].module)})" if len(calls) > 1 else ""


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _last_frame(error: BaseException) -> FrameType | None:
    frames = list(_frames(error.__traceback__))
    return frames[-1] if frames else None


def _call_in(frame: FrameType) -> tuple[nn.Module | None, list[torch.Tensor]]:
    """The module that a frame's function was called for, its first argument, and the tensors among the others."""
    code = frame.f_code
    if not code.co_argcount:
        return None, []
    arguments = inspect.getargvalues(frame)
    module = arguments.locals.get(arguments.args[0])
    if not isinstance(module, nn.Module):
        return None, []
    names = [*arguments.args[1:], *(name for name in (arguments.varargs, arguments.keywords) if name)]
    given = leaves([arguments.locals.get(name) for name in names])
    return module, [each for each in given if isinstance(each, torch.Tensor)]
