"""Draw every operator and every module of PyTorch's own test databases, and compare the model with the plain call.

    python scripts/sweep_torch.py [NAME ...]        all, or those whose name holds one of NAME

Each sample is called with symbolic inputs; the model drawn from that runs on the sample itself, and must return what
the plain call returns: structure, dtypes, values (shapes only, where they are random or uninitialized). The symbolic
result must have announced those shapes and dtypes. A call that ends in a ValueError, TypeError or AttributeError while
it is drawn is refused, any other error is wrong. Prints the refused and the wrong with what they say, and the totals.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from torchfunc import Input, Model, SymbolicTensor

try:
    import expecttest  # noqa: F401
except ImportError:
    # The databases import it for its base class of test cases alone.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    sys.modules["expecttest"] = stand_in

from torch.testing._internal import common_methods_invocations
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

SAMPLES = 4
DTYPES = (torch.float32, torch.complex64, torch.int64, torch.bool)
# Their values differ from call to call, or are whatever was in memory.
RANDOM = (
    *("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided", "resize_"),
    *("resize_as_", "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal"),
    *("rand_like", "randint", "randint_like", "randn", "randn_like", "uniform", "pca_lowrank", "svd_lowrank"),
    *("nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d", "nn.functional.alpha_dropout"),
    *("nn.functional.feature_alpha_dropout", "nn.functional.fractional_max_pool2d", "nn.functional.rrelu"),
    *("nn.functional.fractional_max_pool3d", "nn.functional.scaled_dot_product_attention"),
    *("nn.functional.multi_head_attention_forward",),
)


@dataclass(frozen=True)
class Case:
    """One sample of an operator or a module.

    Attributes:
        name: of the operator or module.
        function: what is called.
        args, kwargs: its arguments, with tensors anywhere.
        exact: whether two calls give the same values.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    exact: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "right", "refused" or "wrong", and why."""

    kind: str
    why: str = ""


def operator_cases(info: Any) -> Iterator[Case]:
    """The first samples of an operator, in the first of `DTYPES` that it knows."""
    known = info.supported_dtypes("cpu")
    dtype = next((each for each in DTYPES if each in known), None)
    name = info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")
    exact = info.name.removeprefix("_refs.") not in RANDOM
    if dtype is None:
        return
    samples = info.sample_inputs("cpu", dtype, requires_grad=False)
    for sample in itertools.islice(samples, SAMPLES):
        yield Case(name, as_method(info.op), (sample.input, *sample.args), dict(sample.kwargs), exact)


def as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """`x.item()` for `torch.Tensor.item(x)`, which takes nothing but tensors; any other function as it is."""
    if getattr(function, "__objclass__", None) is not torch.Tensor.__base__:
        return function
    return lambda tensor, *args, **kwargs: getattr(tensor, function.__name__)(*args, **kwargs)


def as_people_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the databases that seeds the generator and then calls another one, which it shall call so, too."""
    return lambda op, *args, **kwargs: function(as_method(op), *args, **kwargs)


# Python lets nobody else answer `torch.Tensor.uniform_(x)`; `x.uniform_()` comes to us.
common_methods_invocations.wrapper_set_seed = as_people_call(common_methods_invocations.wrapper_set_seed)


def module_cases(info: Any) -> Iterator[Case]:
    """The first samples of a module, in evaluation mode."""
    found = info.module_inputs_func(info, "cpu", torch.float32, False, False)
    for sample in itertools.islice(found, SAMPLES):
        made = sample.constructor_input
        module = info.module_cls(*made.args, **made.kwargs).eval()
        forward = sample.forward_input
        yield Case(info.name, module, tuple(forward.args), dict(forward.kwargs))


