"""Masks between layers that code of one's own calls: what they change is what they change in Keras."""

import copy
import pickle
import threading
import warnings
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch
from training_parity import assert_close

from torchfunc import Input, Model, Sequential, layers, losses, metrics

STEPS, WIDTH = 5, 4
TOKENS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [1, 1, 2, 3, 4], [2, 0, 3, 0, 0]])
KERAS = SimpleNamespace(Input=keras.Input, Model=keras.Model, Sequential=keras.Sequential, layers=keras.layers)
OURS = SimpleNamespace(Input=Input, Model=Model, Sequential=Sequential, layers=layers)


def words(lib):
    return lib.layers.Embedding(7, WIDTH, mask_zero=True)


def written(lib, parts, call, base=None):
    """A model, or layer, of these parts, with this call."""

    class Written(base or lib.Model):
        def __init__(self):
            super().__init__()
            for index, part in enumerate(parts):
                setattr(self, f"part_{index}", part)

        def call(self, inputs):
            return call(inputs, *[getattr(self, f"part_{index}") for index in range(len(parts))])

    return Written()


def row(lib, *parts):
    def call(x, *parts):
        for part in parts:
            x = part(x)
        return x

    return written(lib, list(parts), call)


def in_a_row(lib):
    return row(lib, words(lib), lib.layers.LayerNormalization(), lib.layers.LSTM(3), lib.layers.Dense(1))


def masked_output(lib):
    return row(lib, words(lib), lib.layers.GRU(3, return_sequences=True), lib.layers.Dense(1))


def both_ways(lib):
    recurrent = lib.layers.Bidirectional(lib.layers.LSTM(3, return_sequences=True))
    return row(lib, words(lib), recurrent, lib.layers.GlobalAveragePooling1D())


def padding(lib):
    cut = lib.layers.TimeDistributed(lib.layers.Dense(3))
    return row(lib, words(lib), lib.layers.Masking(), cut, lib.layers.GRU(2))


def not_passed_on(lib):
    return row(lib, words(lib), lib.layers.Conv1D(3, 2), lib.layers.LSTM(2))


def nested(lib):
    """Out of a layer of one's own, a Sequential without an Input, and through a drawn model."""
    inner = row(lib, words(lib), lib.layers.Dense(WIDTH))
    encoder = lib.Sequential([words(lib), lib.layers.GRU(WIDTH, return_sequences=True)])
    x = lib.Input((STEPS, WIDTH))
    decoder = lib.Model(x, lib.layers.LSTM(WIDTH, return_sequences=True)(x))
    parts = [inner, encoder, decoder, lib.layers.LSTM(2)]
    return written(lib, parts, lambda x, a, b, c, last: last(c(a(x))) + last(c(b(x))))


def merged(lib):
    parts = [words(lib), words(lib), lib.layers.Concatenate(), lib.layers.GRU(2), lib.layers.GRU(2)]
    parts += [lib.layers.Add(), lib.layers.Multiply()]

    def call(x, first, second, join, gru, other, add, multiply):
        a, b = first(x), second(x)
        return gru(join([a, b])) + other(add([a, b])) + other(multiply([a, b]))

    return written(lib, parts, call)


def attended(lib):
    parts = [words(lib), lib.layers.MultiHeadAttention(2, 3), lib.layers.Attention(), lib.layers.GRU(2)]

    def call(x, embed, heads, attend, gru):
        # (Twice embedded: Keras' MultiHeadAttention takes the masks off its inputs.)
        a, b, c = embed(x), embed(x), embed(x)
        return gru(heads(a, b)) + gru(attend([c, c]))

    return written(lib, parts, call)


def given(lib):
    parts = [words(lib), lib.layers.LSTM(3, return_sequences=True), lib.layers.GRU(2)]

    def call(x, embed, lstm, gru):
        h = embed(x)
        return gru(lstm(h, mask=x > 1)) + gru(lstm(h, mask=None))

    return written(lib, parts, call)


def own_masks(lib):
    """`compute_mask` and `mask` of layers of one's own, of which one returns its input as it is."""

    class Later(lib.layers.Layer):
        def call(self, x):
            return x

        def compute_mask(self, x, mask=None):
            return torch.arange(STEPS).expand(len(x), -1) > 0 if mask is None else mask & (torch.arange(STEPS) > 0)

    class Zeros(lib.layers.Layer):
        def call(self, x, mask=None):
            return x if mask is None else x * mask[..., None]

    parts = [lib.layers.Embedding(7, WIDTH), Later(), Zeros(), lib.layers.GRU(2)]
    return written(lib, parts, lambda x, embed, later, zeros, gru: gru(zeros(later(embed(x) * 2))) + gru(embed(x)))


