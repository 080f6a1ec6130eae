"""The names of torch that begin with an underscore and have no public counterpart.

All were read in torch 2.11 and 2.13. `torch.utils._pytree` and the `torch._foreach_*` functions are used directly where
they are needed: torch's own documentation names them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import fx, nn

# Shape inference runs calls on tensors without data; torch has no other way to ask what a function returns.
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.nn.modules import module as torch_module

__all__ = [
    "ATTENTION_ON_CPU",
    "CUDNN_SEQUENCE",
    "FAKE_TENSOR_LOG",
    "GLOBAL_HOOKS",
    "PROFILER_OF_STACKS",
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "FakeTensor",
    "FakeTensorMode",
    "ModeForSizes",
    "as_pickled",
    "autograd_in_operator",
    "change_count",
    "compile_by_content",
    "cudnn_rnn",
    "cudnn_rnn_backward",
    "fake_with_value",
    "graph_specs",
    "has_step_hooks",
    "has_unknown_sizes",
    "hook_tables",
    "is_all_true",
    "is_compiled_function",
    "is_exporting",
    "is_hooked",
    "is_of_torch",
    "is_read_at_once",
    "is_traced_by_dynamo",
    "load_compiler",
    "mark_constant",
    "memory_of",
    "mode_for_unknown_values",
    "persistent_buffers",
    "prepare_fake_modes",
    "remove_forward_hooks",
    "sample_dirichlet",
    "sample_gamma",
    "skip_code",
    "sparse_parts",
    "storage_use_count",
    "unbind_untracked",
]

# The class of what `sys.getprofile` gives while torch.profiler records stacks.
PROFILER_OF_STACKS = "TraceContext"

# Operators that torch's counter of FLOPs knows nothing of.
ATTENTION_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
CUDNN_SEQUENCE = torch.ops.aten._cudnn_rnn

FAKE_TENSOR_LOG = logging.getLogger("torch._subclasses.fake_tensor")


def fake_with_value(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """A fake tensor of one number that knows the number, as long as it does not depend on what is unknown."""
    with unset_fake_temporarily():
        # (Within a mode the copy would be fake itself, and torch would read what is not there.)
        value = tensor.detach().clone()
    fake = mode.fake_tensor_converter.from_real_tensor(mode, value, make_constant=True)
    # Such as that it is a buffer.
    fake.__dict__.update(tensor.__dict__)
    return fake


@functools.cache
def prepare_fake_modes() -> None:
    """To be called before the first fake mode, so that it may be made in a thread that ends.

    Where torch is built with CUDA and there is no card, that thread makes what stands for the driver, and torch (2.11)
    still uses it when the thread is gone, which kills the process.
    """
    if not torch.backends.cuda.is_built() or torch.cuda.is_available():
        return
    is_made = threading.Event()

    def make() -> None:
        torch._C._ensureCUDADeviceGuardSet()
        is_made.set()
        threading.Event().wait()

    threading.Thread(target=make, daemon=True).start()
    is_made.wait()


_CTC_LOSS = (torch.ops.aten._ctc_loss.default, torch.ops.aten._ctc_loss.Tensor)


class ModeForSizes(FakeTensorMode):
    """A mode in which the values of short vectors of integers are known as long as torch knows where they are from.

    Its own mode knows single numbers. Code of Keras users puts sizes together: `ops.concatenate([[batch], [1, 1]], 0)`.
    """

    def may_turn_const(self, t: torch.Tensor) -> bool:
        short = t.ndim == 1 and t.numel() <= _SIZES and t.dtype in (torch.int32, torch.int64)
        return super().may_turn_const(t[0] if short and t.numel() else t)


class _ModeForUnknownValues(FakeTensorMode):
    """See `mode_for_unknown_values`."""

    answer: bool
    # What torch 2.11 compares a truth with to learn of it.
    _made_to_compare: Any = None

    def dispatch(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool and _asked_by_torch():
            return self.answer
        if func is torch.ops.aten.equal.default and args[1] is self._made_to_compare:
            return self.answer
        if func in _CTC_LOSS:
            # Beside the losses it returns, of no use to anybody, something as long as the longest target.
            return args[0].new_empty(args[0].shape[1:-1]), args[0].new_empty(())
        result = super().dispatch(func, types, args, kwargs)
        is_truth = func is torch.ops.aten.new_ones.default and (args[0].dtype, list(args[1])) == (torch.bool, [])
        self._made_to_compare = result if is_truth else None
        return result


def mode_for_unknown_values(answer: bool) -> FakeTensorMode:
    """A mode in which values, and sizes that depend on them, are symbols (`torch.SymInt`): for what is done inside.

    Args:
        answer: what is answered to torch's own code where it asks for the truth of a value: its checks of values, of
            which some ask whether all is right, others whether something is wrong.
    """
    # (Brings in sympy, so not before it is needed.)
    shapes = importlib.import_module("torch.fx.experimental.symbolic_shapes")
    mode = _ModeForUnknownValues(allow_non_fake_inputs=True, shape_env=shapes.ShapeEnv(), static_shapes=True)
    mode.answer = answer
    return mode


# A tensor has hardly more axes.
_SIZES = 8
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
# Between the code that asks for a value and the fake mode that is asked.
_BETWEEN = (
    __file__,
    *(_TORCH + name for name in ("_subclasses", "_dynamo", "_compile.py", "_ops.py", f"utils{os.sep}_stats.py")),
)


def _asked_by_torch() -> bool:
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_BETWEEN) and frame.f_back is not None:
        frame = frame.f_back
    return is_of_torch(frame.f_code)


def is_of_torch(code: CodeType) -> bool:
    """Whether some code is torch's own."""
    return code.co_filename.startswith(_TORCH)


