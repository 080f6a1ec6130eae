"""Masks reach the layers of a model within a model, and come out of it, as in Keras."""

import copy
import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch

from torchfunc import Input, Model, Sequential, from_module, layers

TOKENS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [1, 0, 2, 0, 3]])
KERAS = SimpleNamespace(
    Input=keras.Input, Model=keras.Model, Sequential=keras.Sequential, layers=keras.layers, ops=keras.ops
)
OURS = SimpleNamespace(Input=Input, Model=Model, Sequential=Sequential, layers=layers, ops=torch)


def into(lib):
    """A mask made outside is used inside."""
    x = lib.Input((None, 3))
    inner = lib.Model(x, lib.layers.LSTM(4)(lib.layers.Dense(3)(x)))
    tokens = lib.Input((5,), dtype="int64")
    return lib.Model(tokens, inner(lib.layers.Embedding(7, 3, mask_zero=True)(tokens)))


def out_of(lib):
    """A mask made inside is used outside."""
    tokens = lib.Input((5,), dtype="int64")
    inner = lib.Model(tokens, lib.layers.Embedding(7, 3, mask_zero=True)(tokens))
    outer = lib.Input((5,), dtype="int64")
    return lib.Model(outer, lib.layers.LSTM(4)(inner(outer)))


def through(lib):
    """Into a Sequential model, out of it and through another one, to a layer at the end."""
    tokens = lib.Input((5,), dtype="int64")
    x = lib.layers.Embedding(7, 3, mask_zero=True)(tokens)
    x = lib.Sequential([lib.layers.GRU(4, return_sequences=True), lib.layers.Dense(3)])(x)
    y = lib.Input((None, 3))
    inner = lib.Model(y, lib.layers.Dropout(0.5)(y))
    z = lib.Input((5, 3))
    x = lib.Model(z, inner(z))(x)
    return lib.Model(tokens, lib.layers.GlobalAveragePooling1D()(x))


def joined(lib):
    """A mask that comes in and goes out through a Concatenate, beside a layer's output and a tensor without a mask."""
    x, plain = lib.Input((5, 3)), lib.Input((5, 2))
    features = lib.layers.Concatenate()([lib.layers.GRU(2, return_sequences=True)(x), x])
    longer = lib.layers.Concatenate(axis=1)([features, lib.layers.Dropout(0.5)(features)])
    inner = lib.Model([x, plain], [longer, lib.layers.Concatenate()([plain, x])])
    tokens = lib.Input((5,), dtype="int64")
    embedded = lib.layers.Embedding(7, 3, mask_zero=True)(tokens)
    first, second = inner([embedded, lib.layers.Embedding(7, 2)(tokens)])
    return lib.Model(tokens, [lib.layers.LSTM(2)(first), lib.layers.GlobalAveragePooling1D()(second)])


def one_of_two(lib):
    """Of two inputs one is masked; the outputs have masks of their own."""
    a, b = lib.Input((5, 3)), lib.Input((5, 3))
    total = lib.layers.Concatenate(axis=1)([a, b])
    inner = lib.Model([a, b], [lib.layers.LSTM(2)(total), lib.layers.Dense(2)(b)])
    tokens = lib.Input((5,), dtype="int64")
    plain = lib.layers.Embedding(7, 3)(tokens)
    first, second = inner([plain, lib.layers.Embedding(7, 3, mask_zero=True)(tokens)])
    return lib.Model(tokens, [first, lib.layers.GlobalAveragePooling1D()(second)])


def twice(lib):
    """One model on a masked and on an unmasked tensor."""
    x = lib.Input((5, 3))
    inner = lib.Model(x, lib.layers.LSTM(4)(x))
    tokens = lib.Input((5,), dtype="int64")
    masked, plain = lib.layers.Embedding(7, 3, mask_zero=True)(tokens), lib.layers.Embedding(7, 3)(tokens)
    return lib.Model(tokens, [inner(masked), inner(plain)])


