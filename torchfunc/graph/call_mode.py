"""The mode of one call, train or eval, on the thread that makes it.

torch keeps the mode on the module, where all threads see it. Here it belongs to the call: a table of the thread, from
modules to modes, that the attribute `training` of every module heeds while the call runs. So nothing that another
thread can see is changed, and layers, torch's own modules and everybody's are treated alike.

The table goes into `nn.Module.training` with the first call that has a mode of its own, not at import.

Compiled code does not ask the thread: what torch.compile makes depends on the modules' own flags, which are therefore
set for as long as it is traced or runs; and the code of TorchScript has flags of its own. Where such code is part of a
call with a mode, other such calls wait for it (`really_set`).
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn

from torchfunc.graph.modules_within import modules_within
from torchfunc.graph.torch_internals import is_compiled_function, is_traced_by_dynamo
from torchfunc.graph.tracing import pass_over

__all__ = [
    "CallMode",
    "SameModes",
    "copy_mode",
    "flipped",
    "preserved_modes",
    "really_set",
    "setting_compiled_parts",
]


# torch.compile (2.11) takes `module.__dict__["training"]` for `module.training`, and so for what is just about to read
# it; and attributes of a thread for those of their class. What is asked of `object` it asks itself, without tracing it.
_TRACED_OTHERWISE = torch.torch_version.TorchVersion(torch.__version__) < "2.12"


class _Thread(threading.local):
    """The modes that modules have in the current call of this thread; None outside of all such calls."""

    modes: dict[nn.Module, bool] | None = None


_thread = _Thread()
_flags = threading.RLock()
_lock = threading.Lock()


class _Training:
    """The attribute `training` of modules: the mode of the thread's call, else the module's own flag.

    Whether torch.compile takes the thread's table for a constant makes no difference to what it sees.
    """

    @pass_over
    def __get__(self, module: nn.Module | None, owner: type | None = None) -> Any:
        if module is None:
            return self
        if _TRACED_OTHERWISE and torch.compiler.is_dynamo_compiling():
            return super(nn.Module, module).__getattribute__("training")
        modes = _thread.modes
        if modes is not None and not torch.compiler.is_compiling():
            mode = modes.get(module)
            if mode is not None:
                return mode
        try:
            return module.__dict__["training"]
        except KeyError:
            # Those of TorchScript look elsewhere then.
            raise AttributeError(f"{type(module).__name__!r} object has no attribute 'training'") from None

    def __set__(self, module: nn.Module, mode: bool) -> None:
        traced = _TRACED_OTHERWISE and torch.compiler.is_dynamo_compiling()
        modes = None if traced else _thread.modes
        if modes is not None and module in modes and not torch.compiler.is_compiling():
            modes[module] = mode
        else:
            module.__dict__["training"] = mode

    def __delete__(self, module: nn.Module) -> None:
        del module.__dict__["training"]


def _install() -> None:
    with _lock:
        if "training" not in nn.Module.__dict__:
            nn.Module.training = _Training()  # type: ignore[assignment]


class CallMode:
    """A block in which a module, and all in it, are in train or eval mode on this thread.

    What `module.train()` would do is done, but for this block and thread only; as is what the code in the block does by
    `train`, `eval` or setting `training`. Compiled parts are really set, and others' calls of such parts wait.

    Args:
        module: a model or layer.
        training: the mode.
        waits: whether compiled parts are set for the whole block. If not, see `setting_compiled_parts`.
    """

    def __init__(self, module: nn.Module, training: bool, waits: bool = True) -> None:
        self._module, self._training, self._waits = module, training, waits

    @pass_over
    def __enter__(self) -> CallMode:
        if "training" not in nn.Module.__dict__:
            _install()
        self._outer = _thread.modes
        self._stack: contextlib.ExitStack | None = None
        self._parts: list[nn.Module] = []
        if is_traced_by_dynamo():
            self._stack = contextlib.ExitStack()
            # What is called here is not to be compiled, too.
            torch.compiler.disable(self._stack.enter_context)(really_set([self._module], self._training))
            return self
        modes, self._parts, strange = _survey(self._module, self._training)
        _thread.modes = table = modes if self._outer is None else {**self._outer, **modes}
        try:
            if strange:
                # (These may reach compiled parts, too.)
                with really_set(self._parts, None):
                    _thread.modes = table
                    for module in strange:
                        module.train(self._training)
            if self._parts:
                self._stack = contextlib.ExitStack()
                self._stack.enter_context(_untold(self._parts))
                if self._waits:
                    self._stack.enter_context(really_set(self._parts, self._training))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @pass_over
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stack is not None:
            close = self._stack.close
            (torch.compiler.disable(close) if is_traced_by_dynamo() else close)()
        _thread.modes = self._outer


class SameModes:
    """Blocks in which all modules have the modes of the thread's call in which this was made, on whatever thread."""

    def __init__(self) -> None:
        self._modes = _thread.modes

    def __enter__(self) -> None:
        self._outer = _thread.modes
        _thread.modes = self._modes

    def __exit__(self, *error: object) -> None:
        _thread.modes = self._outer


