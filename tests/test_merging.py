"""Merging layers against Keras: values, gradients, shapes, configs, masks and errors."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer

from torchfunc.graph import replay, topological_order
from torchfunc.layers import merging
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.core import Embedding, Lambda
from torchfunc.layers.input_layer import Input

ANY_NUMBER = ["Add", "Multiply", "Average", "Maximum", "Minimum"]
SHAPES = {
    "one": [(2, 3)],
    "two": [(2, 3), (2, 3)],
    "many": [(2, 3, 4)] * 5,
    "broadcast": [(2, 3, 4), (2, 1, 4)],
    "broadcast both ways": [(2, 3, 1), (2, 1, 4), (2, 3, 4)],
    "ranks": [(2, 3, 4), (2, 4)],
    "ranks, small first": [(2, 4), (2, 5, 3, 4), (2, 3, 4)],
    "vectors": [(3,), (3,)],
}


def layers_called(name):
    return getattr(merging, name), getattr(keras.layers, name)


@pytest.mark.parametrize("name", ANY_NUMBER)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_element_wise(name, shapes):
    check_layer(*layers_called(name), {}, shapes, unknown_axes=(1,) if len(shapes[0]) > 1 else ())


@pytest.mark.parametrize("shapes", [each for each in SHAPES.values() if len(each) == 2])
def test_subtract(shapes):
    check_layer(*layers_called("Subtract"), {}, shapes, unknown_axes=(-1,))


@pytest.mark.parametrize(
    ("axis", "shapes"),
    [
        (-1, [(2, 3), (2, 4)]),
        (1, [(2, 3), (2, 4), (2, 1)]),
        (1, [(2, 3, 5), (2, 4, 5)]),
        (2, [(2, 3, 5), (2, 3, 1), (2, 3, 2)]),
        (-2, [(2, 3, 4, 5), (2, 3, 1, 5)]),
        (3, [(2, 3, 4, 5)] * 4),
        (-1, [(2, 3)]),
    ],
)
def test_concatenate(axis, shapes):
    check_layer(*layers_called("Concatenate"), {"axis": axis}, shapes, unknown_axes=(1,))


def test_concatenate_on_the_batch_axis():
    x = [torch.randn(2, 3), torch.randn(4, 3)]
    assert torch.equal(merging.Concatenate(0)(x), torch.cat(x))
    assert merging.Concatenate(0).compute_output_shape([(2, 3), (4, 3)]) == (6, 3)
    assert merging.Concatenate(0)([Input((3,)), Input((3,))]).shape == (None, 3)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("axes", "shapes"),
    [
        (1, [(2, 3), (2, 3)]),
        (-1, [(2, 3), (2, 3)]),
        (1, [(2, 3, 4), (2, 3, 5)]),
        (2, [(2, 3, 4), (2, 5, 4)]),
        (-1, [(2, 3, 4), (2, 5, 4)]),
        ((1, 2), [(2, 3, 5), (2, 10, 3)]),
        ([2, 1], [(2, 3, 5), (2, 5)]),
        ((1, 2), [(2, 5), (2, 3, 5)]),
        ((-1, -2), [(2, 3, 4, 5), (2, 5, 6)]),
        ((2, 3), [(2, 3, 4, 5), (2, 6, 7, 4)]),
        ((1, 1), [(2, 3, 4, 5), (2, 3)]),
    ],
)
def test_dot(axes, shapes, normalize):
    check_layer(*layers_called("Dot"), {"axes": axes, "normalize": normalize}, shapes)


@pytest.mark.parametrize("name", [*ANY_NUMBER, "Subtract", "Concatenate", "Dot"])
def test_functional_spelling(name):
    x = [torch.randn(2, 4), torch.randn(2, 4)]
    ours, theirs = getattr(merging, name.lower()), getattr(keras.layers, name.lower())
    extra = {"Concatenate": {"axis": 1}, "Dot": {"axes": 1, "normalize": True}}.get(name, {})
    assert_close(ours(x, **extra), theirs(x, **extra), 1e-6, name)
    drawn = ours([Input((4,)), Input((4,))], **extra, name="mine")
    assert drawn.node.target.name == "mine"
    assert {key: drawn.node.target.get_config()[key] for key in extra} == extra


class Remember(Layer):
    """Keeps the mask it is called with."""

    supports_masking = True

    def call(self, inputs, mask=None):
        return inputs if mask is None else torch.where(mask.unsqueeze(-1), inputs, -9.0)


class KerasRemember(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return inputs if mask is None else keras.ops.where(keras.ops.expand_dims(mask, -1), inputs, -9.0)


def masked_models(name, masked, kwargs=None):
    """Two graphs of two embeddings, a merge and a layer that shows the mask it gets."""
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(5, 3)).astype("float32") for _ in masked]
    ids = [rng.integers(0, 3, size=(4, 6)) for _ in masked]
    embedded = []
    for mask, table in zip(masked, tables, strict=True):
        layer = keras.layers.Embedding(5, 3, mask_zero=mask)
        layer.build((None, 6))
        layer.set_weights([table])
        embedded.append(layer(keras.Input((6,), dtype="int64")))
    merge = getattr(keras.layers, name)(**(kwargs or {}))
    merged = merge(embedded)
    model = keras.Model([x._keras_history.operation.input for x in embedded], [merged, KerasRemember()(merged)])
    expected = model([torch.from_numpy(each) for each in ids])
    inputs = [Input((6,), dtype="int64") for _ in masked]
    ours = [
        Embedding(5, 3, mask_zero=mask, weights=table)(x) for mask, table, x in zip(masked, tables, inputs, strict=True)
    ]
    merged = getattr(merging, name)(**(kwargs or {}))(ours)
    values = dict(zip(inputs, map(torch.from_numpy, ids), strict=True))
    return [run(output, values) for output in (merged, Remember()(merged))], expected


def run(output, values):
    """Compute a symbolic tensor node by node, with nothing of the package in between."""
    values = dict(values)
    nodes = [node for node in topological_order([output]) if node.op != "input"]

    def call(node, args, kwargs):
        target = node.target
        return getattr(args[0], target)(*args[1:], **kwargs) if node.op == "method" else target(*args, **kwargs)

    replay(nodes, values, call)
    return values[output]


@pytest.mark.parametrize("masked", [(True, True), (True, False), (False, True), (False, False), (True, True, True)])
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [(each, {}) for each in ANY_NUMBER] + [("Subtract", {}), ("Concatenate", {"axis": 1}), ("Concatenate", {})],
)
def test_masks(name, kwargs, masked):
    if name == "Subtract" and len(masked) > 2:
        masked = masked[:2]
    ours, theirs = masked_models(name, masked, kwargs)
    for what, mine, reference in zip(("values", "what the mask keeps"), ours, theirs, strict=True):
        assert_close(mine, reference, 1e-6, f"{name}: {what}")


@pytest.mark.parametrize("name", ["Multiply", "Maximum", "Add"])
@pytest.mark.parametrize("shape", [(3,), (4, 3, 3)])
def test_masks_of_inputs_with_different_ranks(name, shape):
    table = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    words, vectors = torch.tensor([[1, 0, 2], [0, 0, 3]]), torch.randn(2, *shape)
    embed = keras.layers.Embedding(5, 3, mask_zero=True)
    embed.build((None, 3))
    embed.set_weights([table])
    inputs = [keras.Input((3,), dtype="int64"), keras.Input(shape)]
    model = keras.Model(inputs, getattr(keras.layers, name)()([embed(inputs[0]), inputs[1]]))
    ids, other = Input((3,), dtype="int64"), Input(shape)
    merged = getattr(merging, name)()([Embedding(5, 3, mask_zero=True, weights=table)(ids), other])
    assert_close(run(merged, {ids: words, other: vectors}), model([words, vectors]), 1e-6, name)


def test_dot_ends_a_mask():
    x = Embedding(5, 3, mask_zero=True)(Input((6,), dtype="int64"))
    assert merging.dot([x, x], axes=2).mask is None
    assert merging.add([x, x]).mask is not None


def test_one_mask_of_several_is_enough_to_be_handed_over():
    given = []

    def look(inputs, mask=None):
        given.append(mask)
        return inputs[0] + inputs[1]

    x = Embedding(5, 3, mask_zero=True)(Input((6,), dtype="int64"))
    Lambda(look, mask=None)([x, Input((6, 3))])
    assert all(mask[0] is not None and mask[1] is None for mask in given)


BAD = {
    "not a list": ("Add", {}, (2, 3), "list of inputs"),
    "no inputs": ("Add", {}, [], "list of inputs"),
    "sizes": ("Add", {}, [(2, 3, 4), (2, 5, 4)], r"axis 1 .*3 and 5"),
    "last sizes": ("Multiply", {}, [(2, 3, 4), (2, 3, 5)], r"axis 2 .*4 and 5"),
    "ranks": ("Maximum", {}, [(2, 3, 4), (2, 3)], r"axis 2 .*4 and 3"),
    "batches": ("Average", {}, [(2, 3), (4, 3)], r"\(2, 3\) and \(4, 3\) differ \(axis 0\)"),
    "three to subtract": ("Subtract", {}, [(2, 3)] * 3, "exactly 2 inputs, got 3"),
    "one to subtract": ("Subtract", {}, [(2, 3)], "exactly 2 inputs, got 1"),
    "concatenate sizes": (
        "Concatenate",
        {"axis": 1},
        [(2, 3, 4), (2, 3, 5)],
        r"equal but for axis 1.*differ in axis 2",
    ),
    "concatenate ranks": ("Concatenate", {}, [(2, 3, 4), (2, 3)], r"ranks of \(2, 3, 4\) and \(2, 3\)"),
    "concatenate axis": ("Concatenate", {"axis": 3}, [(2, 3), (2, 3)], "axis=3 is out of range"),
    "concatenate no list": ("Concatenate", {}, (2, 3), "list of inputs"),
    "dot sizes": ("Dot", {"axes": 1}, [(2, 3, 4), (2, 5, 4)], r"size 3 \(axis 1\) and size 5 \(axis 1\)"),
    "dot batch axis": ("Dot", {"axes": (0, 1)}, [(2, 3), (2, 3)], r"batch axis \(0\)"),
    "dot of three": ("Dot", {"axes": 1}, [(2, 3)] * 3, "exactly 2 inputs, got 3"),
}


@pytest.mark.parametrize(("name", "kwargs", "shapes", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("symbolic", [True, False])
def test_errors_name_layer_and_shapes(name, kwargs, shapes, message, symbolic):
    def make(shape):
        return Input(batch_shape=shape) if symbolic else torch.zeros(shape)

    inputs = make(shapes) if isinstance(shapes, tuple) else [make(shape) for shape in shapes]
    layer = getattr(merging, name)(**kwargs, name="here")
    with pytest.raises(ValueError, match=message) as caught:
        layer(inputs)
    assert f"{name} 'here'" in str(caught.value)
    assert all(str(shape) in str(caught.value) for shape in (shapes if isinstance(shapes, list) else [shapes]))
    theirs = getattr(keras.layers, name)(**kwargs)
    with pytest.raises(Exception, match=r".*"):
        theirs(keras.ops.zeros(shapes) if isinstance(shapes, tuple) else [keras.ops.zeros(shape) for shape in shapes])


def test_a_second_call_is_checked_too():
    layer = merging.Add(name="here")
    layer([Input((3,)), Input((3,))])
    with pytest.raises(ValueError, match=r"Add 'here'.*3 and 4"):
        layer([Input((3,)), Input((4,))])


@pytest.mark.parametrize(
    ("axes", "error"), [("1", TypeError), (1.5, TypeError), ((1,), ValueError), ((1, 1.5), ValueError)]
)
def test_dot_arguments(axes, error):
    with pytest.raises(error, match="axes"):
        merging.Dot(axes)


def test_integers_and_mixed_dtypes():
    whole = [torch.tensor([[1, 2]]), torch.tensor([[4, 9]])]
    symbols = [Input((2,), dtype="int64"), Input((2,), dtype="int64")]
    for name in (*ANY_NUMBER, "Subtract", "Concatenate"):
        layer = getattr(merging, name)()
        assert layer(symbols).dtype == layer(whole).dtype == (torch.float32 if name == "Average" else torch.int64)
    mixed = merging.add([Input((2,), dtype="int64"), Input((2,))])
    assert mixed.dtype == torch.float32


@pytest.mark.parametrize("name", ["Add", "Maximum", "Concatenate", "Dot"])
def test_compiled_and_exported(name):
    torch._dynamo.reset()
    layer = getattr(merging, name)(**({"axes": 1} if name == "Dot" else {}))
    x = [torch.randn(2, 3), torch.randn(2, 3)]
    expected = layer(x)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="eager")(x), expected)
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), expected)
