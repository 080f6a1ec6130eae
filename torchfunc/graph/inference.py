"""Shape inference: what a call would return, without running it on real data and without changing any module.

The target runs twice under `FakeTensorMode`, on the two example shapes each symbolic tensor carries; a size that
differs between the two runs is unknown. (Where an unknown size is cut to a known one, `x[:, :512]`, the known one is
taken for the result's.) A target that fails on these sizes is tried on smaller and larger ones. A module is copied
first with fake parameters and buffers in the copy, so the module itself, its buffers, its mode and the random
generators stay as they are, also for another thread that runs it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import random
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import register_dataclass, tree_flatten, tree_leaves, tree_unflatten

from torchfunc.graph.example_sizes import OTHER_SIZES, Examples, recorded_again, rescaled
from torchfunc.graph.failures import CALL_ERRORS, explained
from torchfunc.graph.modules_within import modules_within
from torchfunc.graph.node import Args, Kwargs, Opaque, Spec, Specs, SymbolicValue, symbolic_leaves
from torchfunc.graph.signatures import call_signature, function_signature
from torchfunc.graph.source import located
from torchfunc.graph.torch_internals import (
    FAKE_TENSOR_LOG,
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    ModeForSizes,
    change_count,
    fake_with_value,
    has_unknown_sizes,
    mode_for_unknown_values,
    prepare_fake_modes,
    remove_forward_hooks,
)
from torchfunc.meta_weights import off_meta
from torchfunc.structures import Structure, leaves, map_structure

__all__ = [
    "check_modes",
    "copies_to_share",
    "fake_copy",
    "infer",
    "infer_call",
    "infer_module",
    "is_inferring",
    "tensor_method",
    "writes_to_arguments",
]

# What torch says where it looks for the data of a fake tensor unprepared.
_NO_DATA = "its data is not allocated yet"
_VALUES = (
    "{} depends on the values of its input, not only on their shape, so it cannot be drawn as a graph node ({}). "
    "Wrap a module as layers.TorchModule(module, output_shape=...), with None for the batch axis, or a function as "
    "layers.Lambda(function, output_shape=...), without it."
)
# What a call may return beside tensors; it becomes a constant of the graph.
_CONSTANTS = (type(None), int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format)

# The results of calls of torch's own modules and functions, by their signatures; so many at most.
_inferred: dict[Hashable, Specs] = {}
# An attribute of modules, so that copies have it.
_WRITES = "_torchfunc_writes_to_arguments"
_CACHE_SIZE = 1000


class _Running(threading.local):
    """Whether this thread is inside a fake run."""

    active = False


_running = _Running()
# The bytes of the state of a torch.Generator on the CPU, the largest of all.
_RANDOM_STATE_SIZE = torch.Generator().get_state().numel()
# Torch logs the traceback of every failed fake run; ours end in an error that says more.
FAKE_TENSOR_LOG.addFilter(lambda record: not _running.active)


def is_inferring() -> bool:
    """Whether this thread is running a call on fake tensors, to see what comes out."""
    return _running.active


def infer(
    prepare: Callable[[FakeTensorMode], Callable[..., Any]],
    args: Args,
    kwargs: Kwargs,
    label: str,
    owner: nn.Module | None = None,
) -> Specs:
    """The outputs of a call as a structure of `Spec`s and constants.

    Args:
        prepare: gets the fake mode of a run and returns what to call in it.
        args, kwargs: the arguments, with `SymbolicValue`s in them.
        label: what to call the target in an error.
        owner: the module that is called, which is marked if it is seen to write to an argument.

    Raises:
        ValueError: torch cannot run the target on arguments of these shapes, or its result depends on data values.
        Exception: what the target's own code raises, with a note that says which call it was.
    """
    values = symbolic_leaves((args, kwargs))
    # What is computed from an unknown size is unknown, even where both examples give the same (`x.size(0) > 3`).
    sizes = any(value.spec.shape is None for value in values)
    call = _Call(prepare, args, kwargs, label, owner)
    recorded = [value.spec.examples for value in values]
    tried: list[Sequence[Examples]] = []
    failure: _CallFailed | None = None
    for examples in itertools.chain([recorded], (rescaled(recorded, other) for other in OTHER_SIZES)):
        if examples is None:
            continue
        tried.append(examples)
        try:
            runs = call.run_twice(dict(zip(values, examples, strict=True)))
        except _CallFailed as failed:
            failure = failure or failed
            continue
        specs = _compare(*runs, sizes, label)
        if specs is None and owner is not None:
            raise ValueError(located(f"{label} returns None. Is a `return` missing in its `call` or `forward`?"))
        return specs if len(tried) == 1 else recorded_again(specs, recorded, examples)
    assert failure is not None
    error, cause = explained(label, values, tried, failure.error)
    raise error from cause


class _CallFailed(Exception):
    """A call failed on the sizes that it was tried on.

    Attributes:
        error: what it raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _ValuesNeeded(_CallFailed):
    """A call asked for the value of a tensor, of which only the shape is known."""


