"""Attention and AdditiveAttention against Keras: modes, masks, scores; and the fused kernel."""

import copy

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from layer_parity import assert_close, check_layer

from torchfunc import Input
from torchfunc.layers import AdditiveAttention, Attention, Embedding

TWO = [(2, 3, 4), (2, 5, 4)]
THREE = [(2, 3, 4), (2, 5, 6), (2, 5, 4)]


def mask(*shape, seed=0):
    """True at the first position of the last axis, and at most others."""
    values = np.random.default_rng(seed).random(shape) < 0.6
    values[..., 0] = True
    return values


BOTH = {"mask": [mask(2, 3), mask(2, 5)]}
CASES = {
    "defaults": ({}, TWO, {}),
    "key": ({}, THREE, {}),
    "scale": ({"use_scale": True}, THREE, {}),
    "concat": ({"score_mode": "concat"}, THREE, {}),
    "concat with a scale": ({"score_mode": "concat", "use_scale": True}, TWO, {}),
    "causal": ({}, TWO, {"use_causal_mask": True}),
    "causal, more targets": ({}, [(2, 5, 4), (2, 3, 4)], {"use_causal_mask": True}),
    "scores": ({"use_scale": True}, THREE, {"return_attention_scores": True}),
    "causal scores": ({}, THREE, {"return_attention_scores": True, "use_causal_mask": True}),
    "masks": ({}, TWO, BOTH),
    "masks and causal": ({"use_scale": True}, THREE, {**BOTH, "use_causal_mask": True}),
    "masks and scores": ({}, TWO, {**BOTH, "use_causal_mask": True, "return_attention_scores": True}),
    "masked concat": ({"score_mode": "concat"}, TWO, BOTH),
    "one mask": ({}, TWO, {"mask": [None, mask(2, 5)]}),
    "the other mask": ({}, TWO, {"mask": [mask(2, 3), None]}),
    "three masks": ({}, THREE, {"mask": [None, mask(2, 5), mask(2, 5, seed=1)]}),
    "heads": ({"use_scale": True}, [(2, 2, 3, 4), (2, 2, 5, 4)], {"use_causal_mask": True}),
    "dropout": ({"dropout": 0.5, "seed": 1}, TWO, BOTH),
    "penalty": ({"activity_regularizer": "l2"}, TWO, {}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attention(case):
    kwargs, inputs, call_kwargs = case
    check_layer(
        Attention, keras.layers.Attention, kwargs, inputs, call_kwargs=call_kwargs, unknown_axes=(1,), fake_run=False
    )


ADDITIVE = ["defaults", "key", "causal", "scores", "masks", "masks and scores", "heads"]


@pytest.mark.parametrize("name", [*ADDITIVE, "no scale"])
def test_additive_attention(name):
    kwargs, inputs, call_kwargs = CASES.get(name, ({"use_scale": False}, TWO, BOTH))
    check_layer(
        AdditiveAttention,
        keras.layers.AdditiveAttention,
        {**kwargs, "seed": 3},
        inputs,
        call_kwargs=call_kwargs,
        unknown_axes=(1,),
        fake_run=False,
    )


def test_float64_stays_so():
    """Keras' matmul makes float32 of it, so the formulas are written out."""
    query, value, key = (torch.randn(shape, dtype=torch.float64) for shape in THREE)
    layer = Attention(use_scale=True, dtype="float64")
    expected = ((query @ key.mT).softmax(-1)) @ value
    torch.testing.assert_close(layer([query, value, key]), expected)
    additive = AdditiveAttention(use_scale=False, dtype="float64")
    expected = (query.unsqueeze(2) + key.unsqueeze(1)).tanh().sum(-1).softmax(-1) @ value
    torch.testing.assert_close(additive([query, value, key]), expected)


def test_sources_that_are_all_masked_give_the_mean_of_the_values():
    """Keras asks for one that is not, and gives this."""
    inputs, nothing = [torch.randn(shape) for shape in THREE], torch.zeros(2, 5, dtype=torch.bool)
    output = Attention()(inputs, mask=[None, nothing])
    assert_close(output, inputs[1].mean(1, keepdim=True).expand(-1, 3, -1), 1e-6, "mean")
    assert_close(output, keras.layers.Attention()(inputs, mask=[None, nothing]), 1e-6, "Keras")


def test_the_fused_kernel_is_used_for_dot_products():
    calls, original = [], F.scaled_dot_product_attention

    def spy(query, key, value, mask, dropout, **options):
        calls.append((query.ndim, None if mask is None else tuple(mask.shape), dropout, options["is_causal"]))
        return original(query, key, value, mask, dropout, **options)

    inputs = [torch.randn(shape) for shape in THREE]
    masks = [torch.from_numpy(each) for each in BOTH["mask"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        layer = Attention(use_scale=True, dropout=0.25)
        layer(inputs, training=False)
        layer(inputs, use_causal_mask=True)
        layer(inputs, mask=masks)
        layer(inputs, mask=masks, use_causal_mask=True, training=False)
        layer(inputs, return_attention_scores=True)
        Attention(score_mode="concat")(inputs)
        Attention(dropout=0.5, seed=1)(inputs)
        AdditiveAttention()(inputs)
    assert calls == [
        (4, None, 0.0, False),
        (4, None, 0.25, True),
        (4, (2, 1, 1, 5), 0.25, False),
        (4, (2, 1, 3, 5), 0.0, False),
    ]


@pytest.mark.parametrize("cls", [Attention, AdditiveAttention])
def test_masks_of_the_graph_are_edges(cls):
    words, others = Input((3,), dtype="int64"), Input((5,), dtype="int64")
    query, value = (Embedding(7, 4, mask_zero=True)(each) for each in (words, others))
    output, scores = cls()([query, value], return_attention_scores=True)
    assert [*output.node.kwargs["mask"]] == [query.mask, value.mask]
    assert output.mask is query.mask
    assert (output.shape, scores.shape, scores.mask) == ((None, 3, 4), (None, 3, 5), None)
    keyed = cls()([Input((3, 4)), value, Input((5, 4))])
    assert [*keyed.node.kwargs["mask"]] == [None, value.mask, None]
    assert keyed.mask is None


@pytest.mark.parametrize("kwargs", [{}, {"seed": 1}, {"score_mode": "concat"}])
def test_dropout_is_for_training(kwargs):
    x = torch.full((1, 400, 2), 0.5)
    layer = Attention(dropout=0.5, **kwargs)
    output = layer([x, x])
    assert torch.equal(layer([x, x], training=False), torch.full_like(x, 0.5)) or "score_mode" in kwargs
    assert not torch.equal(output, x)
    # Each is the mean of 400 values of which half are dropped, and there are 400 of them.
    assert_close(output.mean(), torch.tensor(0.5), 0.02, "mean")
    _, scores = layer([x, x], return_attention_scores=True)
    dropped = (scores == 0).double().mean()
    assert_close(dropped, torch.tensor(0.5), 0.02, "the scores returned are the dropped ones, as in Keras")
    if "seed" in kwargs:
        assert torch.equal(Attention(dropout=0.5, seed=1)([x, x]), output)


@pytest.mark.parametrize("cls", [Attention, AdditiveAttention])
@pytest.mark.parametrize("masked", [False, True])
def test_compiled_whole_and_exported(cls, masked):
    torch._dynamo.reset()
    call = {"mask": [torch.from_numpy(each) for each in BOTH["mask"]]} if masked else {"use_causal_mask": True}
    layer = cls(use_scale=True)
    inputs = [torch.randn(shape) for shape in THREE]
    layer(inputs, **call)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    found = []
    for each in (compiled, layer):
        own = [x.clone().requires_grad_() for x in inputs]
        output = each(own, **call)
        output.square().sum().backward()
        found.append([output, each.scale.grad, *(x.grad for x in own)])
    for mine, reference in zip(*found, strict=True):
        assert_close(mine, reference, 1e-5, "compiled")
    program = torch.export.export(layer, (inputs,), call)
    assert_close(program.module()(inputs, **call), layer(inputs, **call), 1e-6, "exported")


@pytest.mark.parametrize(
    ("shapes", "call_kwargs", "message"),
    [
        ([(None, 3, 4)], {}, r"list \[query, value\]"),
        ([(None, 3, 4)] * 4, {}, r"list \[query, value\]"),
        ([(None, 4), (None, 4)], {}, r"\(batch, steps, size\)"),
        ([(None, 3, 4), (None, 5, 6)], {}, "same last size, got 4 and 6"),
        ([(2, 3, 4), (3, 5, 4)], {}, "batch of query, value and key"),
        ([(None, 3, 4), (None, 5, 4), (None, 6, 4)], {}, "steps of value and key"),
        ([(None, 3, 4), (None, 5, 4)], {"mask": torch.ones(2, 3)}, r"list \[query mask, value mask\] for mask"),
        ([(None, 3, 4), (None, 5, 4)], {"mask": [None, torch.ones(2, 3)]}, r"\(None, 5\) for the value, got \(2, 3\)"),
        ([(None, 3, 4), (None, 5, 4)], {"mask": [torch.ones(2, 5), None]}, r"\(None, 3\) for the query, got \(2, 5\)"),
    ],
)
@pytest.mark.parametrize("cls", [Attention, AdditiveAttention])
def test_wrong_inputs(cls, shapes, call_kwargs, message):
    with pytest.raises(ValueError, match=f"(?s){cls.__name__} 'looks'.*{message}"):
        cls(name="looks")([Input(batch_shape=shape) for shape in shapes], **call_kwargs)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Attention takes 'dot' or 'concat' for score_mode, got 'general'"):
        Attention(score_mode="general")
    with pytest.raises(ValueError, match=r"Attention 'looks'.*list \[query, value\]"):
        Attention(name="looks")(Input((3, 4)))
    layer = AdditiveAttention(name="looks")
    layer([Input((3, 4)), Input((5, 4))])
    with pytest.raises(ValueError, match=r"'looks'.*built for queries of size 4, got 6"):
        layer([Input((3, 6)), Input((5, 6))])
    with pytest.raises(ValueError, match=r"'looks'.*must be known"):
        AdditiveAttention(name="looks")([Input((3, None)), Input((5, None))])
