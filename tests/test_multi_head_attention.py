"""MultiHeadAttention and GroupQueryAttention against Keras: arguments, axes, masks, scores; and torch's kernels."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from layer_parity import assert_close, check_layer
from torch import nn

from torchfunc import Input, Model, layers
from torchfunc.layers import Embedding, GroupQueryAttention, MultiHeadAttention

SEQUENCES = [(2, 3, 6), (2, 5, 4)]
THREE = [(2, 3, 6), (2, 5, 4), (2, 5, 7)]
IMAGES = [(2, 3, 4, 6), (2, 3, 4, 6)]


class KerasMultiHeadAttention(keras.layers.MultiHeadAttention):
    """Keras overwrites the argument `query_mask` by the mask that is attached to the query, if any; here it counts."""

    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        keras.src.backend.set_keras_mask(query, query_mask)
        masks = (query_mask, value_mask, key_mask, attention_mask)
        return super().call(query, value, key, *masks, return_attention_scores, training, use_causal_mask)


def mask(*shape, seed=0):
    """True at the first position of the last axis, and at most others."""
    values = np.random.default_rng(seed).random(shape) < 0.6
    values[..., 0] = True
    return values


CASES = {
    "defaults": ({}, SEQUENCES, {}),
    "key": ({}, THREE, {}),
    "no bias": ({"use_bias": False}, THREE, {}),
    "value_dim": ({"value_dim": 5}, THREE, {}),
    "gate": ({"use_gate": True, "value_dim": 5}, THREE, {}),
    "output_shape": ({"output_shape": 7}, SEQUENCES, {}),
    "output_shape of two axes": ({"output_shape": (2, 3)}, SEQUENCES, {}),
    "causal": ({}, SEQUENCES, {"use_causal_mask": True}),
    "window": ({"sliding_window": 2}, SEQUENCES, {}),
    "causal window": ({"sliding_window": 2}, SEQUENCES, {"use_causal_mask": True}),
    "scores": ({}, SEQUENCES, {"return_attention_scores": True}),
    "causal scores": ({}, SEQUENCES, {"return_attention_scores": True, "use_causal_mask": True}),
    "masked scores": ({}, SEQUENCES, {"return_attention_scores": True, "query_mask": mask(2, 3)}),
    "query and value mask": ({}, SEQUENCES, {"query_mask": mask(2, 3) & False, "value_mask": mask(2, 5)}),
    "all masks": (
        {},
        THREE,
        {
            "query_mask": mask(2, 3),
            "value_mask": mask(2, 5),
            "key_mask": mask(2, 5, seed=1),
            "attention_mask": mask(2, 3, 5, seed=2),
            "use_causal_mask": True,
        },
    ),
    "mask for one head": ({}, SEQUENCES, {"attention_mask": mask(2, 2, 3, 5)}),
    "mask of numbers": ({}, SEQUENCES, {"attention_mask": mask(2, 3, 5).astype("float32")}),
    "masks with dropout": ({"dropout": 0.5}, SEQUENCES, {"query_mask": mask(2, 3) & False, "value_mask": mask(2, 5)}),
    "images": ({}, IMAGES, {}),
    "images and scores": ({"value_dim": 5}, [(2, 3, 4, 6), (2, 5, 2, 6)], {"return_attention_scores": True}),
    "one axis of images": ({"attention_axes": 2}, IMAGES, {"return_attention_scores": True}),
    "the other axis": ({"attention_axes": [1]}, [(2, 3, 4, 6), (2, 5, 4, 6)], {"use_causal_mask": True}),
    "axis from behind": ({"attention_axes": (-2,)}, IMAGES, {}),
    "image mask": ({}, IMAGES, {"attention_mask": mask(2, 3, 4, 3, 4)}),
    "row masks": ({"attention_axes": 2}, IMAGES, {"query_mask": mask(2, 3, 4), "value_mask": mask(2, 3, 4)}),
    "column mask": ({"attention_axes": 1}, IMAGES, {"attention_mask": mask(2, 3, 3)}),
    "row mask": ({"attention_axes": 2}, IMAGES, {"attention_mask": mask(2, 3, 4, 4)}),
    "volumes": ({"attention_axes": (1, 3)}, [(2, 3, 2, 4, 6), (2, 2, 2, 3, 6)], {"return_attention_scores": True}),
    "weights": (
        {
            "kernel_initializer": "he_normal",
            "bias_initializer": "ones",
            "kernel_regularizer": "l2",
            "bias_regularizer": "l1",
            "activity_regularizer": "l2",
            "kernel_constraint": "max_norm",
            "bias_constraint": "non_neg",
            "use_gate": True,
            "seed": 3,
        },
        SEQUENCES,
        {},
    ),
    "float64": ({"use_gate": True}, SEQUENCES, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_multi_head_attention(case):
    kwargs, inputs, call_kwargs = CASES[case]
    check_layer(
        MultiHeadAttention,
        KerasMultiHeadAttention,
        {"num_heads": 2, "key_dim": 3, **kwargs},
        inputs,
        call_kwargs=call_kwargs,
        spread=True,
        dtype="float64" if case == "float64" else "float32",
        # Keras computes attention in single precision whatever it is asked for; torch's module, below, does not.
        atol=1e-6 if case == "float64" else 1e-5,
        unknown_axes=(1,),
        fake_run=False,
    )


GROUPED = {
    "defaults": ({}, THREE[:1] * 2, {}),
    "key": ({}, [(2, 3, 6), (2, 5, 6), (2, 5, 7)], {}),
    "all share": ({"num_key_value_heads": 1}, THREE[:1] * 2, {}),
    "none share": ({"num_key_value_heads": 4}, THREE[:1] * 2, {}),
    "no bias": ({"use_bias": False}, THREE[:1] * 2, {}),
    "gate": ({"use_gate": True}, THREE[:1] * 2, {}),
    "causal": ({}, [(2, 3, 6), (2, 5, 6)], {"use_causal_mask": True}),
    "window": ({"sliding_window": 1}, THREE[:1] * 2, {"use_causal_mask": True}),
    "scores": ({}, [(2, 3, 6), (2, 5, 6)], {"return_attention_scores": True, "use_causal_mask": True}),
    "masks": ({}, [(2, 3, 6), (2, 5, 6)], {"query_mask": mask(2, 3) & False, "value_mask": mask(2, 5)}),
    "all masks": (
        {},
        [(2, 3, 6), (2, 5, 6), (2, 5, 7)],
        {
            "query_mask": mask(2, 3),
            "value_mask": mask(2, 5),
            "key_mask": mask(2, 5, seed=1),
            "attention_mask": mask(2, 3, 5, seed=2),
            "use_causal_mask": True,
        },
    ),
    "masks with dropout": (
        {"dropout": 0.5},
        [(2, 3, 6), (2, 5, 6)],
        {"query_mask": mask(2, 3), "value_mask": mask(2, 5)},
    ),
    "weights": (
        {"kernel_regularizer": "l2", "activity_regularizer": "l2", "bias_constraint": "non_neg", "seed": 3},
        THREE[:1] * 2,
        {},
    ),
    "float64": ({}, [(2, 3, 6), (2, 5, 6)], {}),
}


@pytest.mark.parametrize("case", GROUPED)
def test_grouped_query_attention(case):
    kwargs, inputs, call_kwargs = GROUPED[case]
    check_layer(
        GroupQueryAttention,
        keras.layers.GroupQueryAttention,
        {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2, **kwargs},
        inputs,
        call_kwargs=call_kwargs,
        spread=True,
        dtype="float64" if case == "float64" else "float32",
        # Keras computes attention in single precision whatever it is asked for; torch's module, below, does not.
        atol=1e-6 if case == "float64" else 1e-5,
        unknown_axes=(1,),
        fake_run=False,
    )


def built(cls=MultiHeadAttention, query=(2, 4, 6), value=(2, 4, 6), **kwargs):
    layer = cls(**kwargs)
    layer.build(query, value)
    return layer


def spied(layer, *args, **kwargs):
    """The output, and the arguments of the kernel's calls."""
    calls, original = [], F.scaled_dot_product_attention

    def spy(query, key, value, mask, dropout, **options):
        calls.append({"shapes": (query.shape, key.shape), "mask": mask, "dropout": dropout, **options})
        return original(query, key, value, mask, dropout, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        return layer(*args, **kwargs), calls


def test_the_fused_kernel_is_used_unless_scores_are_wanted():
    x, layer = torch.randn(2, 4, 6), built(num_heads=2, key_dim=3, dropout=0.25)
    _, (call,) = spied(layer.eval(), x, x)
    assert (call["mask"], call["is_causal"], call["dropout"]) == (None, False, 0.0)
    _, (call,) = spied(layer, x, x, use_causal_mask=True)
    assert (call["mask"], call["is_causal"]) == (None, True)
    _, (call,) = spied(layer, x, x, use_causal_mask=True, value_mask=torch.ones(2, 4, dtype=torch.bool))
    assert (call["mask"].shape, call["is_causal"]) == ((2, 1, 4, 4), False)
    _, (call,) = spied(layer.train(), x, x)
    assert call["dropout"] == 0.25
    assert not spied(layer, x, x, return_attention_scores=True)[1]
    image = torch.randn(2, 3, 4, 6)
    _, (call,) = spied(built(num_heads=2, key_dim=3, query=image.shape, value=image.shape), image, image)
    assert call["shapes"] == ((2, 2, 12, 3), (2, 2, 12, 3))


def test_grouped_heads_are_not_copied_for_the_kernel():
    x, layer = torch.randn(2, 4, 6), built(GroupQueryAttention, head_dim=3, num_query_heads=4, num_key_value_heads=2)
    _, (call,) = spied(layer, x, x)
    assert call["shapes"] == ((2, 4, 4, 3), (2, 2, 4, 3))
    assert call["enable_gqa"]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_equals_the_module_of_torch(dtype, atol):
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=dtype)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = built(num_heads=2, key_dim=4, query=(2, 5, 8), value=(2, 5, 8), dtype=dtype)
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    state = {f"out_proj.{name}": value for name, value in theirs.out_proj.state_dict().items()}
    for name, weight, bias in zip("qkv", weights, biases, strict=True):
        state |= {f"{name}_proj.weight": weight.detach(), f"{name}_proj.bias": bias.detach()}
    assert ours.load_state_dict(state)
    assert set(state) == set(ours.state_dict())
    x, padding = torch.randn(2, 5, 8, dtype=dtype), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    expected, scores = theirs(x, x, x, key_padding_mask=padding, average_attn_weights=False)
    actual, own_scores = ours(x, x, value_mask=~padding, return_attention_scores=True)
    assert_close(actual, expected, atol, "output")
    assert_close(own_scores, scores, atol, "scores")
    assert_close(ours(x, x, value_mask=~padding), expected, atol, "fused")