class _Call:
    """A call that is to be tried on examples of its arguments; see `infer`."""

    def __init__(
        self,
        prepare: Callable[[FakeTensorMode], Callable[..., Any]],
        args: Args,
        kwargs: Kwargs,
        label: str,
        owner: nn.Module | None,
    ) -> None:
        self.prepare, self.args, self.kwargs, self.label, self.owner = prepare, args, kwargs, label, owner

    def run_twice(self, examples: Mapping[SymbolicValue, Examples]) -> tuple[Structure, Structure]:
        """What the call returns on the first and on the second example of each value.

        Raises:
            _CallFailed: it fails on them.
            ValueError: what it does depends on data values.
        """
        first = self._run(0, examples)
        known = all(pair[0] == pair[1] and value.spec.shape is not None for value, pair in examples.items())
        return first, first if known else self._run(1, examples)

    def run_once(self, examples: Mapping[SymbolicValue, Examples]) -> Structure:
        """What the call returns on the first example of each value; raises as `run_twice` does."""
        return self._run(0, examples)

    def _run(self, trial: int, examples: Mapping[SymbolicValue, Examples]) -> Structure:
        prepare_fake_modes()
        try:
            return self._run_in(ModeForSizes(allow_non_fake_inputs=True), trial, examples)
        except _ValuesNeeded as needed:
            # What it computes inside may have sizes that depend on values (the edges of a graph that are kept, say).
            for answer in (False, True):
                try:
                    result = self._run_in(mode_for_unknown_values(answer), trial, examples)
                except _CallFailed:
                    continue
                if not any(has_unknown_sizes(leaf) for leaf in tree_leaves(result)):
                    return result
            raise ValueError(located(_VALUES.format(self.label, needed.error))) from needed.error

    def _run_in(self, mode: FakeTensorMode, trial: int, examples: Mapping[SymbolicValue, Examples]) -> Structure:
        _running.active = True
        try:
            # A new mode for each run: a shared one caches the dtype a parameter used to have.
            target = self.prepare(mode)
            fake = _faker(trial, examples, mode, _device(target, self.args, self.kwargs))
            # A function of torch draws nothing from these; a module's forward is anybody's code.
            random_state = _random_state_restored() if isinstance(target, nn.Module) else contextlib.nullcontext()
            with mode, off_meta(), torch.enable_grad(), random_state:
                args, kwargs = map_structure(fake, (tuple(self.args), dict(self.kwargs)))
                tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
                # (Those of inference mode do not tell.)
                tensors = [tensor for tensor in tensors if not tensor.is_inference()]
                counts = list(map(change_count, tensors))
                result = target(*args, **kwargs)
                if self.owner is not None and list(map(change_count, tensors)) != counts:
                    self.owner.__dict__[_WRITES] = True
                return result
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise _ValuesNeeded(error) from error
        except Exception as error:
            needs_data = isinstance(error, CALL_ERRORS) and _NO_DATA in str(error)
            raise (_ValuesNeeded if needs_data else _CallFailed)(error) from error
        finally:
            _running.active = False


def infer_call(target: Callable[..., Any] | str, args: Args, kwargs: Kwargs, label: str) -> Specs:
    """`infer` for a function that holds no parameters, or a tensor method by name; alike calls are run once."""
    function = tensor_method(target) if isinstance(target, str) else target
    key = function_signature(target, args, kwargs)
    return _infer_once(key, lambda: infer(lambda mode: function, args, kwargs, label))


def infer_module(module: nn.Module, args: Args, kwargs: Kwargs, label: str) -> Specs:
    """`infer` for a module; of calls that are alike, only the first is run."""
    key = call_signature(module, args, kwargs)

    def run() -> Specs:
        specs = infer(lambda mode: fake_copy(module, mode), args, kwargs, label, module)
        check_modes(module, args, kwargs, label, specs)
        return specs

    return _infer_once(key, run)


def _copy_in_mode(module: nn.Module, training: bool, fake: FakeTensorMode) -> nn.Module:
    return fake_copy(module, fake).train(training)


