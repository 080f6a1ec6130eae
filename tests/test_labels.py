"""What targets say is the loss' to tell: classes for `class_weight`, and labels that are none."""

import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Model, Sequential, layers, losses, optimizers

RANDOM = np.random.RandomState(0)
WEIGHTS = {0: 1.0, 1: 2.0, 2: 3.0}


def compiled(loss, shape, units, activation=None):
    inputs = Input(shape)
    model = Model(inputs, layers.Dense(units, activation=activation)(inputs))
    model.compile(optimizers.SGD(0.0), loss)
    return model


def fitted_loss(model, x, y, class_weight):
    """The loss, which `fit` and `train_on_batch` agree on; the learning rate is 0."""
    found = model.fit(x, y, class_weight=class_weight, verbose=0).history["loss"][0]
    assert model.train_on_batch(x, y, class_weight=class_weight) == pytest.approx(found, rel=1e-5)
    return found


class TestClassWeight:
    @pytest.mark.parametrize("form", [lambda y: y, lambda y: y[..., None], lambda y: y.astype("float32")])
    def test_indices_of_steps(self, form):
        x, y = RANDOM.rand(4, 3, 2).astype("float32"), np.array([[0, 1, 2], [2, 2, 0], [1, 0, 1], [2, 1, 2]])
        model = compiled("sparse_categorical_crossentropy", (3, 2), 3, "softmax")
        p = np.take_along_axis(model.predict(x, verbose=0), y[..., None], -1)[..., 0]
        wanted = (-np.log(p) * np.array([1.0, 2.0, 3.0])[y]).mean()
        assert fitted_loss(model, x, form(y), WEIGHTS) == pytest.approx(wanted, rel=1e-4)

    def test_as_many_steps_as_classes(self):
        # By its shape this could be one hot.
        x, y = RANDOM.rand(2, 3, 2).astype("float32"), np.array([[0, 0, 1], [0, 1, 0]])
        model = compiled("sparse_categorical_crossentropy", (3, 2), 3, "softmax")
        p = np.take_along_axis(model.predict(x, verbose=0), y[..., None], -1)[..., 0]
        wanted = (-np.log(p) * np.array([5.0, 1.0, 1.0])[y]).mean()
        assert fitted_loss(model, x, y, {0: 5.0}) == pytest.approx(wanted, rel=1e-4)

    @pytest.mark.parametrize("dtype", ["bool", "int64", "float32"])
    @pytest.mark.parametrize("shape", [(8,), (8, 1)])
    @pytest.mark.parametrize("loss", ["binary_crossentropy", nn.BCELoss(reduction="none")])
    def test_labels_of_any_dtype(self, loss, shape, dtype):
        x, y = RANDOM.rand(8, 2).astype("float32"), np.array([0, 1, 1, 0, 0, 1, 0, 1])
        model = compiled(loss, (2,), 1, "sigmoid")
        p = model.predict(x, verbose=0)[:, 0]
        wanted = (-np.log(np.where(y, p, 1 - p)) * np.where(y, 3.0, 1.0)).mean()
        assert fitted_loss(model, x, y.reshape(shape).astype(dtype), {1: 3.0}) == pytest.approx(wanted, rel=1e-4)

    def test_hinge(self):
        x, y = RANDOM.rand(4, 2).astype("float32"), np.array([-1, 1, 1, -1])
        model = compiled("hinge", (2,), 1)
        wanted = (np.maximum(1 - y * model.predict(x, verbose=0)[:, 0], 0) * np.where(y > 0, 1.0, 2.0)).mean()
        assert fitted_loss(model, x, y, {0: 2.0}) == pytest.approx(wanted, rel=1e-4)

    def test_one_hot_steps(self):
        x, y = RANDOM.rand(2, 3, 2).astype("float32"), np.array([[0, 2, 1], [1, 1, 0]])
        model = compiled("categorical_crossentropy", (3, 2), 3, "softmax")
        p = np.take_along_axis(model.predict(x, verbose=0), y[..., None], -1)[..., 0]
        wanted = (-np.log(p) * np.array([1.0, 2.0, 3.0])[y]).mean()
        assert fitted_loss(model, x, np.eye(3)[y], WEIGHTS) == pytest.approx(wanted, rel=1e-4)

    def test_several_labels_a_sample_are_no_class(self):
        model = compiled("binary_crossentropy", (2,), 3, "sigmoid")
        with pytest.raises(ValueError, match=r"targets of shape \(4, 3\) say several of them, or none"):
            model.fit(np.ones((4, 2)), np.array([[1, 1, 0]] * 4), class_weight={1: 2.0})
        model.fit(np.ones((4, 2)), np.eye(3)[[0, 1, 2, 0]], class_weight={1: 2.0}, verbose=0)

    def test_a_model_that_is_not_built(self):
        x, y = RANDOM.rand(2, 3, 2).astype("float32"), np.array([[0, 2, 1], [1, 1, 0]])
        model = Sequential([layers.Dense(3, activation="softmax")])
        model.compile(optimizers.SGD(0.0), losses.SparseCategoricalCrossentropy())
        p = np.take_along_axis(model.predict(x, verbose=0), y[..., None], -1)[..., 0]
        fresh = Sequential([layers.Dense(3, activation="softmax")])
        fresh.build((None, 3, 2))
        fresh.set_weights(model.get_weights())
        fresh.compile(optimizers.SGD(0.0), losses.SparseCategoricalCrossentropy())
        wanted = (-np.log(p) * np.array([1.0, 2.0, 3.0])[y]).mean()
        assert fitted_loss(fresh, x, y, WEIGHTS) == pytest.approx(wanted, rel=1e-4)