def test_a_causal_mask_follows_the_axis_of_attention():
    """Keras counts along axis 1, whatever the attention goes over; its documentation says future tokens."""
    x = torch.randn(2, 3, 4, 6)
    layer = MultiHeadAttention(2, 3, attention_axes=2)
    output = layer(x, x, use_causal_mask=True)
    flat = MultiHeadAttention(2, 3)
    rows = x.flatten(0, 1)
    flat(rows, rows)
    flat.set_weights(layer.get_weights())
    assert_close(output.flatten(0, 1), flat(rows, rows, use_causal_mask=True), 1e-5, "rows")


def test_step_masks_of_images_reach_all_their_axes():
    """Keras puts the axes of a mask (batch, rows, columns) where they do not belong."""
    x, counts = torch.randn(2, 3, 4, 6), torch.rand(2, 3, 4) < 0.6
    layer = MultiHeadAttention(2, 3)
    output = layer(x, x, value_mask=counts)
    flat = MultiHeadAttention(2, 3)
    steps = x.flatten(1, 2)
    flat(steps, steps)
    flat.set_weights(layer.get_weights())
    assert_close(output.flatten(1, 2), flat(steps, steps, value_mask=counts.flatten(1)), 1e-5, "steps")


def test_masks_of_the_graph_are_edges():
    words = Input((5,), dtype="int64")
    x, other = (Embedding(7, 6, mask_zero=True)(words) for _ in range(2))
    query = layers.Dense(6)(x)
    output, scores = MultiHeadAttention(2, 3)(query, other, return_attention_scores=True)
    assert output.node.kwargs["query_mask"] is x.mask
    assert output.node.kwargs["value_mask"] is other.mask
    assert "key_mask" not in output.node.kwargs
    assert output.mask is x.mask
    assert scores.mask is None
    keyed = MultiHeadAttention(2, 3)(Input((2, 6)), other, x)
    assert keyed.node.kwargs.keys() == {"value_mask", "key_mask"}
    assert keyed.node.kwargs["key_mask"] is x.mask
    assert keyed.mask is None
    explicit = torch.ne(words, 1)
    assert MultiHeadAttention(2, 3)(x, x, value_mask=explicit).node.kwargs["value_mask"] is explicit