# With which torch.distributions ask whether their arguments are right.
is_all_true = torch._is_all_true


def has_unknown_sizes(value: object) -> bool:
    """Whether a value from `mode_for_unknown_values` is, or has a size that is, such a symbol."""
    sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
    return any(isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) for size in sizes)


_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS: tuple[Mapping[int, Callable[..., Any]], ...] = tuple(
    getattr(torch_module, f"_global{name}") for name in _HOOK_TABLES
)
"""The hooks on all modules of the process, in the order of `hook_tables`. torch has no public way to list hooks."""


def hook_tables(module: nn.Module) -> Sequence[Mapping[int, Callable[..., Any]]]:
    """The dicts that hold a module's own hooks; torch changes them in place."""
    return [getattr(module, name) for name in _HOOK_TABLES]


def is_hooked(module: nn.Module) -> bool:
    """Whether calling a module is more than calling its class's `forward`: it has hooks, or its own `forward`."""
    return any(hook_tables(module)) or any(GLOBAL_HOOKS) or "forward" in module.__dict__


def remove_forward_hooks(module: nn.Module) -> None:
    """Take a module's own forward hooks off, whose handles others have."""
    module._forward_hooks.clear()


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether hooks run before or after the optimizer's `step`."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def sparse_parts(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that a sparse gradient names, some several times, and what it holds for each."""
    return tensor._indices()[0], tensor._values()


