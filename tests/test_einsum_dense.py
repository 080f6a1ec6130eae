"""EinsumDense against Keras."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import check_layer

from torchfunc.layers import Dense, EinsumDense, Input

CASES = {
    "dense": ({"equation": "ab,bc->ac", "output_shape": 4, "bias_axes": "c"}, (2, 3)),
    "no bias": ({"equation": "ab,bc->ac", "output_shape": (4,), "activation": "tanh"}, (2, 3)),
    "sequence": ({"equation": "abc,cd->abd", "output_shape": (None, 4), "bias_axes": "d"}, (2, 3, 5)),
    "sizes given": ({"equation": "abc,cd->abd", "output_shape": (3, 4), "bias_axes": "bd"}, (2, 3, 5)),
    "heads": ({"equation": "abc,cde->abde", "output_shape": (None, 2, 4), "bias_axes": "de"}, (2, 3, 5)),
    "bias in front": ({"equation": "abc,cde->abde", "output_shape": (3, 2, 4), "bias_axes": "b"}, (2, 3, 5)),
    "heads joined": ({"equation": "abde,cde->abc", "output_shape": (None, 6), "bias_axes": "c"}, (2, 3, 2, 4)),
    "ellipsis first": ({"equation": "...x,xy->...y", "output_shape": 4, "bias_axes": "y"}, (2, 3, 5)),
    "ellipsis of one": ({"equation": "...x,xy->...y", "output_shape": 4, "bias_axes": "y"}, (2, 5)),
    "ellipsis last": ({"equation": "ab...,bc->ac...", "output_shape": 4, "bias_axes": "c"}, (2, 3, 5, 2)),
    "batch kept in the kernel": ({"equation": "abc,bcd->abd", "output_shape": (3, 4)}, (2, 3, 5)),
    "transposed": ({"equation": "abc,cd->adb", "output_shape": (4, None), "bias_axes": "d"}, (2, 3, 5)),
    "weight arguments": (
        {
            "equation": "ab,bc->ac",
            "output_shape": 4,
            "bias_axes": "c",
            "kernel_initializer": "he_normal",
            "bias_initializer": "ones",
            "kernel_regularizer": "l2",
            "bias_regularizer": "l1",
            "kernel_constraint": "max_norm",
            "bias_constraint": "non_neg",
            "activity_regularizer": "l2",
        },
        (2, 3),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kwargs", "shape"), CASES.values(), ids=CASES)
def test_einsum_dense(kwargs, shape, dtype):
    # Keras leaves a size None that output_shape leaves open, though the input has it.
    check_layer(EinsumDense, keras.layers.EinsumDense, kwargs, shape, dtype=dtype, knows_more=True)


def test_sizes_that_the_input_knows_are_known():
    assert EinsumDense("abc,cd->abd", (None, 4))(Input((3, 5))).shape == (None, 3, 4)
    assert EinsumDense("abc,cd->abd", (None, 4))(Input((None, 5))).shape == (None, None, 4)
    assert EinsumDense("abc,cd->abd", (3, 4))(Input((None, 5))).shape == (None, 3, 4)
    assert EinsumDense("abc,cd->abd", (None, 4), bias_axes="b")(Input((3, 5))).node.target.bias.shape == (3, 1)


@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "lecun_uniform"])
def test_the_scale_counts_the_axes_of_the_equation(name):
    """Keras' layout would take (3, 50, 40, 6) for an image kernel; the spread tells which axes were counted."""
    arguments = {"equation": "abcd,bcde->ae", "output_shape": 300, "kernel_initializer": name}
    ours, theirs = EinsumDense(**arguments), keras.layers.EinsumDense(**arguments)
    for layer in (ours, theirs):
        layer.build((None, 3, 10, 4))
    expected = theirs.kernel.value.std().item()
    assert np.isclose(ours.weight.std().item(), expected, rtol=0.05)


def test_is_dense():
    dense, einsum, x = Dense(4), EinsumDense("...a,ab->...b", 4, bias_axes="b"), torch.randn(2, 3, 5)
    dense(x), einsum(x)
    einsum.set_weights(dense.get_weights())
    torch.testing.assert_close(einsum(x), dense(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EinsumDense("ab,bc", 4), r"EinsumDense takes an equation .* got 'ab,bc'"),
        (lambda: EinsumDense("...ab,bc->ac", 4), r"takes an equation"),
        (lambda: EinsumDense("ab,bc->ad", 4), r"Axis 'd' of the output of 'ab,bc->ad'"),
        (lambda: EinsumDense("ab,bcz->ac", 4), r"Axis 'z' of the kernel"),
        (lambda: EinsumDense("ab,bc->ac", 4, bias_axes="b"), r"bias_axes='b' names axis 'b'"),
        (lambda: EinsumDense("abc,cd->abd", 4), r"one size for each axis of the output .* got 4"),
        (lambda: EinsumDense("ab,bc->ac", (None,)), r"needs the size of axis 'c' .* got \(None,\)"),
        (lambda: EinsumDense("ab,bc->ac", 4, lora_rank=2), r"EinsumDense\(lora_rank=...\) is not supported"),
        (
            lambda: EinsumDense("abc,cd->abd", (7, 4), name="e")(Input((3, 5))),
            r"EinsumDense 'e' .*cannot be called on \(None, 3, 5\): .* says 7 for axis 'b' .* says 3",
        ),
        (lambda: EinsumDense("abc,cd->abd", (3, 4), name="e")(Input((5,))), r"EinsumDense 'e' .*min_ndim=3"),
        (lambda: EinsumDense("ab,bc->ac", 4, name="e")(Input((None,))), r"axis 1 of the input of EinsumDense 'e'"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