ALL = [in_a_row, masked_output, both_ways, padding, not_passed_on, nested, merged, attended, given, own_masks]


def pair(make):
    tokens = torch.from_numpy(TOKENS)
    with warnings.catch_warnings():
        # Keras says where masks end.
        warnings.simplefilter("ignore")
        theirs, mine = make(KERAS), make(OURS)
        theirs(tokens)
    mine(tokens)
    mine.set_weights([weight.value.detach().numpy() for weight in theirs.weights])
    return mine, theirs, tokens


@pytest.mark.parametrize("make", ALL)
@pytest.mark.filterwarnings("ignore:Layer '.*was passed an input with a mask")
def test_as_keras(make):
    mine, theirs, tokens = pair(make)
    expected = theirs(tokens)
    found = mine(tokens)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    marks = [getattr(output, "_keras_mask", None) for output in (found, expected)]
    assert marks == [None, None] if None in marks else torch.equal(*marks)
    y = np.random.default_rng(0).random(expected.shape).astype("float32")
    for model in (mine, theirs):
        model.compile("sgd", "mse", metrics=["mae"])
        model.optimizer.learning_rate = 0.5
    with warnings.catch_warnings():
        # (Of NumPy, about Keras' variables.)
        warnings.simplefilter("ignore")
        for method in ("test_on_batch", "train_on_batch", "test_on_batch"):
            logs = {name: float(value) for name, value in getattr(theirs, method)(TOKENS, y, return_dict=True).items()}
            assert_close(getattr(mine, method)(TOKENS, y, return_dict=True), logs, rel=1e-4)
        np.testing.assert_allclose(
            mine.predict(TOKENS, verbose=0), theirs.predict(TOKENS, verbose=0), rtol=1e-3, atol=1e-6
        )


def tokens_of(lib):
    return lib.Input((STEPS,), dtype="int64")


def layer_of(lib, part):
    return written(lib, [part], lambda x, part: part(x), lib.layers.Layer)


def makes_masks(lib):
    x = tokens_of(lib)
    return lib.Model(x, lib.layers.GRU(2)(layer_of(lib, words(lib))(x)))


def formula(lib):
    """What comes out is known by a formula, and the mask still there."""
    layer = layer_of(lib, words(lib))
    type(layer).compute_output_shape = lambda self, shape: (*shape, WIDTH)
    x = tokens_of(lib)
    return lib.Model(x, lib.layers.GRU(2)(layer(x)))


def goes_through(lib):
    x = tokens_of(lib)
    gru = layer_of(lib, lib.layers.GRU(3, return_sequences=True))
    return lib.Model(x, lib.layers.LSTM(2)(gru(words(lib)(x))))


def several_inputs(lib):
    """Masks of arguments whose names say nothing of masks, in a model of one's own within a Sequential's likes."""

    class Attends(lib.Model):
        def __init__(self):
            super().__init__()
            self.heads = lib.layers.MultiHeadAttention(2, 3)

        def call(self, pair, plain):
            return self.heads(pair[0], pair[1]) + plain

    x, plain = tokens_of(lib), lib.layers.Embedding(7, WIDTH)
    return lib.Model(x, lib.layers.Dense(2)(Attends()([words(lib)(x), words(lib)(x)], plain(x))))


def row_of_written(lib):
    gru = lib.layers.GRU(3, return_sequences=True)
    return lib.Sequential([layer_of(lib, words(lib)), layer_of(lib, gru), lib.layers.Dense(1)])


@pytest.mark.parametrize("make", [makes_masks, formula, goes_through, several_inputs, row_of_written])
@pytest.mark.filterwarnings("ignore:Layer '.*was passed an input with a mask")
def test_layers_of_ones_own_in_graphs(make):
    mine, theirs, tokens = pair(make)
    expected = theirs(tokens)
    torch.testing.assert_close(mine(tokens), expected, rtol=1e-4, atol=1e-6)
    for model in (mine, theirs):
        model.compile("sgd", "mse")
    y = np.random.default_rng(0).random(expected.shape).astype("float32")
    loss = float(theirs.evaluate(TOKENS, y, verbose=0))
    assert mine.evaluate(TOKENS, y, verbose=0) == pytest.approx(loss, rel=1e-4)
    for copied in (copy.deepcopy(mine), mine.to_torch()):
        torch.testing.assert_close(copied(tokens), expected, rtol=1e-4, atol=1e-6)
    # Its layers called one by one.
    mine.layers[-1].register_forward_hook(lambda *_: None)
    torch.testing.assert_close(mine(tokens), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda module: module, layers.TorchModule])