def sequence(lib, tokens):
    """Tokens as a sequence in which the steps of padding are zero."""
    rescaled = lib.layers.Rescaling(0.25)(tokens)
    return lib.layers.Reshape((5, 1))(rescaled)


def masking_inside(lib):
    """A model that finds the padding behind a layer of its own, and one around it that only passes it on."""
    x = lib.Input((5, 1))
    inner = lib.Model(x, lib.layers.Masking()(lib.layers.Dense(3, use_bias=False)(x)))
    y = lib.Input((5, 1))
    return lib.Model(y, lib.layers.Dense(2)(inner(y)))


def out_of_nested(lib):
    """Out of two models, at two calls of one of them, to a layer, a merge and the model's own output."""
    tokens = lib.Input((5,), dtype="int64")
    inner = masking_inside(lib)
    first, second = inner(sequence(lib, tokens)), inner(sequence(lib, lib.layers.Rescaling(2.0)(tokens)))
    total = lib.layers.Add()([first, second])
    return lib.Model(tokens, [lib.layers.GRU(2)(total), lib.layers.GlobalAveragePooling1D()(second), first])


def several_outputs(lib):
    """Outputs with the same mask, with another one and without one; by name."""
    x, y = lib.Input((5, 1)), lib.Input((5, 3))
    masked = lib.layers.Masking()(lib.layers.Dense(3, use_bias=False)(x))
    outputs = {"plain": lib.layers.Dense(2)(x), "one": lib.layers.Dense(2)(masked)}
    outputs.update(two=lib.layers.Dense(4)(masked), given=lib.layers.Dense(4)(y))
    outputs["both"] = lib.layers.Add()([outputs["two"], outputs["given"]])
    inner = lib.Model([x, y], outputs)
    tokens = lib.Input((5,), dtype="int64")
    embedded = lib.layers.Embedding(7, 3, mask_zero=True)(tokens // 2)
    found = inner([sequence(lib, tokens), embedded])
    return lib.Model(tokens, [lib.layers.LSTM(2)(found[name]) for name in sorted(found)])


def sequential(lib):
    """Out of a Sequential model, within another one."""
    inner = lib.Sequential([lib.layers.Dense(3, use_bias=False), lib.layers.Masking(), lib.layers.Dropout(0.5)])
    rows = [lib.layers.Rescaling(0.25), lib.layers.Reshape((5, 1)), inner, lib.layers.GRU(3)]
    return lib.Sequential([lib.Input((5,)), *rows])


def into_one_and_out_of_it(lib):
    """A mask that comes in and one that the model makes, joined in it; and out of it into the next model."""
    x = lib.Input((5, 3))
    own = lib.layers.Masking()(lib.layers.Dense(2, use_bias=False)(x))
    inner = lib.Model(x, lib.layers.Concatenate()([own, x]))
    y = lib.Input((5, 5))
    last = lib.Model(y, lib.layers.Bidirectional(lib.layers.GRU(2))(y))
    tokens = lib.Input((5,), dtype="int64")
    return lib.Model(tokens, last(inner(lib.layers.Embedding(7, 3, mask_zero=True)(tokens))))


CASES = [into, out_of, through, joined, one_of_two, twice]
CASES += [out_of_nested, several_outputs, sequential, into_one_and_out_of_it]


def twins(case):
    mine = case(OURS)
    with warnings.catch_warnings():
        # Keras says of each nested model that it does not support masking, which is not so.
        warnings.simplefilter("ignore")
        theirs = case(KERAS)
    # Not as at first, where a state that goes on or stays may look the same.
    values = [np.random.default_rng(0).standard_normal(tuple(weight.shape)) for weight in theirs.weights]
    theirs.set_weights(values)
    mine.set_weights(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(theirs(TOKENS))]
    return mine.eval(), expected


def check(model, expected):
    found = model(torch.from_numpy(TOKENS))
    found = found if isinstance(found, (list, tuple)) else [found]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.detach().numpy(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_as_keras(case):
    model, expected = twins(case)
    check(model, expected)
    check(copy.deepcopy(model), expected)
    check(pickle.loads(pickle.dumps(model)), expected)
    check(torch.compile(model, fullgraph=True, backend="eager"), expected)
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    check(again.eval(), expected)


@pytest.mark.parametrize("case", [out_of_nested, several_outputs], ids=lambda case: case.__name__)
@pytest.mark.filterwarnings("ignore:Layer .* does not support masking")
def test_configs_in_both_directions(case):
    """Keras finds the masks when it runs, so none of them is in a config; places in a dict are by sorted keys."""
    model, expected = twins(case)
    theirs = keras.Model.from_config(json.loads(json.dumps(model.get_config())))
    again = Model.from_config(json.loads(json.dumps(theirs.get_config())))
    for each in (theirs, again):
        each.set_weights(model.get_weights())
    check(again.eval(), expected)
    found = keras.tree.flatten(theirs(TOKENS))
    check(lambda _: [y.detach() for y in found], expected)


def nested():
    x = Input((None, 3))
    inner = Model(x, layers.LSTM(4, return_sequences=True)(x), name="inner")
    tokens = Input((5,), dtype="int64")
    return inner, Model(tokens, inner(layers.Embedding(7, 3, mask_zero=True)(tokens)))


def test_the_nested_model_stays_one_call_of_the_graph():
    inner, model = nested()
    assert [node.target for node in model.graph.nodes if node.op == "call_module"] == ["embedding", "inner"]
    assert "self.inner(embedding, mask = ne)" in model.code
    assert "mask" not in inner.code
    # What it is called on within another model does not show in its own layers.
    assert len(inner.get_layer("lstm").inbound_nodes) == 1


def test_masks_of_a_nested_model_reach_training():
    _, model = nested()
    assert model.describe_outputs() == [(None, True)]
    tokens = torch.from_numpy(TOKENS)
    torch.testing.assert_close(model.forward_for_training(tokens).masks, [tokens != 0])


def test_a_mask_argument_on_real_tensors():
    inner, _ = nested()
    x, mask = torch.randn(2, 5, 3), torch.tensor([[True] * 3 + [False] * 2, [True, False, True, False, False]])
    torch.testing.assert_close(inner(x, mask=mask), inner.get_layer("lstm")(x, mask=mask))
    torch.testing.assert_close(inner(x), inner.get_layer("lstm")(x))
    assert not torch.equal(inner(x), inner(x, mask=mask))


def test_hooks_on_the_nested_model_and_in_it_fire():
    inner, model = nested()
    seen = []
    inner.register_forward_hook(lambda module, inputs, output: seen.append((len(inputs), output.shape)))
    inner.get_layer("lstm").register_forward_hook(lambda module, *_: seen.append(module.name))
    model(torch.from_numpy(TOKENS))
    assert seen == ["lstm", (1, (3, 5, 4))]


def test_training_goes_into_a_masked_call():
    x = Input((None, 3))
    inner = Model(x, layers.GlobalAveragePooling1D()(layers.Dropout(0.999)(x)))
    mask = torch.ones(2, 5, dtype=torch.bool)
    ones = torch.ones(2, 5, 3)
    assert inner(ones, mask=mask, training=True).mean() < 0.5 or inner(ones, mask=mask, training=True).mean() > 2
    torch.testing.assert_close(inner(ones, mask=mask, training=False), torch.ones(2, 3))


def test_an_input_called_mask_stays_an_input():
    x, mask = Input((3,), name="x"), Input((3,), name="mask")
    model = Model([x, mask], x * mask)
    torch.testing.assert_close(model(x=torch.ones(1, 3), mask=torch.zeros(1, 3)), torch.zeros(1, 3))


class Rounded(layers.Layer):
    """Token numbers out of floats."""

    def call(self, inputs):
        return inputs.round().long()


def test_a_mask_behind_a_module_comes_from_the_one_call_of_the_nested_model():
    x = Input((5,))
    inner = Model(x, layers.Embedding(7, 3, mask_zero=True)(Rounded(name="rounded")(x)), name="inner")
    assert inner.describe_outputs() == [(None, True)]
    outer = Input((5,))
    model = Model(outer, layers.LSTM(4, return_sequences=True, name="lstm")(inner(outer)))
    assert [node.target for node in model.graph.nodes if node.op == "call_module"] == ["inner", "lstm"]
    assert model.describe_outputs() == [(None, True)]
    values = torch.from_numpy(TOKENS).float()
    expected = model.get_layer("lstm")(inner(values), mask=values != 0)
    torch.testing.assert_close(model(values), expected)
    torch.testing.assert_close(model.forward_for_training(values).masks, [values != 0])
    # Where nothing takes the mask the call does not return it.
    assert "return_masks" not in Model(outer, layers.Flatten()(inner(outer))).code


def test_outputs_of_a_nested_model_share_their_mask():
    tokens = Input((5,), dtype="int64")
    x = layers.Embedding(7, 3, mask_zero=True)(tokens)
    inner = Model(tokens, [layers.Dense(2)(x), layers.Dense(4)(x)], name="inner")
    outer = Input((5,), dtype="int64")
    first, second = inner(outer)
    assert first.mask is second.mask
    model = Model(outer, layers.Concatenate()([layers.LSTM(2)(first), layers.LSTM(2)(second)]))
    assert [node.target for node in model.graph.nodes if node.op == "call_function"].count(torch.ne) == 1


def classifier():
    """A nested model that finds padding behind a layer and ends in a softmax; its copy has the same weights."""
    x = Input((5, 1))
    y = layers.Masking()(layers.Dense(3, use_bias=False, name="wide")(x))
    return Model(x, layers.Dense(2, activation="softmax", name="classes")(y), name="inner")


STEPS = torch.tensor([[1.0, 2.0, 0.0, 3.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]]).unsqueeze(-1)


def test_against_a_gru_by_hand():
    x, outer = Input((5, 1)), Input((5, 1))
    inner = Model(x, layers.Masking()(layers.Dense(3, use_bias=False, name="wide")(x)), name="inner")
    gru = layers.GRU(2)
    model = Model(outer, gru(inner(outer)))
    cell = torch.nn.GRUCell(3, 2)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in gru.state_dict().items()})
    wide = STEPS @ inner.get_layer("wide").weight.T
    rows = []
    for row, steps in zip(wide, STEPS[..., 0], strict=True):
        state = torch.zeros(1, 2)
        for value, step in zip(row, steps, strict=True):
            state = cell(value[None], state) if step else state
        rows.append(state)
    torch.testing.assert_close(model(STEPS), torch.cat(rows))
    gradients = [torch.autograd.grad(y.square().sum(), inner.get_layer("wide").weight) for y in (model(STEPS),)]
    torch.testing.assert_close(gradients[0], torch.autograd.grad(torch.cat(rows).square().sum(), inner.weights))