def loader(x, y):
    data = torch.utils.data.TensorDataset(torch.as_tensor(x).float(), torch.as_tensor(y))
    return torch.utils.data.DataLoader(data, batch_size=2)


METHODS = {
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "fit on a loader": lambda model, x, y: model.fit(loader(x, y), verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
}


class TestLabelsThatAreNone:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("wrong", [2.0, -1.0, 1.5, float("nan")])
    @pytest.mark.parametrize(
        "loss", ["binary_crossentropy", losses.BinaryFocalCrossentropy(), nn.BCELoss(), nn.BCEWithLogitsLoss()]
    )
    def test_outside_of_0_to_1(self, loss, wrong, method):
        model = compiled(loss, (2,), 1, "sigmoid")
        before = model.get_weights()
        with pytest.raises(ValueError, match=rf"Labels of the output 'dense' lie between 0 and 1, but y holds {wrong}"):
            METHODS[method](model, np.ones((2, 2)), np.array([[0.0], [wrong]]))
        assert all(map(np.array_equal, before, model.get_weights()))

    def test_soft_labels_and_those_without_weight(self):
        model = compiled("binary_crossentropy", (2,), 1, "sigmoid")
        x, y = np.ones((2, 2)), np.array([[0.3], [-1.0]])
        model.fit(x[:1], y[:1], verbose=0)
        weighted = model.evaluate(x, y, sample_weight=np.array([1.0, 0.0]), verbose=0)
        assert weighted == pytest.approx(model.evaluate(x[:1], y[:1], verbose=0) / 2)

    def test_labels_with_noise_on_them(self):
        """As the discriminators of many GANs are trained."""
        model = compiled("binary_crossentropy", (2,), 1, "sigmoid")
        x, y = np.ones((2, 2), "float32"), np.array([[-0.04], [1.05]], "float32")
        p = model.predict(x, verbose=0)
        expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
        for method in ("evaluate", "test_on_batch", "train_on_batch"):
            assert METHODS[method](model, x, y) == pytest.approx(expected, rel=1e-5)
        model = compiled(nn.BCELoss(), (2,), 1, "sigmoid")
        with pytest.raises(ValueError, match=r"lie between 0 and 1, but y holds -0\.03"):
            model.fit(x, y, verbose=0)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_class_between_two(self, method):
        model = compiled("sparse_categorical_crossentropy", (2,), 3, "softmax")
        with pytest.raises(ValueError, match=r"integers from 0 to 2, but y holds 1\.5"):
            METHODS[method](model, np.ones((2, 2)), np.array([0.0, 1.5]))

    @pytest.mark.parametrize("method", METHODS)
    def test_complex_targets(self, method):
        model = compiled("mse", (2,), 1)
        with pytest.raises(ValueError, match="targets of the output 'dense' are complex"):
            METHODS[method](model, np.ones((2, 2)), np.ones((2, 1), "complex64"))


@pytest.mark.parametrize("wrong", [7, -1])
def test_an_id_without_a_vector_is_named(wrong):
    ids = Input((2,), dtype="int64")
    model = Model(ids, layers.Embedding(5, 3, name="words")(ids))
    for call in (model, lambda x: model.predict(x, verbose=0)):
        with pytest.raises(ValueError, match=rf"Embedding 'words'.*vectors for 0 to 4, but was given {wrong}\."):
            call(np.array([[1, wrong]]))