def unbind_untracked(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Views of the slices along the first axis, of which autograd does not know that they are views.

    It allows less to be done with the outputs of one operation that are views than with tensors of their own.
    """
    with torch._C._AutoDispatchBelowADInplaceOrView():
        return tensor.unbind()


def storage_use_count(storage: torch.UntypedStorage) -> int:
    """How many tensors share this memory. torch's own CUDA graph trees ask like this."""
    return torch._C._storage_Use_Count(storage._cdata)


change_count: Callable[[torch.Tensor], int] = attrgetter("_version")
"""A number that grows whenever a tensor is changed in place. Those made in inference mode have none."""


def is_exporting() -> bool:
    """Whether torch.export runs this.

    `torch.compiler.is_exporting()` is True under torch.compile as well in torch 2.11.
    """
    return torch.compiler._is_exporting_flag


def is_traced_by_dynamo() -> bool:
    """Whether this is run, as it is, from within a function of torch.compile's, which traces what is called from here.

    `torch.compiler.is_compiling()` is True in what is traced only.
    """
    return "torch._dynamo" in sys.modules and callable(torch._C._dynamo.eval_frame.get_eval_frame_callback())


def is_read_at_once(tensor: torch.Tensor) -> bool:
    """Whether Python may read values without waiting: on the CPU, with nothing tracing, recording or transforming."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and type(tensor) is torch.Tensor
        and tensor.is_cpu
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def is_compiled_function(value: object) -> bool:
    """Whether it is a function that torch.compile has made."""
    return isinstance(value, FunctionType) and "_torchdynamo_inline" in vars(value)


def skip_code(code: CodeType) -> None:
    """Keep torch.compile from starting at this code, not from tracing it within what it compiles.

    `torch.compiler.disable` would exclude the code from compiled functions, too.
    """
    # Imported from the extension module itself: `torch._dynamo.eval_frame` would import the whole compiler.
    frame = torch._C._dynamo.eval_frame
    frame.set_code_exec_strategy(code, frame._FrameExecStrategy(frame._FrameAction.SKIP, frame._FrameAction.DEFAULT))


class _InductorByContent(torch._TorchCompileInductorWrapper):
    """See `compile_by_content`."""

    def __call__(self, model_: Any, inputs_: Any, **options: Any) -> Any:
        model_._backend_id = None
        return super().__call__(model_, inputs_, **options)


def compile_by_content(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """`torch.compile` of a whole function for `aot_compile`, whose graph is found again in the caches on disk.

    By itself, torch (2.11 to 2.13) caches what `aot_compile` makes under a name that is another one in each process.
    """
    options = dict(options)
    guard_filter = options.pop("guard_filter_fn", None)
    backend = _InductorByContent(None, options, False)
    return torch._dynamo.optimize(backend, nopython=True, dynamic=False, guard_filter_fn=guard_filter)(function)


def load_compiler() -> Iterator[None]:
    """Import the compiler and find out what it asks once a process, in parts of a second at most."""
    for name in ("sympy", "torch._dynamo", "torch._functorch.aot_autograd", "torch._inductor.graph"):
        if name not in sys.modules:
            importlib.import_module(name)
            yield
    importlib.import_module("torch._inductor.compile_fx")
    yield
    # It asks other processes what the processor can do, which takes longer than a part.
    asks = threading.Thread(target=importlib.import_module("torch._inductor.cpu_vec_isa").pick_vec_isa, daemon=True)
    asks.start()
    importlib.import_module("torch._inductor.codecache").torch_key()
    yield
    while asks.is_alive():
        yield


def memory_of(storage: torch.storage.TypedStorage) -> torch.UntypedStorage:
    """The memory of what a tensor is pickled with."""
    return storage._untyped_storage


def as_pickled(memory: torch.UntypedStorage, dtype: torch.dtype) -> torch.storage.TypedStorage:
    """Memory as what a tensor is pickled with."""
    return torch.storage.TypedStorage(wrap_storage=memory, dtype=dtype, _internal=True)


def mark_constant(function: Callable[..., Any]) -> None:
    """What `torch.compiler.assume_constant_result` does, which imports the whole compiler to do it."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]


def autograd_in_operator() -> contextlib.AbstractContextManager[Any]:
    """Within this, autograd records inside of a `torch.library.custom_op`, which switches it off."""
    return torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)


# torch.distributions draw with these; of their kind only `torch.binomial` is public.
sample_gamma = torch._standard_gamma
sample_dirichlet = torch._sample_dirichlet

# cuDNN's recurrent layers; torch's own functions warn where the weights do not lie in one buffer.
cudnn_rnn = torch.ops.aten._cudnn_rnn.default
cudnn_rnn_backward = torch.ops.aten._cudnn_rnn_backward.default


def persistent_buffers(module: nn.Module) -> list[str]:
    """The names of a module's own buffers that its state_dict holds, those that are None too."""
    return [name for name, _ in module._buffers.items() if name not in module._non_persistent_buffers_set]


def graph_specs(graph: fx.Graph) -> tuple[Any, Any] | None:
    """The structures of inputs and outputs, of a graph whose tracer was given nested ones; None for all others."""
    info = getattr(graph._codegen, "pytree_info", None)
    return None if info is None else (info.in_spec, info.out_spec)


skip_code(is_traced_by_dynamo.__code__)
