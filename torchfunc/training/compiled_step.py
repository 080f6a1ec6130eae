"""Compiled steps: a whole step as one graph of `torch.compile`, one for each kind of batch.

Shapes are static. A step reads weights, state and settings anew from where they live, so whatever is changed in place
(the learning rate, a weight that is loaded) or replaced by its like needs no new graph. What a graph takes for constant
is in the graph keys of layers, optimizer, losses and metrics (`graph_key`) and in `weights_key`; with other keys there
is another `CompiledStep`.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from torchfunc.graph.torch_internals import compile_by_content
from torchfunc.graph.tracing import with_own_code
from torchfunc.modules.fx_module import module_called_at

__all__ = ["MAX_GRAPHS", "BatchFunction", "CompiledStep", "weights_key"]

BatchFunction: TypeAlias = Callable[[Any], Any]
"""A function of one batch, or of a tuple of batches, that returns tensors in any nesting."""

Kind: TypeAlias = Hashable
"""What a graph depends on of its batches."""

R = TypeVar("R")

MAX_GRAPHS = 8
"""So many kinds of batches are compiled, sequence lengths for one; steps on others run eagerly."""

_MOST_RESTARTS = 3


class CompiledStep:
    """A step that runs eagerly once, which makes all state that is made on first use, and compiled from then on.

    Args:
        step: the step, a function of one batch that returns tensors in any nesting.
        what: what it is called in messages: "The training step of model 'mnist'".
        required: whether a step that cannot be compiled is an error, and not a warning.
        guarded: whether torch.compile's checks stay, which are for code that is not torchfunc's or torch's own: they
            see when it has read something that has changed.
        prepare: called before a graph is made. A ValueError says why there can be none.
        in_mode: makes a context in which the flags of all modules, which torch.compile reads, are right for the step.
        wait: makes what says, called with each batch of a kind, whether its graph is to be made now, for which
            another process may prepare; until then steps are eager. None makes graphs at once.
    """

    def __init__(
        self,
        step: BatchFunction,
        what: str,
        required: bool,
        guarded: bool,
        prepare: Callable[[], None] = lambda: None,
        in_mode: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        wait: Callable[[], Callable[[Any], bool]] | None = None,
    ) -> None:
        self._step = step
        self._what = what
        self._required = required
        self._guarded = guarded
        self._prepare = prepare
        self._in_mode = in_mode
        self._wait = wait
        self._waiting: dict[Kind, Callable[[Any], bool]] = {}
        self._runs: dict[Kind, BatchFunction] = {}
        # Those that torch.compile need not look at any more, so that no mode has to be set.
        self._ready: dict[Kind, BatchFunction] = {}
        self._begun = False
        self._most = MAX_GRAPHS
        self.graphs = 0
        """How many graphs were made."""
        self.is_waiting = False
        """Whether the last step was eager because its graph is not there yet."""

    @property
    def is_prepared_beside(self) -> bool:
        """Whether another process may make graphs while steps run eagerly."""
        return self._wait is not None

    def __call__(self, data: Any) -> Any:
        if not self._begun:
            self._begun = True
            with self._in_mode():
                return self._step(data)
        kind = _kind(data)
        ready = self._ready.get(kind)
        if ready is not None:
            return ready(data)
        self.is_waiting = self._has_to_wait(kind, data)
        if self.is_waiting or not (self._most or kind in self._runs or kind in self._waiting):
            return self._step(data)
        try:
            with self._to_compile():
                run = self._runs.get(kind) or self._choose(kind)
                result = run(data)
                if not self._guarded or run is self._step:
                    self._ready[kind] = run
                return result
        except _Refusal as refusal:
            self._give_up(_reason(refusal.cause), refusal.cause)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            self._give_up(_reason(error), error)
        return self._step(data)

    @contextlib.contextmanager
    def _to_compile(self) -> Iterator[None]:
        # Gradients are taken within the graph. Numbers are constants, unless checks would compile anew for each.
        # What is computed again for the gradients changes no state again.
        options = {"trace_autograd_ops": True, "specialize_float": not self._guarded}
        options["skip_fwd_side_effects_in_bwd_under_checkpoint"] = True
        try:
            patch = torch._dynamo.config.patch(options)
        except OSError as error:
            # The compiler is imported now, and wants a folder to write to.
            raise _Refusal(error) from error
        with self._in_mode(), patch:
            yield

    def make(self, data: Any) -> None:
        """Make the graph for batches like this one, and nothing else: it stays in the caches on disk."""
        assert not self._guarded
        with self._to_compile():
            self._prepare()
            make_ahead(with_own_code(self._step), data)

    def _has_to_wait(self, kind: Kind, data: Any) -> bool:
        if self._wait is None or kind in self._runs:
            return False
        if kind not in self._waiting:
            if self._is_left_over(kind):
                # Not worth to import the compiler, either.
                self._runs[kind] = self._ready[kind] = self._step
                return True
            if self.graphs + len(self._waiting) >= self._most:
                return False
            self._waiting[kind] = self._wait()
        return not self._waiting[kind](data)

    def _is_left_over(self, kind: Kind) -> bool:
        compiled = [other for other, run in self._runs.items() if run is not self._step]
        return any(_is_rest(kind, other) for other in [*compiled, *self._waiting])

    def _choose(self, kind: Kind) -> BatchFunction:
        """How batches of a kind not met before are run."""
        has_waited = self._waiting.pop(kind, None) is not None
        if self._is_left_over(kind):
            run = self._step
        elif has_waited or self.graphs + len(self._waiting) < self._most:
            run = self._compile(kind)
        else:
            if self._most:
                warnings.warn(
                    f"{self._what} has met batches of more than {MAX_GRAPHS} kinds (shapes and types), and a graph is "
                    "compiled for each: from here on, those of a new kind run eagerly. Pad sequences to fewer lengths "
                    "to have them compiled.",
                    stacklevel=4,
                )
            self._most = 0
            run = self._step
        self._runs[kind] = run
        return run

    def _compile(self, kind: Kind) -> BatchFunction:
        try:
            self._prepare()
        except ValueError as error:
            raise _Refusal(error) from error
        self.graphs += 1
        on_cuda = any(leaf.device.type == "cuda" for leaf in _leaves(kind))
        return compile_whole(with_own_code(self._step), self._guarded, on_cuda)

    def _give_up(self, reason: str, error: BaseException | None) -> None:
        message = f"{self._what} cannot be compiled as a whole: {reason}"
        self._waiting.clear()
        if self._required:
            self._runs.clear()
            self._ready.clear()
            raise ValueError(f"{message} Pass jit_compile=False to run it eagerly.") from error
        warnings.warn(f"{message} It runs eagerly; jit_compile=False says so beforehand.", stacklevel=4)
        self._runs = dict.fromkeys(self._runs, self._step)
        self._ready = dict(self._runs)
        self._most = 0


# With these in it, torch would not know that a graph is the same as one in its caches.
_NAMED_BY_ARGUMENTS = {f"torch.amp.autocast_mode.{name}": name for name in ("_enter_autocast", "_exit_autocast")}


def compile_whole(step: BatchFunction, guarded: bool, on_cuda: bool) -> BatchFunction:
    """A function as one graph of static shapes, made at the first call; on CUDA it is replayed as a CUDA graph."""
    graph: BatchFunction | None = None

    def run(data: Any) -> Any:
        nonlocal graph
        if graph is not None:
            return graph(data)

        def make(options: dict[str, Any]) -> tuple[BatchFunction, Any]:
            made = _make_graph(step, data, guarded, on_cuda, options)
            return made, made(data)

        graph, result = _with_less_fusion(make)
        return result

    return run


def make_ahead(step: BatchFunction, data: Any) -> None:
    """Make the graph of a function for such data on the CPU, without guards, and leave it in the caches on disk."""
    _with_less_fusion(lambda options: _make_graph(step, data, False, False, options))


def _with_less_fusion(make: Callable[[dict[str, Any]], R]) -> R:
    try:
        return make({})
    except torch._dynamo.exc.BackendCompilerFailed:
        # Inductor (torch 2.13) fails at some fusions, such as of a norm with the weight that it is to limit.
        return make({"max_fusion_size": 1})


def _make_graph(step: BatchFunction, data: Any, guarded: bool, on_cuda: bool, options: dict[str, Any]) -> BatchFunction:
    # Else dropout would draw other numbers than in an eager step.
    options = {"fallback_random": True, **options}
    if not guarded:
        # What these would check at each step is in the graph keys or the kind.
        options |= {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe, "size_asserts": False}
        options["unsafe_marked_cacheable_functions"] = _NAMED_BY_ARGUMENTS
    if on_cuda:
        options["triton.cudagraphs"] = True
    if on_cuda or guarded:
        compiled = torch.compile(step, fullgraph=True, dynamic=False, options=options)
        return partial(_replay, compiled) if on_cuda else compiled
    try:
        # torch 2.11 gives `aot_compile` only when asked for.
        with torch._dynamo.config.patch(enable_aot_compile=True):
            return _ahead_of_time(compile_by_content(step, options), data)
    except torch._dynamo.exc.TorchDynamoException:
        raise
    except (RuntimeError, OSError) as error:
        # There is no C++ compiler, or no place for what it makes.
        raise _Refusal(error) from error


def _replay(graph: BatchFunction, data: Any) -> Any:
    torch.compiler.cudagraph_mark_step_begin()
    # The next replay writes to the same memory.
    return tree_map_only(Tensor, Tensor.clone, graph(data))


def _ahead_of_time(compiled: Any, data: Any) -> BatchFunction:
    """The graph that `torch.compile` makes for these data, called without its search for one at each call."""
    state = random.getstate()
    # A graph that torch cannot name by its content it names by `random.random()` in its cache on disk: after
    # `random.seed(0)`, by the name of another graph.
    random.seed()
    try:
        # When it meets numbers that it has to take for constants, it has to begin again with them.
        for _ in range(_MOST_RESTARTS):
            with contextlib.suppress(torch._dynamo.exc.RestartAnalysis):
                graph: Any = compiled.aot_compile(((data,), {}))
                graph.disable_guard_check()
                return graph
    finally:
        random.setstate(state)
    return compiled


class _Refusal(Exception):
    """Something that a step uses cannot be part of a graph, or there can be no graphs here; the cause says why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