def check_modes(module: nn.Module, args: Args, kwargs: Kwargs, label: str, specs: Specs) -> None:
    """Check that a module that returns several values does so in train and in eval mode.

    Raises:
        ValueError: it does not: what a graph takes apart would be another thing.
    """
    if isinstance(specs, Spec):
        return
    values = symbolic_leaves((args, kwargs))
    examples = {value: value.spec.examples for value in values}
    found = []
    for mode in (True, False):
        call = _Call(functools.partial(_copy_in_mode, module, mode), args, kwargs, label, None)
        try:
            result = call.run_once(examples)
        except (_CallFailed, ValueError):
            return
        found.append([isinstance(leaf, torch.Tensor) for leaf in leaves(result)])
    if found[0] != found[1]:
        train, evaluation = map(sum, found)
        raise ValueError(
            located(
                f"{label} returns {train} tensors in train mode and {evaluation} in eval mode, so no graph fits both. "
                "Switch its additional outputs off, or wrap it in a module that returns the same in both modes."
            )
        )


def _infer_once(key: Hashable | None, run: Callable[[], Specs]) -> Specs:
    known = None if key is None else _inferred.get(key)
    if known is not None:
        return known
    specs = run()
    if key is not None:
        if len(_inferred) >= _CACHE_SIZE:
            _inferred.clear()
        _inferred[key] = specs
    return specs


def tensor_method(name: str) -> Callable[..., Any]:
    """The tensor method `name` as a function of the tensor and its arguments."""

    def call(tensor: Any, *rest: Any, **options: Any) -> Any:
        return getattr(tensor, name)(*rest, **options)

    return call


def writes_to_arguments(module: nn.Module) -> bool:
    """Whether a module was seen to change an argument in place, or holds one that says it does (`inplace=True`)."""
    parts = modules_within(module) if module._modules else [module]
    return any(part.__dict__.get("inplace") or _WRITES in part.__dict__ for part in parts)