@pytest.mark.filterwarnings("ignore:.*does not support masking")  # Keras' projections
@pytest.mark.parametrize("name", ["MultiHeadAttention", "GroupQueryAttention"])
def test_masked_model_equals_that_of_keras(name):
    models = []
    for library in (layers, keras.layers):
        words = (Input if library is layers else keras.Input)((6,), dtype="int64")
        arguments = (2, 3) if name == "MultiHeadAttention" else (3, 4, 2)
        x = library.Embedding(7, 6, mask_zero=True)(words)
        x = getattr(library, name)(*arguments)(x, x, use_causal_mask=True)
        outputs = library.LSTM(3)(x)
        models.append((Model if library is layers else keras.Model)(words, outputs))
    ours, theirs = models
    ours.set_weights([variable.value.detach().numpy() for variable in theirs.weights])
    words = torch.tensor([[3, 1, 0, 4, 0, 0], [0, 2, 2, 0, 1, 6]])
    assert_close(ours(words), theirs(words), 1e-5, "output")


def test_drawn_with_unknown_sizes():
    query, value = Input((None, 6)), Input((None, 4))
    output, scores = MultiHeadAttention(2, 3, output_shape=(2, 5))(query, value, return_attention_scores=True)
    assert output.shape == (None, None, 2, 5)
    assert scores.shape == (None, 2, None, None)
    images = Input((None, 4, 6))
    _, scores = MultiHeadAttention(2, 3, attention_axes=2)(images, images, return_attention_scores=True)
    assert scores.shape == (None, None, 2, 4, 4)