def test_the_loss_gets_masks_and_logits_of_one_call():
    outer = Input((5, 1))
    inner = classifier()
    model = Model(outer, inner(outer))
    assert model.describe_outputs() == [("softmax", True)]
    found = model.forward_for_training(STEPS, logits_of=(0,))
    torch.testing.assert_close(found.masks, [STEPS[..., 0] != 0])
    torch.testing.assert_close(found.logits[0].softmax(-1), model(STEPS))
    y = torch.randint(0, 2, (3, 5))
    losses_ = {}
    for jit in (False, True):
        again = copy.deepcopy(model)
        again.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit, device="cpu")
        losses_[jit] = again.train_on_batch(STEPS, y)
    expected = torch.nn.functional.nll_loss(model(STEPS).log().flatten(0, 1), y.flatten(), reduction="none")
    counts = (STEPS != 0).flatten()
    assert losses_[False] == pytest.approx((expected * counts).sum().item() / counts.sum().item(), rel=1e-5)
    assert losses_[True] == pytest.approx(losses_[False], rel=1e-5)


def test_hooks_see_the_outputs_alone_and_may_replace_them():
    outer, inner = Input((5, 1)), classifier()
    model = Model(outer, layers.GRU(2, name="gru")(inner(outer)))
    seen = []
    inner.register_forward_hook(lambda module, inputs, output: seen.append(type(output)) or output * 2)
    expected = model.get_layer("gru")(inner(STEPS), mask=STEPS[..., 0] != 0)
    torch.testing.assert_close(model(STEPS), expected)
    assert seen == [torch.Tensor] * 2
    _, masks = inner(STEPS, return_masks=True)
    torch.testing.assert_close(masks, [STEPS[..., 0] != 0])