def _device(target: Any, args: Args, kwargs: Kwargs) -> torch.device | None:
    """Where the call takes place: where the module's weights are, or the first tensor among the arguments."""
    weights = itertools.chain(target.parameters(), target.buffers()) if isinstance(target, nn.Module) else ()
    given = (leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
    found = next((tensor.device for tensor in itertools.chain(weights, given)), None)
    return torch.device("cpu") if found is not None and found.type == "meta" else found


@contextlib.contextmanager
def _random_state_restored() -> Iterator[None]:
    """Undo what this block draws from Python's and NumPy's generators. (Torch draws nothing for fake tensors.)"""
    before = random.getstate()
    numpy_before: Any = np.random.get_state()
    try:
        yield
    finally:
        # Only if it drew: another thread may be drawing.
        if random.getstate() != before:
            random.setstate(before)
        now: Any = np.random.get_state()
        if now[2:] != numpy_before[2:] or not np.array_equal(now[1], numpy_before[1]):
            np.random.set_state(numpy_before)


def _faker(
    trial: int, examples: Mapping[SymbolicValue, Examples], mode: FakeTensorMode, device: torch.device | None
) -> Callable[[Any], Any]:
    def fake(leaf: Any) -> Any:
        if isinstance(leaf, SymbolicValue):
            example = examples[leaf][trial]
            return example if leaf.spec.dtype is None else torch.empty(example, dtype=leaf.spec.dtype, device=device)
        if isinstance(leaf, torch.Tensor):
            return _fake(leaf, mode)
        return leaf

    return fake


def _compare(first: Structure, second: Structure, sizes: bool, label: str) -> Specs:
    """Fold two runs' results into one structure of specs: what differs between them is unknown.

    Args:
        first, second: the results.
        sizes: whether unknown sizes were among the arguments, so that no number in the results is known.
        label: what to call the target in an error.
    """
    _register_dataclasses(first)
    values, structure = tree_flatten(first)
    others, other_structure = tree_flatten(second)
    if structure != other_structure:
        raise ValueError(
            f"{label} returns {len(values)} values for one input size and {len(others)} for another. A graph node "
            "needs a fixed structure: give Input(...) the size it depends on."
        )
    specs = [_fold(a, b, sizes, label) for a, b in zip(values, others, strict=True)]
    if len(specs) == 1 and isinstance(specs[0], Opaque):
        raise ValueError(specs[0].refusal)
    return tree_unflatten(specs, structure)


def _register_dataclasses(result: Structure) -> None:
    """Tell torch's pytrees of the dataclasses in a result, so that the tensors in them are found."""
    found = True
    while found:
        # One may be within another.
        found = False
        for leaf in tree_leaves(result):
            if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
                found = all(field.init for field in dataclasses.fields(leaf))
                if found:
                    register_dataclass(type(leaf))
                    break


def _fold(first: Any, second: Any, sizes: bool, label: str) -> Specs:
    if isinstance(first, torch.Tensor):
        shapes = tuple(first.shape), tuple(second.shape)
        if len(shapes[0]) != len(shapes[1]):
            raise ValueError(f"The rank of what {label} returns depends on the input's size: {shapes}.")
        shape = tuple(a if a == b else None for a, b in zip(*shapes, strict=True))
        return Spec(shape, first.dtype, shapes)
    if isinstance(first, torch.Size) and len(first) == len(second):
        return tuple(_fold(a, b, sizes, label) for a, b in zip(first, second, strict=True))
    if isinstance(first, (int, float)) and (sizes or first != second):
        return Spec(None, None, (first, second))
    return first if isinstance(first, _CONSTANTS) else Opaque(label, type(first).__name__)


def fake_copy(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of `module` whose tensors are fake: it can run, and build what is unbuilt, with no effect outside.

    The copy has no forward hooks, since they may store what they are given; forward pre-hooks stay, since
    weight norm and its kin compute the weight in one.
    """
    if isinstance(module, torch.jit.ScriptModule):
        # It holds its weights where Python does not get at them; they are real, but what it makes of them is not.
        return _copied_script(module)
    memo: dict[int, Any] = {}
    for submodule in module.modules():
        for holder in (submodule._parameters, submodule._buffers, submodule.__dict__):
            for value in holder.values():
                if isinstance(value, UninitializedParameter):
                    raise ValueError(
                        f"{type(submodule).__name__} has parameters of unknown shape. Run it once on real data, "
                        "or use the torchfunc layer of that kind, which is built when it is called."
                    )
                if isinstance(value, torch.Tensor):
                    memo[id(value)] = _fake(value, mode)
                elif isinstance(value, torch.Generator):
                    # Its own deep copy goes by way of a tensor, which must be real.
                    memo[id(value)] = value.clone_state()
    with _CopiesAreFake(mode):
        duplicate = copy.deepcopy(module, memo)
    for submodule in duplicate.modules():
        remove_forward_hooks(submodule)
    # Of a layer: which masks come out is not asked here.
    duplicate.__dict__["masks_are_settled"] = True
    return duplicate


def _copied_script(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A copy of a ScriptModule whose weights are leaves, as torch's own copies are not."""
    with torch.no_grad():
        duplicate: torch.jit.ScriptModule = copy.deepcopy(module)
    for old, new in zip(module.parameters(), duplicate.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    return duplicate


def copies_to_share(module: nn.Module) -> dict[int, Any]:
    """For a deep copy of `module` the copies, by `id`, of what torch would copy wrongly or not at all."""
    found: dict[int, Any] = {}
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule) and id(part) not in found:
            duplicate = _copied_script(part)
            found.update(zip(map(id, part.modules()), duplicate.modules(), strict=True))
            # An optimizer has these, too.
            found.update(zip(map(id, part.parameters()), duplicate.parameters(), strict=True))
            continue
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                # Weight norm or pruning computed it, and will again.
                found[id(value)] = value.detach().clone()
    return found


class _CopiesAreFake(TorchFunctionMode):
    """Within this, the deep copy of a tensor that a module keeps in a list, say, is a fake one and takes no memory."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        # (The state of a random generator within some object must be real.)
        if func in (torch.Tensor.__deepcopy__, torch.Tensor.clone) and not _may_be_random_state(args[0]):
            return _fake(args[0], self.mode)
        return func(*args, **(kwargs or {}))


def _may_be_random_state(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.uint8 and tensor.ndim == 1 and tensor.numel() <= _RANDOM_STATE_SIZE


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    if tensor.is_meta:
        # As if it had values: what a layer counts in, say, may have some.
        with mode:
            room = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
            return nn.Parameter(room, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else room
    if tensor.is_leaf:
        # The value of a switch or a counter may decide what is done.
        single = type(tensor) is torch.Tensor and tensor.numel() == 1 and tensor.layout is torch.strided
        known = single and tensor.device.type == "cpu"
        return fake_with_value(tensor, mode) if known else mode.from_tensor(tensor)
    # Weight norm or pruning computed it. Torch warns when the grad of such a tensor is read, as `from_tensor` does.
    with mode:
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