def test_dropout_is_for_training():
    x = torch.ones(1, 400, 6)
    layer = built(num_heads=1, key_dim=1, use_bias=False, dropout=0.5, query=x.shape, value=x.shape)
    expected = layer(x, x, training=False)
    for kwargs in ({}, {"return_attention_scores": True}):
        output = layer(x, x, training=True, **kwargs)
        output = output[0] if kwargs else output
        assert not torch.equal(output, expected)
        # The mean of 400 values of which half are dropped: a standard deviation of 5 % of it, less over 400 queries.
        assert_close(output.mean(), expected.mean(), 0.02 * expected.mean().abs().item(), "mean")
    _, scores = layer(x, x, training=True, return_attention_scores=True)
    assert_close(
        scores.sum(-1), torch.ones(1, 1, 400), 1e-5, "the scores returned are not the dropped ones, as in Keras"
    )


def test_a_seed_gives_the_same_dropout_again():
    x = torch.randn(2, 4, 6)
    first = built(num_heads=2, key_dim=3, dropout=0.5, seed=1)
    second = pickle.loads(pickle.dumps(first))
    outputs = [first(x, x), first(x, x), second(x, x)]
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_flash_attention():
    x = torch.randn(2, 4, 6)
    layer = built(num_heads=2, key_dim=3, value_dim=3)
    for flash in (True, False):
        twin = MultiHeadAttention(2, 3, flash_attention=flash)
        twin(x, x)
        twin.set_weights(layer.get_weights())
        assert_close(twin(x, x), layer(x, x), 1e-5, f"flash_attention={flash}")
    with pytest.raises(ValueError, match="takes no dropout, got"):
        MultiHeadAttention(2, 3, dropout=0.5, flash_attention=True)
    with pytest.raises(ValueError, match=r"MultiHeadAttention .*gives no scores"):
        MultiHeadAttention(2, 3, flash_attention=True)(Input((4, 6)), Input((4, 6)), return_attention_scores=True)