def test_torch_modules_that_call_layers(wrap):
    """In a graph they do what they do on tensors: one makes a mask, one uses it and hands it on."""
    makes = torch.nn.Sequential(words(OURS), torch.nn.Sequential(layers.Dropout(0.5)))
    uses = torch.nn.Sequential(layers.GRU(3, return_sequences=True))
    last, x, tokens = layers.LSTM(2), tokens_of(OURS), torch.from_numpy(TOKENS)
    model = Model(x, last(wrap(uses)(wrap(makes)(x)))).eval()
    hidden = uses(makes(tokens))
    expected = last(hidden)
    assert not torch.allclose(expected, last(hidden.clone()))
    for copied in (model, copy.deepcopy(model), model.to_torch()):
        torch.testing.assert_close(copied(tokens), expected)
    last.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(model(tokens), expected)


def test_one_compiled_graph_and_exported():
    torch._dynamo.reset()

    def make(lib):
        x = lib.Input((STEPS, WIDTH))
        drawn = lib.Model(x, lib.layers.Dense(2)(x))
        return row(lib, words(lib), drawn, lib.layers.GlobalAveragePooling1D(keepdims=True), lib.layers.Masking())

    mine, _, tokens = pair(make)
    expected = mine(tokens)
    found = torch.compile(mine, fullgraph=True, backend="eager")(tokens)
    torch.testing.assert_close(found, expected)
    assert found._keras_mask.all()
    torch.testing.assert_close(torch.export.export(mine, (tokens,)).module()(tokens), expected)


def test_a_mask_is_there_to_read_and_lives_as_long_as_its_tensor():
    tokens = torch.from_numpy(TOKENS)
    embedded = words(OURS)(tokens)
    torch.testing.assert_close(embedded._keras_mask, tokens != 0)
    inputs = Input((STEPS,), dtype="int64")
    drawn = layers.Dense(2)(words(OURS)(inputs))
    assert drawn._keras_mask is drawn.mask is not None
    # What comes out of a drawn model, too, whether its layers are called one by one or not.
    model = Model(inputs, drawn)
    torch.testing.assert_close(model(tokens)._keras_mask, tokens != 0)
    model.get_layer("dense").register_forward_hook(lambda *_: None)
    torch.testing.assert_close(model(TOKENS)._keras_mask, tokens != 0)
    for copied in (copy.deepcopy(embedded.detach()), pickle.loads(pickle.dumps(embedded.detach()))):
        assert isinstance(copied, torch.Tensor)
    mask = weakref.ref(embedded._keras_mask)
    del embedded
    assert mask() is None


def test_the_tensors_of_the_caller_get_no_mask():
    class Marks(layers.Layer):
        def call(self, x):
            return x

        def compute_mask(self, x, mask=None):
            return x[..., 0] > 0

    x = torch.randn(2, STEPS, WIDTH)
    marked = Marks()(x)
    assert not hasattr(x, "_keras_mask")
    torch.testing.assert_close(marked._keras_mask, x[..., 0] > 0)
    torch.testing.assert_close(marked, x)


def test_threads_have_the_masks_of_their_own_batches():
    mine, _, _ = pair(in_a_row)
    batches = [torch.randint(0, 7, (3, STEPS), generator=torch.Generator().manual_seed(n)) for n in range(4)]
    expected = [mine(batch) for batch in batches]
    wrong = []

    def predict(batch, value):
        wrong.extend(n for n in range(20) if not torch.equal(mine(batch), value))

    threads = [threading.Thread(target=predict, args=each) for each in zip(batches, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_losses_and_metrics_heed_the_mask_of_a_prediction():
    mine, theirs, tokens = pair(masked_output)
    y = torch.rand(4, STEPS, 1)
    loss, mean = keras.losses.MeanSquaredError(), keras.metrics.MeanAbsoluteError()
    torch.testing.assert_close(losses.MeanSquaredError()(y, mine(tokens)), loss(y, theirs(tokens)))
    mean.update_state(y, theirs(tokens))
    metric = metrics.MeanAbsoluteError()
    metric.update_state(y, mine(tokens))
    torch.testing.assert_close(metric.result(), mean.result().detach())


def test_masks_by_name():
    """`call(self, query, value, query_mask=None, value_mask=None)` gets the mask of each, by position and by name."""

    def make(lib):
        class Pair(lib.layers.Layer):
            def call(self, query, value, query_mask=None, value_mask=None):
                return query * query_mask[..., None] + (value if value_mask is None else value * 0)

        return written(
            lib, [words(lib), lib.layers.Embedding(7, WIDTH), Pair()], lambda x, a, b, p: p(value=b(x), query=a(x))
        )

    mine, theirs, tokens = pair(make)
    with pytest.warns(UserWarning, match="does not support masking"):
        expected = theirs(tokens)
    torch.testing.assert_close(mine(tokens), expected)