def setting_compiled_parts(step: Callable[..., Any], module: nn.Module, training: bool | None) -> Callable[..., Any]:
    """The function, which uses the module, with compiled parts of the module set to a mode while it runs.

    Args:
        step: the function.
        module: a model.
        training: the mode; None for the one that they are in.
    """
    parts = _survey(module, True)[1]
    if not parts:
        return step

    @functools.wraps(step)
    def run(*args: Any) -> Any:
        with really_set(parts, training):
            return step(*args)

    return run


def _survey(module: nn.Module, training: bool) -> tuple[dict[nn.Module, bool], list[nn.Module], list[nn.Module]]:
    """The table for all in a module; the modules that hold compiled code; those with a `train` of their own."""
    modes, pending = {module: training}, [module]
    parts, strange = [], []
    for found in pending:
        kind = _kind_of(type(found))  # type: ignore[arg-type]
        if kind.has_own_train:
            strange.append(found)
        if kind.is_compiled or _holds_compiled(found, kind):
            parts.append(found)
            modes.update(dict.fromkeys(found.modules(), training))
            continue
        for child in found._modules.values():
            if child is not None and child not in modes:
                modes[child] = training
                pending.append(child)
    return modes, parts, strange


class _Kind:
    """What is to be known of the modules of a class.

    Attributes:
        is_compiled: whether they are, or may run, code that does not ask the thread for the mode.
        has_own_train: whether they have a `train` that may do something else than torch's.
        is_known: whether the class is torch's or torchfunc's, so that none of their functions is compiled.
    """

    def __init__(self, kind: type[nn.Module]) -> None:
        own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in ("torch", "torchfunc")]
        functions = (value for base in own for value in vars(base).values())
        self.is_known = kind not in own
        # (The threads of DataParallel have no table.)
        self.is_compiled = issubclass(kind, (torch.jit.ScriptModule, nn.DataParallel)) or any(
            map(is_compiled_function, functions)
        )
        self.has_own_train = kind.train is not nn.Module.train and not kind.train.__module__.startswith("torchfunc.")


@functools.lru_cache(maxsize=1024)
def _kind_of(kind: type[nn.Module]) -> _Kind:
    return _Kind(kind)


def _holds_compiled(module: nn.Module, kind: _Kind) -> bool:
    """Whether an attribute of the module is code that torch.compile has made."""
    if "torch._dynamo" not in sys.modules:
        return False
    attributes = module.__dict__
    if attributes.get("_compiled_call_impl") is not None or "_orig_mod" in module._modules:
        return True
    return not kind.is_known and any(map(is_compiled_function, list(attributes.values())))


@contextlib.contextmanager
def preserved_modes(*modules: nn.Module) -> Iterator[None]:
    """Restore the mode, train or eval, of all modules in these when the block ends."""
    before = [(each, each.training) for module in modules for each in modules_within(module)]
    try:
        yield
    finally:
        for each, mode in before:
            if each.training is not mode:
                each.training = mode


@contextlib.contextmanager
def train_mode(module: nn.Module) -> Iterator[None]:
    """Call `module.train()`, and restore the mode of all modules in it when the block ends."""
    modules = modules_within(module)
    before = [each.training for each in modules]
    try:
        # If all in it trains, and nothing has a `train` of its own, nothing would come of it.
        if not all(before) or any(_kind_of(type(each)).has_own_train for each in modules):  # type: ignore[arg-type]
            module.train()
        yield
    finally:
        for each, mode in zip(modules, before, strict=True):
            if each.training is not mode:
                each.training = mode


@contextlib.contextmanager
def flipped(module: nn.Module, training: bool) -> Iterator[None]:
    """Set the mode of all modules in a module, and restore it; for code that torch.compile traces."""
    with preserved_modes(module):
        for each in module.modules():
            each.training = training
        yield


@contextlib.contextmanager
def really_set(modules: Sequence[nn.Module], training: bool | None) -> Iterator[None]:
    """Set the modules' own flags, for code that reads nothing else, while no other thread does so.

    Args:
        modules: with all that is in them.
        training: the mode; None leaves the flags as they are.
    """
    with _flags, _untold(modules), preserved_modes(*modules):
        if training is not None:
            for module in modules:
                module.train(training)
        yield


@contextlib.contextmanager
def _untold(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Leave the modules, and all in them, out of the thread's table."""
    outer = _thread.modes
    if outer is not None:
        without = {each for module in modules for each in module.modules()}
        _thread.modes = {module: mode for module, mode in outer.items() if module not in without}
    try:
        yield
    finally:
        _thread.modes = outer


def copy_mode(module: nn.Module, other: nn.Module) -> None:
    """Let `other`, which stands for the module in the current call, be in its mode."""
    if torch.compiler.is_compiling():
        return
    modes = _thread.modes
    if modes is not None and module in modes:
        modes[other] = modes[module]