def test_names_of_the_weights():
    layer = built(num_heads=2, key_dim=3, value_dim=5, use_gate=True)
    assert {name: tuple(weight.shape) for name, weight in layer.state_dict().items() if "weight" in name} == {
        "q_proj.weight": (6, 6),
        "k_proj.weight": (6, 6),
        "gate_proj.weight": (10, 6),
        "v_proj.weight": (10, 6),
        "out_proj.weight": (6, 10),
    }
    assert (layer.query_dense, layer.key_dense) == (layer.q_proj, layer.k_proj)
    assert (layer.value_dense, layer.output_dense) == (layer.v_proj, layer.out_proj)
    layer.trainable = False
    assert not layer.trainable_weights
    assert not built(num_heads=2, key_dim=3, trainable=False).trainable_weights


def test_projections_are_drawn_apart():
    layer = built(num_heads=2, key_dim=3)
    assert not torch.equal(layer.q_proj.weight, layer.k_proj.weight)
    # As Keras' Glorot uniform has it for a kernel (6, 2, 3): fans of 6 * 2 and 6 * 3.
    assert layer.q_proj.weight.abs().max() <= (6 / (12 + 18)) ** 0.5


def test_copies():
    layer, x = built(num_heads=2, key_dim=3, use_gate=True), torch.randn(2, 4, 6)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x, x), layer(x, x))
        assert all(np.array_equal(a, b) for a, b in zip(twin.get_weights(), layer.get_weights(), strict=True))


A, B = (None, 4, 6), (None, 5, 6)


@pytest.mark.parametrize(
    ("cls", "kwargs", "message"),
    [
        (MultiHeadAttention, {"num_heads": 0, "key_dim": 3}, "positive integer for num_heads, got 0"),
        (MultiHeadAttention, {"num_heads": 2, "key_dim": 1.5}, "positive integer for key_dim, got 1.5"),
        (MultiHeadAttention, {"num_heads": 2, "key_dim": 3, "value_dim": -1}, "positive integer for value_dim"),
        (MultiHeadAttention, {"num_heads": 2, "key_dim": 3, "sliding_window": 0}, "for sliding_window, got 0"),
        (MultiHeadAttention, {"num_heads": 2, "key_dim": 3, "attention_axes": "1"}, "for attention_axes, got '1'"),
        (MultiHeadAttention, {"num_heads": 2, "key_dim": 3, "output_shape": (2, None)}, "for output_shape, got None"),
        (MultiHeadAttention, {"num_heads": 2, "key_dim": 3, "dropout": 2}, "between 0 and 1 for rate, got 2"),
        (
            GroupQueryAttention,
            {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 3},
            "num_query_heads=4 must be a multiple of num_key_value_heads=3",
        ),
    ],
)
def test_wrong_arguments(cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cls(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "shapes", "call_kwargs", "message"),
    [
        ({}, [(None, 6), (None, 6)], {}, r"at least 3 axes, got 2"),
        ({}, [A, (None, 2, 5, 6)], {}, r"as many axes, got query \(None, 4, 6\), value \(None, 2, 5, 6\)"),
        ({}, [A, B, A], {}, r"equal in all axes but the last.*value \(None, 5, 6\), key \(None, 4, 6\)"),
        ({}, [(2, 4, 6), (3, 4, 6)], {}, r"equal in all axes but \(1,\) and the last"),
        ({"attention_axes": 2}, [(None, 2, 4, 6), (None, 3, 4, 6)], {}, r"equal in all axes but \(2,\)"),
        ({"attention_axes": -1}, [A, A], {}, r"attention_axes=\(-1,\) must name axes between"),
        ({"attention_axes": (1, -2)}, [A, A], {}, "each once"),
        ({"sliding_window": 2}, [(None, 2, 3, 6)] * 2, {}, r"sliding_window needs one axis.*\(1, 2\)"),
        ({}, [(None, 2, 3, 6)] * 2, {"use_causal_mask": True}, r"axes \(1, 2\); use_causal_mask needs a single one"),
        ({}, [(None, 4, None), B], {}, r"must be known.*\(None, 4, None\)"),
        ({}, [A, B], {"query_mask": torch.ones(2, 5)}, r"query_mask of shape \(None, 4\), got \(2, 5\)"),
        (
            {},
            [A, B],
            {"attention_mask": torch.ones(2, 4, 4)},
            r"attention_mask of shape \(None, 4, 5\) or \(None, 2, 4,",
        ),
        ({}, [A, B], {"attention_mask": torch.ones(5)}, r"attention_mask of shape .*got \(5,\)"),
    ],
)
def test_wrong_inputs(kwargs, shapes, call_kwargs, message):
    layer = MultiHeadAttention(2, 3, name="heads", **kwargs)
    with pytest.raises(ValueError, match=f"(?s)MultiHeadAttention 'heads'.*{message}"):
        layer(*(Input(batch_shape=shape) for shape in shapes), **call_kwargs)


