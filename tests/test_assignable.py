"""Weights answer as Keras' variables do, and layers show them under Keras' names, in Keras' layout."""

import copy
import operator
import pickle

import keras
import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Model, Sequential, layers, metrics
from torchfunc.torch_functions import check_method

KINDS = {
    "Dense": ({"units": 2}, (4, 3)),
    "Conv2D": ({"filters": 2, "kernel_size": 3}, (1, 8, 8, 3)),
    "Conv1DTranspose": ({"filters": 2, "kernel_size": 3}, (1, 8, 3)),
    "DepthwiseConv2D": ({"kernel_size": 3}, (1, 8, 8, 3)),
    "SeparableConv2D": ({"filters": 2, "kernel_size": 3}, (1, 8, 8, 3)),
    "Embedding": ({"input_dim": 5, "output_dim": 2}, (1, 3)),
    "EinsumDense": ({"equation": "ab,bc->ac", "output_shape": 4, "bias_axes": "c"}, (2, 3)),
    "BatchNormalization": ({}, (2, 3)),
    "LayerNormalization": ({}, (2, 3)),
    "GroupNormalization": ({"groups": 1}, (2, 4)),
    "RMSNormalization": ({}, (2, 3)),
    "Normalization": ({}, (2, 3)),
    "PReLU": ({}, (2, 3)),
    "SimpleRNN": ({"units": 2}, (1, 4, 3)),
    "LSTM": ({"units": 2}, (1, 4, 3)),
    "GRU": ({"units": 2}, (1, 4, 3)),
    "ConvLSTM1D": ({"filters": 2, "kernel_size": 2}, (1, 4, 6, 3)),
    "LSTMCell": ({"units": 2}, (1, 3)),
}


def keras_names(layer):
    """The attributes under which Keras' layer has its weights."""
    found = {}
    for prefix, holder in (("", layer), ("cell.", getattr(layer, "cell", layer))):
        for name in dir(holder):
            value = None if name.startswith("_") else getattr(holder, name, None)
            if any(value is weight for weight in layer.weights):
                found.setdefault(id(value), (prefix + name, value))
    return list(found.values())


pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_keras(kind):
    kwargs, shape = KINDS[kind]
    ours, theirs = getattr(layers, kind)(**kwargs), getattr(keras.layers, kind)(**kwargs)
    ours.build(shape)
    theirs.build(shape)
    ours.set_weights([weight.value.detach().numpy() for weight in theirs.weights])
    names = keras_names(theirs)
    assert names
    for name, weight in names:
        found = operator.attrgetter(name)(ours)
        np.testing.assert_array_equal(found.detach(), weight.value.detach(), err_msg=name)
        if name in ("bias", "count"):  # torch's names of plain tensors, too
            continue
        changed = np.random.default_rng(0).normal(size=tuple(found.shape)).astype(found.numpy().dtype)
        found.assign(changed)
        found.assign_add(np.ones_like(changed))
        np.testing.assert_allclose(operator.attrgetter(name)(ours).numpy(), changed + 1, rtol=1e-6, err_msg=name)


def test_gradients_flow_through_the_names():
    dense = layers.Dense(2)
    dense.build((None, 3))
    factors = torch.arange(6.0).view(3, 2)
    (dense.kernel * factors).sum().backward()
    assert torch.equal(dense.weight.grad, factors.t())
    assert type(dense.kernel * 2) is torch.Tensor


def test_the_names_are_read_only():
    dense = layers.Dense(2)
    dense.build((None, 3))
    with pytest.raises(AttributeError, match=r"Dense\.kernel shows .*assign"):
        dense.kernel = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"'dense/kernel' has shape \(3, 2\), but was assigned .*\(5,\)"):
        dense.kernel.assign(np.ones(5))
    counting = Counting()
    with pytest.raises(ValueError, match=r"'counting/scale' has shape \(\), but was assigned .*\(5,\)"):
        counting.scale.assign(np.ones(5))
    nn.utils.parametrizations.weight_norm(dense)
    assert dense.kernel.shape == (3, 2)
    with pytest.raises(ValueError, match=r"'kernel' of layer '.*dense' is computed from other parameters"):
        dense.kernel.assign(np.ones((3, 2)))
    assert not hasattr(layers.Dense(2), "kernel")


DUPLICATES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "double": lambda model: copy.deepcopy(model).double(),
}


@pytest.mark.parametrize("way", DUPLICATES)
def test_copies_answer_too(way):
    model = Sequential([Input((3,)), layers.Dense(2), Counting(), layers.BatchNormalization()])
    dense, counting, norm = DUPLICATES[way](model).layers
    assert counting.scale.path == "counting/scale"
    assert norm.moving_mean.path == "batch_normalization/moving_mean"
    dense.kernel.assign(np.ones((3, 2)))
    norm.moving_mean.assign_sub(2.0)
    counting.count.assign_add(3)
    counting.marks[0].assign([4.0])
    counting.scale.assign(5)
    assert dense.weight.detach().numpy().tolist() == [[1.0] * 3] * 2
    assert norm.running_mean.tolist() == [-2.0, -2.0]
    assert (counting.count.item(), counting.marks[0].item(), counting.scale.item()) == (3, 4, 5)
    old = model.layers[1]
    assert (old.count.item(), old.marks[0].item(), old.scale.item()) == (0, 0, 1)
    assert model.layers[2].running_mean.tolist() == [0.0, 0.0]
    assert [name for name, _ in counting.named_parameters()] == ["scale"]
    assert [name for name, _ in counting.named_buffers()] == ["count", "marks.0"]
    assert all(type(value) is torch.Tensor for value in model.state_dict().values())