class _Leaf(NamedTuple):
    """What a graph knows of a tensor of its batches."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def _kind(data: Any) -> Kind:
    """What a graph depends on: structure, shapes, memory layouts, dtypes and devices."""
    if isinstance(data, Tensor):
        return _Leaf(data.shape, data.stride(), data.dtype, data.device)
    if isinstance(data, Mapping):
        return tuple((key, _kind(value)) for key, value in data.items())
    if isinstance(data, (list, tuple)):
        return type(data), *map(_kind, data)
    return data


def _leaves(kind: Kind) -> Iterator[_Leaf]:
    if isinstance(kind, _Leaf):
        yield kind
    elif isinstance(kind, tuple):
        for item in kind:
            yield from _leaves(item)


def _is_rest(kind: Kind, other: Kind) -> bool:
    """Whether batches of `kind` are as those of `other` but with fewer rows: what is left over at an epoch's end."""
    pairs = list(zip(_leaves(kind), _leaves(other), strict=False))
    return bool(pairs) and all(
        one.shape[:1] < two.shape[:1] and (one.shape[1:], one.dtype) == (two.shape[1:], two.dtype) for one, two in pairs
    )


def _reason(error: Exception) -> str:
    """Why and where a step could not be compiled, in a sentence or two."""
    text = str(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    explained = next((line for line in lines if line.startswith("Explanation:")), "").removeprefix("Explanation: ")
    if "data-dependent" in text:
        reason = "it depends on the values of a tensor"
    else:
        # "backend='inductor' raised:" says less than what follows.
        reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")
        reason += f" ({explained.rstrip('.')})" if explained else ""
    stack = list(getattr(error, "real_stack", None) or ())
    layers = [layer for frame in stack if (layer := module_called_at(frame.filename, frame.line or ""))]
    where = f", in layer {layers[-1]!r}" if layers else ""
    if stack:
        last = stack[-1]
        where += f", at {last.filename}:{last.lineno}" + (f" ({last.line.strip()})" if last.line else "")
    return f"{reason}{where}."


def weights_key(model: nn.Module) -> Hashable:
    """What a graph depends on besides settings: which weights are trained, and how they lie in memory."""
    weights = itertools.chain(model.parameters(), model.buffers())
    return tuple((w.requires_grad, w.shape, w.stride(), w.dtype, w.device) for w in weights)