def test_other_inputs_than_built_for_are_refused():
    layer = MultiHeadAttention(2, 3, name="heads")
    layer(Input((4, 6)), Input((4, 5)))
    for shapes, message in (
        ([(4, 7), (4, 5)], "6 features of query"),
        ([(4, 6), (4, 6)], "5 features of value"),
        ([(2, 4, 6), (2, 4, 5)], "inputs of 3 axes"),
    ):
        with pytest.raises(ValueError, match=f"'heads'.*built for {message}, got query"):
            layer(*map(Input, shapes))
    grouped = GroupQueryAttention(3, 4, 2, name="groups")
    with pytest.raises(ValueError, match=r"'groups'.*as many features, got \(None, 4, 6\) and \(None, 4, 5\)"):
        grouped(Input((4, 6)), Input((4, 5)))
    with pytest.raises(ValueError, match=r"'groups'.*query \(batch, targets, features\), got"):
        grouped(Input((2, 4, 6)), Input((2, 4, 6)))
    mistaken = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"takes a value_mask of shape \(2, 4\), got \(2, 3\)"):
        layer(torch.zeros(2, 4, 6), torch.zeros(2, 4, 5), value_mask=mistaken)


CALLS = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "masked": {
        "query_mask": torch.ones(2, 4, dtype=torch.bool),
        "value_mask": torch.tensor([[True] * 3 + [False]] * 2),
    },
    "scores": {"return_attention_scores": True},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_compiled_whole_and_exported(call):
    torch._dynamo.reset()
    layer = built(num_heads=2, key_dim=3, use_gate=True, sliding_window=3)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    x, direction = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    gradients = []
    for each in (compiled, layer):
        inputs = x.clone().requires_grad_()
        output = each(inputs, inputs, **call)
        output = output[0] if isinstance(output, tuple) else output
        output.backward(direction)
        gradients.append((output, inputs.grad, each.q_proj.weight.grad))
    for mine, reference in zip(*gradients, strict=True):
        assert_close(mine, reference, 1e-5, "compiled")
    steps = torch.export.Dim("steps", min=2, max=50)
    shapes = {"query": {1: steps}, "value": {1: steps}} if "query_mask" not in call else None
    program = torch.export.export(
        layer, (), {"query": x, "value": x, **call}, dynamic_shapes=shapes and {**shapes, **dict.fromkeys(call)}
    )
    other = torch.randn(2, 7, 6) if shapes else x
    expected, actual = layer(other, other, **call), program.module()(query=other, value=other, **call)
    for mine, reference in zip(
        *(each if isinstance(each, tuple) else (each,) for each in (actual, expected)), strict=True
    ):
        assert_close(mine, reference, 1e-5, "exported")