def check(case: Case, unknown_batch: bool) -> Outcome:
    """Draw a case, run the model of it, and compare with the plain call."""
    inputs: list[SymbolicTensor] = []
    data: list[Tensor] = []

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or isinstance(leaf, nn.Parameter):
            return leaf
        shape: list[int | None] = list(leaf.shape)
        # (An axis of one entry is broadcast or squeezed as no unknown one is.)
        if unknown_batch and shape and shape[0] != 1:
            shape[0] = None
        data.append(leaf)
        inputs.append(Input(batch_shape=shape, dtype=leaf.dtype))
        return inputs[-1]

    expected = plain_call(case)
    if isinstance(expected, Exception):
        return Outcome("right", "the plain call fails")
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((case.args, case.kwargs))):
        return Outcome("right", "there is nothing to draw")
    try:
        drawn = case.function(*tree_map(draw, case.args), **tree_map(draw, case.kwargs))
        announced(drawn, expected, unknown_batch)
        model = Model(inputs, symbolic) if (symbolic := symbolic_leaves(drawn)) else None
    except (ValueError, TypeError, AttributeError) as error:
        return Outcome("refused", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - these are what is looked for
        return Outcome("wrong", f"drawing: {type(error).__name__}: {error}")
    try:
        if model is not None:
            compare(model, drawn, expected, data, case.exact)
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome("wrong", f"{type(error).__name__}: {error}")
    return Outcome("right")


def plain_call(case: Case) -> Any:
    """What the call returns, or the exception it raises."""
    torch.manual_seed(0)
    args, kwargs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (case.args, case.kwargs))
    try:
        return case.function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - some samples are meant to fail
        return error


def symbolic_leaves(drawn: Any) -> list[SymbolicTensor]:
    return [leaf for leaf in tree_leaves(drawn) if isinstance(leaf, SymbolicTensor)]


def announced(drawn: Any, expected: Any, unknown_batch: bool) -> None:
    """Raise an AssertionError if structure, shapes, dtypes or constants of a symbolic result are not as expected."""
    leaves, structure = tree_flatten(drawn)
    wanted, wanted_structure = tree_flatten(expected)
    assert structure == wanted_structure, f"structure {structure} instead of {wanted_structure}"
    for leaf, want in zip(leaves, wanted, strict=True):
        if not isinstance(leaf, SymbolicTensor):
            # A number that is known before the values are; where sizes are unknown it may be symbolic.
            assert unknown_batch or (type(leaf) is type(want) and leaf == want), f"{leaf!r} instead of {want!r}"
            continue
        assert leaf.dtype == want.dtype, f"announced {leaf.dtype} instead of {want.dtype}"
        assert unknown_batch or leaf.shape == tuple(want.shape), f"announced {leaf.shape}, came {tuple(want.shape)}"
        assert len(leaf.shape) == want.ndim, f"announced {leaf.shape}, came {tuple(want.shape)}"
        # (Of an unknown and a known size the known one is announced as the smaller.)
        fits = all(size is None or size >= real for size, real in zip(leaf.shape, want.shape, strict=True))
        assert fits, f"announced {leaf.shape}, came {tuple(want.shape)}"


def compare(model: Model, drawn: Any, expected: Any, data: list[Tensor], exact: bool) -> None:
    """Raise an AssertionError if the model does not return what was expected."""
    torch.manual_seed(0)
    given = iter(tree_leaves(model.eval()([each.clone() for each in data])))
    for leaf, want in zip(tree_leaves(drawn), tree_leaves(expected), strict=True):
        if isinstance(leaf, SymbolicTensor):
            got = next(given)
            assert got.dtype == want.dtype, f"{got.dtype} instead of {want.dtype}"
            assert got.shape == want.shape, f"{tuple(got.shape)} instead of {tuple(want.shape)}"
            if exact:
                torch.testing.assert_close(got, want, equal_nan=True)


def sweep(infos: list[Any], cases: Callable[[Any], Iterator[Case]]) -> Iterator[tuple[str, Outcome]]:
    """For each operator or module the worst of the outcomes of its samples, with fixed sizes and an unknown batch."""
    order = ("right", "refused", "wrong")
    for info in infos:
        found = Outcome("right")
        name = info.name
        for case in cases(info):
            name = case.name
            for unknown_batch in (False, True):
                outcome = check(case, unknown_batch)
                if unknown_batch and outcome.kind == "refused":
                    # The sample's sizes may be tied to that of the batch.
                    continue
                found = max(found, outcome, key=lambda each: order.index(each.kind))
        yield name, found


DATABASES = {"operators": (op_db, operator_cases), "modules": (module_db, module_cases)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    for what, (infos, cases) in DATABASES.items():
        chosen = [info for info in infos if not names or any(name in info.name for name in names)]
        totals = {"right": 0, "refused": 0, "wrong": 0}
        for name, outcome in sweep(chosen, cases):
            totals[outcome.kind] += 1
            if outcome.kind != "right":
                print(f"{outcome.kind:8} {name}: {outcome.why.splitlines()[0][:300]}", flush=True)
        print(f"{what}: " + ", ".join(f"{count} {kind}" for kind, count in totals.items()), flush=True)


if __name__ == "__main__":
    main()
