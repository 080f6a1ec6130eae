"""check_layer: hold a layer of ours against Keras' layer of the same name, in everything a user can see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.shapes import is_shape, map_shapes
from torchfunc.layers.input_layer import Input

# How often each check of each layer has held in this process: `pytest --parity-table` prints it.
HELD: Counter[tuple[str, str]] = Counter()


def check_layer(
    ours_cls: type[Layer],
    keras_cls: type,
    kwargs: Mapping[str, Any] | None = None,
    inputs: Any = (2, 3),
    *,
    keras_kwargs: Mapping[str, Any] | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
    spread: bool = False,
    training: bool | None = None,
    dtype: str = "float32",
    atol: float | None = None,
    randomize: bool = True,
    gradients: bool = True,
    unknown_axes: Sequence[int] = (),
    ignore_config: Sequence[str] = (),
    fake_run: bool = True,
    knows_more: bool = False,
    seed: int = 0,
) -> tuple[Layer, Any]:
    """Assert that two layers do the same.

    Outputs, losses, gradients of inputs and of weights, parameter count, config and its two-way round trip, symbolic
    shapes and dtypes, and `compute_output_shape` are compared. The weights are set from one side to the other and back.

    Args:
        kwargs: constructor arguments of both (`keras_kwargs` for Keras instead, where they differ).
        inputs: a shape (normal floats of that shape), an array, or a list or dict of them.
        call_kwargs: further arguments of the call, arrays or plain values.
        spread: whether a list of inputs is several arguments of the call, not one.
        training: handed to Keras, and our layer's mode; None is inference on both sides.
        dtype: of the layers and of inputs that are floats.
        atol: the largest difference, as a share of max(1, the largest expected entry); 1e-5 by default, and 1e-9 in
            float64.
        randomize: give the weights random values first (trainable ones in ±0.5, others in 0.5..1.5); else Keras' own.
        gradients: whether to compare gradients.
        unknown_axes: the axes, besides the batch, for which `compute_output_shape` is also compared at None.
        ignore_config: top-level config keys that need not agree.
        fake_run: whether `call`, run on fake tensors, must give the shapes of the formula.
        knows_more: whether our `compute_output_shape` may know sizes that Keras leaves None.
        seed: of inputs and weights.

    Returns:
        Our layer and Keras', both built and with the same weights, for whatever else is to be compared.
    """
    rng = np.random.default_rng(seed)
    given = {} if dtype == "float32" else {"dtype": dtype}
    kwargs = {**(kwargs or {}), **given}
    ours = ours_cls(**kwargs)
    theirs = keras_cls(**(kwargs if keras_kwargs is None else {**keras_kwargs, **given}))
    atol = (1e-9 if dtype == "float64" else 1e-5) if atol is None else atol
    name = ours_cls.__name__
    label = f"{name}({', '.join(f'{key}={value!r}' for key, value in kwargs.items())})"
    arrays = _arrays(inputs, rng, dtype)
    ours_inputs, keras_inputs = _tensors(arrays, gradients), _tensors(arrays, gradients)
    extra = _tensors(dict(call_kwargs or {}), False)
    mode = {} if training is None else {"training": training}
    ours.train(bool(training))
    args, keras_args = (each if spread else [each] for each in (ours_inputs, keras_inputs))
    with torch.no_grad():
        # (Keras' image augmentation takes a call that says nothing for training, and may write into its input.)
        theirs(*keras_args, **extra, **(mode if training is False else {}))
        ours(*args, **extra)
    _share_weights(ours, theirs, rng, randomize, label)
    HELD[name, "weights"] += bool(theirs.weights)
    ours.clear_losses()
    expected = theirs(*keras_args, **extra, **mode)
    actual = ours(*args, **extra)
    _check_outputs(actual, expected, atol, label)
    assert len(ours.losses) == len(theirs.losses), f"{label}: {len(ours.losses)} losses, Keras {len(theirs.losses)}"
    assert_close(sum(ours.losses, torch.zeros(())), sum(theirs.losses, torch.zeros(())), atol, f"{label}: losses")
    HELD[name, "outputs" if dtype == "float32" else dtype] += 1
    if any("mask" in name for name in extra):
        HELD[name, "masks"] += 1
    if gradients:
        _check_gradients(ours, theirs, (actual, expected), (ours_inputs, keras_inputs), atol, rng, label)
        HELD[name, "gradients"] += any(leaf.requires_grad for leaf in tree_leaves(expected))
    _check_config(ours, theirs, ignore_config, label)
    HELD[name, "config"] += 1
    _check_symbolic(ours, args, actual, extra, fake_run, label)
    HELD[name, "symbolic"] += 1
    _check_shape_formula(ours, theirs, args, unknown_axes, knows_more, label)
    HELD[name, "formula"] += 1
    return ours, theirs


def same_config(ours: Any, theirs: Any, ignore: Sequence[str] = ()) -> str:
    """How two layer configs differ, '' if they do not. Names, and tuples versus lists, do not count."""
    ours, theirs = _plain(ours), _plain(theirs)
    keys = [key for key in {**theirs, **ours} if key not in ignore]
    missing = object()
    different = [key for key in keys if ours.get(key, missing) != theirs.get(key, missing)]
    return "; ".join(f"{key!r}: ours {ours.get(key, '-')!r}, Keras {theirs.get(key, '-')!r}" for key in different)


def assert_close(actual: Any, expected: Any, atol: float, label: str) -> None:
    """Two tensors agree within `atol` of max(1, the largest entry)."""
    actual, expected = torch.as_tensor(actual).detach(), torch.as_tensor(expected).detach()
    assert actual.shape == expected.shape, f"{label}: shape {tuple(actual.shape)}, Keras {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    actual, expected = actual.double(), expected.double()
    difference = (actual - expected).abs().max().item()
    bound = atol * max(1.0, expected.abs().max().item())
    assert difference <= bound, f"{label}: largest difference {difference:.3g}, allowed {bound:.3g}"


def _arrays(inputs: Any, rng: np.random.Generator, dtype: str) -> Any:
    if is_shape(inputs):
        return rng.normal(size=tuple(inputs)).astype(dtype)
    if isinstance(inputs, Mapping):
        return {key: _arrays(value, rng, dtype) for key, value in inputs.items()}
    return inputs if isinstance(inputs, np.ndarray) else [_arrays(value, rng, dtype) for value in inputs]


def _tensors(structure: Any, gradients: bool) -> Any:
    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return leaf
        tensor = torch.from_numpy(leaf.copy())
        return tensor.requires_grad_(gradients and tensor.is_floating_point())

    return tree_map(convert, structure)


def _share_weights(ours: Layer, theirs: Any, rng: np.random.Generator, randomize: bool, label: str) -> None:
    # Keras' own get_weights() warns with NumPy 2.
    values = [variable.value.detach().cpu().numpy().copy() for variable in theirs.weights]
    if randomize:
        ranges = [(-0.5, 0.5) if variable.trainable else (0.5, 1.5) for variable in theirs.weights]
        values = [
            rng.uniform(*bounds, size=value.shape).astype(value.dtype) if value.dtype.kind == "f" else value
            for bounds, value in zip(ranges, values, strict=True)
        ]
        theirs.set_weights(values)
    ours.set_weights(values)
    for index, (mine, value) in enumerate(zip(ours.get_weights(), values, strict=True)):
        assert np.array_equal(mine, value), f"{label}: get_weights()[{index}] is not what set_weights() was given"
    theirs.set_weights(ours.get_weights())
    assert ours.count_params() == theirs.count_params(), (
        f"{label}: {ours.count_params()} parameters, Keras {theirs.count_params()}"
    )


def _check_outputs(actual: Any, expected: Any, atol: float, label: str) -> None:
    mine, reference = tree_leaves(actual), tree_leaves(expected)
    assert len(mine) == len(reference), f"{label}: {len(mine)} outputs, Keras {len(reference)}"
    for index, (a, b) in enumerate(zip(mine, reference, strict=True)):
        assert a.dtype == b.dtype, f"{label}: output {index} is {a.dtype}, Keras' {b.dtype}"
        assert_close(a, b, atol, f"{label}: output {index}")


def _check_gradients(
    ours: Layer,
    theirs: Any,
    outputs: tuple[Any, Any],
    inputs: tuple[Any, Any],
    atol: float,
    rng: np.random.Generator,
    label: str,
) -> None:
    mine, reference = (
        [leaf for leaf in tree_leaves(each) if leaf.is_floating_point() and leaf.requires_grad] for each in outputs
    )
    assert len(mine) == len(reference), f"{label}: {len(mine)} outputs carry gradients, Keras' {len(reference)}"
    directions = [torch.from_numpy(rng.normal(size=tuple(leaf.shape))).to(leaf.dtype) for leaf in mine]
    if not mine:
        return
    for variable in theirs.trainable_weights:
        variable.value.grad = None
    torch.autograd.backward(mine, directions)
    torch.autograd.backward(reference, directions)
    for index, (a, b) in enumerate(zip(tree_leaves(inputs[0]), tree_leaves(inputs[1]), strict=True)):
        if a.requires_grad:
            assert_close(_gradient(a), _gradient(b), atol, f"{label}: gradient of input {index}")
    entries = [(owner, weight) for owner, weight in ours.weight_entries() if weight.trainable]
    weights = [(owner, weight) for owner, weight in entries if weight.tensors(owner)[0].requires_grad]
    assert len(weights) == len(theirs.trainable_weights), (
        f"{label}: {len(weights)} trainable weights, Keras {len(theirs.trainable_weights)}"
    )
    for (owner, weight), variable in zip(weights, theirs.trainable_weights, strict=True):
        gradient = weight.layout.to_keras(*(_gradient(tensor) for tensor in weight.tensors(owner)))
        assert_close(gradient, _gradient(variable.value), atol, f"{label}: gradient of {variable.path}")


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _check_config(ours: Layer, theirs: Any, ignore: Sequence[str], label: str) -> None:
    config, reference = ours.get_config(), theirs.get_config()
    difference = same_config(config, reference, ignore)
    assert not difference, f"{label}: get_config() differs: {difference}"
    copies = {
        "from_config(our config)": type(ours).from_config(config),
        "from_config(Keras' config)": type(ours).from_config(reference),
        "Keras' from_config(our config)": type(theirs).from_config(config),
    }
    for how, copy in copies.items():
        difference = same_config(copy.get_config(), reference, ignore)
        assert not difference, f"{label}: {how} made another layer: {difference}"


def _plain(value: Any) -> Any:
    """A config without layer names, tuples as lists, arrays and tensors as nested lists, floats to single precision."""
    if isinstance(value, Mapping):
        # Only a layer's config says `trainable`; the name of an initializer's dtype is no layer's name.
        return {key: _plain(item) for key, item in value.items() if not (key == "name" and "trainable" in value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return _plain(value.tolist())
    # Keras keeps some factors as float32 and writes 0.009999999776 for 0.01.
    return float(np.float32(value)) if isinstance(value, float) else value


def _check_symbolic(ours: Layer, inputs: Sequence[Any], outputs: Any, extra: Any, fake_run: bool, label: str) -> None:
    for batch_known in (True, False):

        def declare(tensor: torch.Tensor, batch_known: bool = batch_known) -> Any:
            batch = tensor.shape[0] if batch_known else None
            return Input(batch_shape=(batch, *tensor.shape[1:]), dtype=tensor.dtype)

        symbols = tree_map(declare, inputs)
        # Tensors among the further arguments have the batch size of the inputs, so they need it known.
        if not batch_known and any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(extra)):
            return
        drawn, eager = tree_leaves(ours(*symbols, **extra)), tree_leaves(outputs)
        assert len(drawn) == len(eager), f"{label}: {len(drawn)} symbolic outputs, {len(eager)} eager ones"
        for index, (a, b) in enumerate(zip(drawn, eager, strict=True)):
            shape = tuple(b.shape) if batch_known else (None, *b.shape[1:])
            assert (a.shape, a.dtype) == (shape, b.dtype), (
                f"{label}: symbolic output {index} is {a.shape}, {a.dtype}; eager gives {shape}, {b.dtype}"
            )
        if fake_run:
            specs = [spec for spec in tree_leaves(ours._infer_by_running(symbols, extra)) if spec is not None]
            for index, (a, spec) in enumerate(zip(drawn, specs, strict=True)):
                assert (a.shape, a.dtype) == (spec.shape, spec.dtype), (
                    f"{label}: output {index} is {a.shape}, {a.dtype} by formula; a fake run gives {spec.shape}, "
                    f"{spec.dtype}"
                )


def _check_shape_formula(
    ours: Layer, theirs: Any, inputs: Sequence[Any], unknown_axes: Sequence[int], knows_more: bool, label: str
) -> None:
    concrete = tree_map(lambda tensor: tuple(tensor.shape), inputs)
    for unknown in [(), (0,), *((0, axis) for axis in unknown_axes), (0, *unknown_axes)]:

        def hide(shape: tuple[int, ...], unknown: tuple[int, ...] = unknown) -> tuple[int | None, ...]:
            axes = {axis % len(shape) for axis in unknown}
            return tuple(None if axis in axes else size for axis, size in enumerate(shape))

        shapes = map_shapes(hide, concrete)
        mine, reference = ours.compute_output_shape(*shapes), theirs.compute_output_shape(*shapes)
        if knows_more:
            known = zip(mine, reference, strict=True)
            mine = tuple(None if theirs_size is None else size for size, theirs_size in known)
        assert _plain(mine) == _plain(reference), (
            f"{label}: compute_output_shape(*{shapes}) is {mine}, Keras' {reference}"
        )