def test_weights_of_built_in_layers_stay_torchs():
    model = Sequential([Input((3,)), layers.Dense(2), layers.BatchNormalization()])
    assert {type(weight) for weight in model.trainable_weights} == {nn.Parameter}
    assert {type(weight) for weight in model.buffers()} == {torch.Tensor}
    assert {type(variable) for variable in metrics.Mean().variables} == {torch.Tensor}


def test_all_weights_of_a_model_answer():
    """A moving average of a network, as BYOL, DDIM and mean teachers keep it, and a train_step with `value.grad`."""

    class Averaging(Model):
        def train_step(self, data):
            x, y = data
            self.zero_grad()
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            loss.backward()
            weights = list(self.trainable_weights)
            with torch.no_grad():
                self.optimizer.apply([weight.value.grad for weight in weights], weights)
            for weight, average in zip(self.weights, self.average.weights, strict=False):
                average.assign(0.9 * average + 0.1 * weight)
            return {"loss": loss.detach()}

    def network():
        inputs = Input((3,))
        hidden = layers.BatchNormalization(name="norm")(layers.Dense(2, name="hidden")(inputs))
        return inputs, nn.Linear(2, 1)(hidden)

    model, average = Averaging(*network()), Model(*network())
    average.set_weights(model.get_weights())
    expected = model.get_weights()
    model.average = average
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    for _ in range(2):
        model.train_on_batch(x, x[:, :1])
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, model.get_weights(), strict=False)]
    for ours, value in zip(average.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-7)
    assert [weight.path for weight in average.weights[:4]] == [
        "hidden/kernel",
        "hidden/bias",
        "norm/gamma",
        "norm/beta",
    ]
    np.testing.assert_array_equal(average.weights[0].numpy(), average.weights[0].detach())
    average.weights[0].assign_sub(average.weights[0])
    assert not average.get_layer("hidden").weight.any()


def test_assigning_is_part_of_a_graph():
    def update(layer):
        for weight in layer.parameters():
            weight.assign_add(weight.value * 2).assign_sub(1.0)
            weight.assign(weight * 10)

    linear = nn.Linear(2, 2)
    expected = [(weight * 3 - 1) * 10 for weight in linear.parameters()]
    torch.compile(update, fullgraph=True, backend="aot_eager")(linear)
    assert all(map(torch.equal, linear.parameters(), expected))


def test_parametrizations_of_own_layers():
    class Scale(layers.Layer):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight((2, 1), "ones")

        def call(self, inputs):
            return inputs * self.scale

    scale = nn.utils.parametrizations.weight_norm(Scale(), "scale")
    scale.parametrizations.scale.original0.assign([[2.0], [3.0]])
    assert scale(torch.ones(2)).tolist() == [[2, 2], [3, 3]]


def test_symbolic_tensors_and_files_have_no_such_names():
    with pytest.raises(AttributeError, match="has no attribute 'assign'"):
        Input((3,)).assign(1.0)
    with pytest.raises(ValueError, match="'assign_add', which is not one that a graph may call"):
        check_method("assign_add")


def test_state_is_shared_as_a_buffer():
    class Sharing(layers.Layer):
        def __init__(self, other):
            super().__init__()
            self.count = other.count

    counting = Counting()
    sharing = Sharing(counting)
    assert dict(sharing.named_buffers()) == {"count": counting.count}
    assert not list(sharing.parameters())


class Counting(layers.Layer):
    def __init__(self):
        super().__init__()
        self.count = self.add_weight((), "zeros", trainable=False)
        self.scale = self.add_weight((), "ones")
        self.marks = [self.add_weight((1,), "zeros", trainable=False)]

    def call(self, inputs):
        self.count.assign_add(1)
        self.count.assign(self.count.value + 2)
        return inputs * self.scale


@pytest.mark.parametrize("jit_compile", [False, True])
def test_state_is_written_in_a_step(jit_compile):
    inputs = Input((3,))
    counting = Counting()
    model = Model(inputs, layers.Dense(1)(counting(inputs)))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, verbose=0)
    assert counting.count.numpy() == 6
    assert counting.scale.path == "counting/scale"


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_metric_as_every_guide_writes_it(jit_compile):
    class Hits(metrics.Metric):
        def __init__(self, name="hits", **kwargs):
            super().__init__(name=name, **kwargs)
            self.n = self.add_weight(name="n", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.n.assign_add(torch.sum((torch.abs(y_true - y_pred) < 10).float()))

        def result(self):
            return self.n

        def reset_state(self):
            self.n.assign(0.0)

    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[Hits()], jit_compile=jit_compile)
    history = model.fit(np.ones((6, 2)), np.ones((6, 1)), epochs=2, verbose=0)
    assert history.history["hits"] == [6, 6]
    assert Hits().n.path == "hits/n"
    assert copy.deepcopy(Hits()).n.assign_add(1) == 1
    copied = copy.deepcopy(Hits(name="mine"))
    assert (copied.n.path, copied.n.numpy()) == ("mine/n", 0)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_torchs_optimizers_in_a_graph(make):
    found = []
    for jit_compile in (False, True):
        torch.manual_seed(0)
        inputs = Input((3,))
        model = Model(inputs, layers.Dense(1)(Counting()(inputs)))
        model.compile(make, "mse", jit_compile=jit_compile)
        found.append(model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, epochs=3, verbose=0).history["loss"])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_weight_that_was_none_before_build():
    class Late(layers.Layer):
        def __init__(self):
            super().__init__()
            self.scale = None

        def build(self, input_shape):
            self.scale = self.add_weight((input_shape[-1],), "ones")

        def call(self, inputs):
            return inputs * self.scale

    assert Sequential([Late()])(torch.ones(1, 2)).tolist() == [[1, 1]]