class Marked(Model):
    """A drawn model that gives its output a mask by itself."""

    def compute_mask(self, inputs, mask=None):
        return inputs[..., 0] > 1


def test_a_drawn_model_with_a_compute_mask_of_its_own():
    x, outer = Input((5, 1)), Input((5, 1))
    inner = Marked(x, layers.Dense(3)(x))
    model = Model(outer, layers.GRU(2, name="gru")(inner(outer)))
    expected = model.get_layer("gru")(inner(STEPS), mask=STEPS[..., 0] > 1)
    torch.testing.assert_close(model(STEPS), expected)


def test_rewiring_finds_the_masks_anew():
    outer, inner, again = Input((5, 1)), classifier(), Input((5, 1))
    y = layers.Concatenate()([inner(outer), layers.Masking()(outer)])
    model = Model(outer, layers.GRU(2, name="gru")(y))
    plain = Model(again, layers.Dense(2)(again))
    gru, rewired = model.get_layer("gru"), model.rewire({inner: plain})
    both = torch.cat([inner(STEPS), STEPS], -1)
    torch.testing.assert_close(model(STEPS), gru(both, mask=STEPS[..., 0] != 0))
    # As in Keras, a step counts in a concatenation if it does in one of the parts.
    torch.testing.assert_close(rewired(STEPS), gru(torch.cat([plain(STEPS), STEPS], -1)))
    torch.testing.assert_close(model.rewire({"gru": None})(STEPS), both)


def test_threads_that_make_the_first_calls():
    outer, inner = Input((5, 1)), classifier()
    model = Model(outer, layers.GRU(2)(inner(outer)))
    expected = copy.deepcopy(model)(STEPS)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: model(STEPS), range(16)))
    for each in found:
        torch.testing.assert_close(each, expected)


def test_a_model_whose_graph_was_changed_has_no_masks():
    outer, inner = Input((5, 1)), classifier()
    model = Model(outer, layers.GRU(2, name="gru")(inner(outer)))
    node = next(node for node in inner.graph.nodes if node.op == "output")
    with inner.graph.inserting_before(node):
        doubled = inner.graph.call_function(torch.mul, (node.args[0], 2))
    node.args = (doubled,)
    inner.recompile()
    with pytest.warns(UserWarning, match="The graph of Model 'inner' was changed"):
        found = model(STEPS)
    torch.testing.assert_close(found, model.get_layer("gru")(inner(STEPS)))


def encoder_of(lib):
    """A written layer, in whose `call` masks go from layer to layer."""

    class Encoder(lib.layers.Layer):
        def __init__(self):
            super().__init__()
            self.embedding, self.gru = lib.layers.Embedding(7, 3, mask_zero=True), lib.layers.GRU(2)

        def call(self, tokens):
            return self.gru(self.embedding(tokens))

    return Encoder()


def test_copies_of_a_written_layer_hand_masks_on_as_it_does():
    tokens, values = Input((5,), dtype="int64"), torch.from_numpy(TOKENS)
    encoder, theirs = encoder_of(OURS), encoder_of(KERAS)
    model = Model(tokens, encoder(tokens))
    theirs(values)
    theirs.set_weights(encoder.get_weights())
    expected = theirs(values)
    torch.testing.assert_close(model(values), expected)
    torch.testing.assert_close(model.to_torch()(values), expected)
    torch.testing.assert_close(from_module(encoder, values)(values), expected)
