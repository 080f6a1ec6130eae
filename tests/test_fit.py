"""fit, evaluate, predict and single batches: numbers, names and return values against Keras'."""

import copy

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training_parity import LABELS, ROWS, WEIGHTS, X, Y, assert_close, copy_weights, ours, steps, twins

import torchfunc
from torchfunc import metrics, optimizers
from torchfunc.layers import BatchNormalization, Dense, Input
from torchfunc.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.05}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {}),
    ("Adam", {"learning_rate": 0.01}),
    ("AdamW", {"learning_rate": 0.01}),
    ("Adam", {"global_clipnorm": 0.1}),
]


class TestLossCurves:
    @pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
    def test_optimizers(self, name, options):
        mine, theirs = twins("label")
        for model, library in ((mine, optimizers), (theirs, keras.optimizers)):
            model.compile(getattr(library, name)(**options), "sparse_categorical_crossentropy", metrics=["accuracy"])
        for a, b in zip(steps(mine, X, LABELS), steps(theirs, X, LABELS), strict=True):
            assert_close(a, b)

    @pytest.mark.parametrize("loss", ["mse", "mae", "huber", "log_cosh"])
    def test_losses(self, loss):
        mine, theirs = twins()
        for model in (mine, theirs):
            model.compile("sgd", loss, metrics=["mae"], weighted_metrics=["mse"])
        for a, b in zip(steps(mine, X, Y, WEIGHTS), steps(theirs, X, Y, WEIGHTS), strict=True):
            assert_close(a, b)

    def test_class_weights(self):
        mine, theirs = twins("label")
        for model in (mine, theirs):
            model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["acc"])
        extra = {"class_weight": {0: 3.0, 2: 0.5}}
        for a, b in zip(steps(mine, X, LABELS, **extra), steps(theirs, X, LABELS, **extra), strict=True):
            assert_close(a, b)

    # Not lists for a dict of outputs: Keras sorts the keys, and so mixes up the heads.
    @pytest.mark.parametrize(("outputs", "settings"), [("list", "list"), ("list", "dict"), ("dict", "dict")])
    def test_two_outputs(self, outputs, settings):
        mine, theirs = twins(outputs)
        given = {
            "loss": {"value": "mse", "kind": "sparse_categorical_crossentropy"},
            "loss_weights": {"value": 0.3, "kind": 2.0},
            "metrics": {"value": ["mae", "mse"], "kind": ["accuracy"]},
        }
        y, weight = {"value": Y, "kind": LABELS}, {"value": WEIGHTS, "kind": WEIGHTS[::-1].copy()}
        if settings == "list":
            given = {key: list(value.values()) for key, value in given.items()}
        if outputs == "list":
            y, weight = list(y.values()), list(weight.values())
        for model in (mine, theirs):
            model.compile("rmsprop", **given)
        for a, b in zip(steps(mine, X, y, weight), steps(theirs, X, y, weight), strict=True):
            assert_close(a, b)

    def test_regularized_weights_and_activity(self):
        pairs = []
        for library in (ours, keras):
            dense = library.layers.Dense
            inputs = keras.Input((5,)) if library is keras else Input((5,))
            x = dense(4, kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2")(inputs)
            model = (keras.Model if library is keras else Model)(inputs, dense(1)(x))
            model.compile("sgd", "mse")
            pairs.append(model)
        mine, theirs = pairs
        mine.set_weights([w.value.detach().numpy() for w in theirs.weights])
        for a, b in zip(steps(mine, X, Y), steps(theirs, X, Y), strict=True):
            assert_close(a, b)
        assert mine.evaluate(X, Y, verbose=0) == pytest.approx(theirs.evaluate(X, Y, verbose=0), rel=1e-4)

    def test_nothing_is_kept_of_a_run(self):
        inputs = Input((5,))
        model = Model(inputs, Dense(1, activity_regularizer="l2", kernel_regularizer="l2")(inputs))
        model.compile("sgd", "mse")
        for run in (model.fit, model.evaluate):
            run(X, Y, verbose=0)
            assert len(model.losses) == 1

    def test_constraints_hold_after_each_step(self):
        inputs = Input((5,))
        model = Model(inputs, Dense(1, kernel_constraint="non_neg")(inputs))
        model.compile(optimizers.SGD(0.5), "mse")
        for _ in range(3):
            model.train_on_batch(X, Y)
            assert (model.layers[-1].weight >= 0).all()
        assert (model.layers[-1].weight == 0).any()


class TestReturns:
    def test_single_batches_return_what_evaluate_does(self):
        mine, theirs = twins()
        for model in (mine, theirs):
            model.compile("sgd", "mse", metrics=["mae"])
        assert mine.test_on_batch(X, Y) == pytest.approx(theirs.test_on_batch(X, Y), rel=1e-5)
        assert mine.train_on_batch(X, Y, WEIGHTS) == pytest.approx(theirs.train_on_batch(X, Y, WEIGHTS), rel=1e-5)
        assert_close(mine.test_on_batch(X, Y, return_dict=True), theirs.test_on_batch(X, Y, return_dict=True))
        np.testing.assert_allclose(mine.predict_on_batch(X), theirs.predict_on_batch(X), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("outputs", ["one", "list", "dict"])
    def test_predict(self, outputs):
        mine, theirs = twins(outputs)
        found, expected = mine.predict(X, batch_size=16, verbose=0), theirs.predict(X, batch_size=16, verbose=0)
        assert type(found) is type(expected)
        if outputs == "one":
            found, expected = [found], [expected]
        keys = found if outputs == "dict" else range(len(found))
        for key in keys:
            assert isinstance(found[key], np.ndarray)
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6)

    def test_validation_data_and_frequency(self):
        mine, theirs = twins()
        data = {"validation_data": (X[:20], Y[:20], WEIGHTS[:20]), "validation_batch_size": 7, "validation_steps": 2}
        found = []
        for model in (mine, theirs):
            model.compile("sgd", "mse", weighted_metrics=["mae"])
            history = model.fit(X, Y, epochs=4, verbose=0, shuffle=False, validation_freq=2, initial_epoch=1, **data)
            found.append((history.epoch, history.history))
        assert found[0][0] == found[1][0] == [1, 2, 3]
        for name, values in found[1][1].items():
            assert found[0][1][name] == pytest.approx(values, rel=1e-4)
        history = mine.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), validation_freq=[1, 3])
        assert len(history.history["val_loss"]) == 2

    def test_steps_per_epoch(self):
        mine, theirs = twins()
        for model in (mine, theirs):
            model.compile("sgd", "mse")
        run = {"epochs": 2, "verbose": 0, "shuffle": False, "steps_per_epoch": 5}
        assert mine.fit(X, Y, **run).history["loss"] == pytest.approx(theirs.fit(X, Y, **run).history["loss"], rel=1e-4)
        loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=10)
        assert mine.fit(loader, epochs=2, steps_per_epoch=2, verbose=0).params["steps"] == 2


class TestData:
    def test_one_weight_array_counts_for_all_outputs(self):
        mine, _ = twins("list")
        mine.compile("sgd", "mse")
        y = [Y, np.eye(3)[LABELS]]
        assert mine.test_on_batch(X, y, WEIGHTS) == pytest.approx(mine.test_on_batch(X, y, [WEIGHTS, WEIGHTS]))

    def test_lists_for_a_dict_of_outputs_follow_its_order(self):
        mine, _ = twins("dict")
        mine.compile("sgd", ["mse", "sparse_categorical_crossentropy"], loss_weights=[2.0, 0.5])
        logs = mine.evaluate(X, [Y, LABELS], verbose=0, return_dict=True)
        mine.compile(
            "sgd",
            {"kind": "sparse_categorical_crossentropy", "value": "mse"},
            loss_weights={"kind": 0.5, "value": 2.0},
        )
        assert mine.evaluate(X, {"kind": LABELS, "value": Y}, verbose=0, return_dict=True) == pytest.approx(logs)

    def test_one_loss_with_a_list_of_weights(self):
        mine, _ = twins("list")
        y = [Y, np.eye(3)[LABELS]]
        mine.compile("sgd", "mse", loss_weights=[1.0, 0.25])
        logs = mine.evaluate(X, y, verbose=0, return_dict=True)
        assert logs["loss"] == pytest.approx(logs["value_loss"] + 0.25 * logs["kind_loss"], rel=1e-5)

    def test_targets_only_for_outputs_with_a_loss(self):
        mine, _ = twins("list")
        mine.compile("sgd", ["mse", None])
        assert mine.evaluate(X, [Y], verbose=0) == mine.evaluate(X, {"value": Y}, verbose=0)

    def test_shuffling_follows_manual_seed(self):
        histories = []
        start, _ = twins()
        for seed in (1, 1, 2):
            model = copy.deepcopy(start)
            model.compile("sgd", "mse")
            torch.manual_seed(seed)
            histories.append(model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history["loss"])
        assert histories[0] == histories[1] != histories[2]


class TestModelsOfTheGuides:
    """From the same weights, on the same batches: Keras' loss curve for 20 steps."""

    @pytest.mark.parametrize("optimizer", ["RMSprop", "Adam"])
    def test_mlp(self, optimizer):
        models = []
        for library, make in ((ours, Model), (keras, keras.Model)):
            inputs = keras.Input((784,)) if library is keras else Input((784,))
            x = library.layers.Dense(64, activation="relu")(inputs)
            x = library.layers.Dense(64, activation="relu")(x)
            models.append(make(inputs, library.layers.Dense(10)(x)))
        x = np.random.default_rng(1).random((640, 784)).astype("float32")
        y = (x[:, :10] * x[:, 10:20]).argmax(1)
        models[0].set_weights([w.value.detach().numpy() for w in models[1].weights])
        for model, library in zip(models, (torchfunc, keras), strict=True):
            loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(getattr(library.optimizers, optimizer)(), loss, metrics=["accuracy"])
        for start in range(0, 640, 32):
            batch = x[start : start + 32], y[start : start + 32]
            assert_close(*(model.train_on_batch(*batch, return_dict=True) for model in models))

    @pytest.mark.parametrize("optimizer", ["RMSprop", "Adam"])
    def test_tickets(self, optimizer):
        models = []
        for library, make in ((ours, Model), (keras, keras.Model)):
            layer, entry = library.layers, keras.Input if library is keras else Input
            title, body = entry((None,), name="title", dtype="int64"), entry((None,), name="body", dtype="int64")
            tags = entry((6,), name="tags")
            words = [
                layer.LSTM(8, name=f"{name}_lstm")(layer.Embedding(50, 8, name=f"{name}_words")(text))
                for name, text in (("title", title), ("body", body))
            ]
            x = layer.Concatenate()([*words, tags])
            outputs = {"priority": layer.Dense(1, name="priority")(x), "team": layer.Dense(4, name="team")(x)}
            # Keras sorts the keys of a dict; these are sorted already.
            models.append(make([title, body, tags], outputs))
        mine, theirs = models
        rng = np.random.default_rng(2)
        x = {
            "title": rng.integers(0, 50, (640, 5)),
            "body": rng.integers(0, 50, (640, 12)),
            "tags": rng.integers(0, 2, (640, 6)).astype("float32"),
        }
        y = {
            "priority": rng.random((640, 1)).astype("float32"),
            "team": np.eye(4)[rng.integers(0, 4, 640)].astype("float32"),
        }
        copy_weights(mine, theirs)
        for model, library in ((mine, torchfunc), (theirs, keras)):
            model.compile(
                getattr(library.optimizers, optimizer)(),
                loss={
                    "priority": library.losses.BinaryCrossentropy(from_logits=True),
                    "team": library.losses.CategoricalCrossentropy(from_logits=True),
                },
                loss_weights={"priority": 1.0, "team": 0.2},
                metrics={"team": ["accuracy"]},
            )
        for start in range(0, 640, 32):
            batch = [{key: value[start : start + 32] for key, value in data.items()} for data in (x, y)]
            assert_close(*(model.train_on_batch(*batch, return_dict=True) for model in models))

    @pytest.mark.parametrize("weighting", ["none", "classes", "samples"])
    def test_images(self, weighting):
        """`fit` on channels_last images, batches of it partial."""
        models = []
        for library, make in ((ours, Model), (keras, keras.Model)):
            layer = library.layers
            inputs = keras.Input((8, 8, 3)) if library is keras else Input((8, 8, 3))
            x = layer.Conv2D(4, 3, activation="relu", name="conv")(inputs)
            x = layer.BatchNormalization(name="norm")(layer.MaxPooling2D(2)(x))
            x = layer.SeparableConv2D(5, 2, padding="same", strides=2, name="separable")(x)
            x = layer.GlobalAveragePooling2D()(layer.Add()([x, layer.Conv2D(5, 1, name="more")(x)]))
            models.append(make(inputs, layer.Dense(3, activation="softmax", name="kind")(x)))
        mine, theirs = models
        copy_weights(mine, theirs)
        images = np.random.default_rng(3).random((ROWS, 8, 8, 3)).astype("float32")
        given = {"none": {}, "classes": {"class_weight": {0: 3.0, 2: 0.5}}, "samples": {"sample_weight": WEIGHTS}}
        curves = []
        for model in models:
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["acc"])
            run = {"batch_size": 8, "epochs": 4, "shuffle": False, "verbose": 0, "validation_data": (images, LABELS)}
            curves.append(model.fit(images, LABELS, **run, **given[weighting]).history)
        assert list(curves[0]) == list(curves[1])
        for name, values in curves[0].items():
            assert values == pytest.approx(curves[1][name], rel=1e-4), name
        assert curves[0]["loss"][-1] < curves[0]["loss"][0]


def test_numbers_of_numpy_and_a_metric_that_is_called_loss():
    def loss(y_true, y_pred):
        return (y_true - y_pred).abs().mean(-1)

    inputs = Input((3,))
    model = Model(inputs, Dense(1)(inputs))
    model.compile("sgd", "mse", metrics=[loss])
    x, y = np.ones((10, 3)), np.full((10, 1), 5.0)
    assert model.fit(x, y, batch_size=np.int64(4), verbose=0).params["steps"] == 3
    logs = model.evaluate(x, y, batch_size=np.int32(4), verbose=0, return_dict=True)
    errors = 5.0 - model.predict(x, verbose=0)
    np.testing.assert_allclose([logs["loss"], logs["loss_1"]], [(errors**2).mean(), abs(errors).mean()], rtol=1e-5)


def test_metrics_that_return_the_same_names_for_two_outputs():
    class Two(metrics.Metric):
        def __init__(self):
            super().__init__(name="two")
            self.total = self.add_variable((), "zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total += (y_true - y_pred).abs().sum()

        def result(self):
            return {"low": self.total * 1, "high": self.total * 2}

    inputs = Input((3,))
    model = Model(inputs, [Dense(1, name="a")(inputs), Dense(1, name="b")(inputs)])
    model.compile("sgd", "mse", metrics=[[Two()], [Two()]])
    x, y = np.ones((8, 3)), np.ones((8, 1))
    logs = model.evaluate(x, [y, y + 100], verbose=0, return_dict=True)
    assert set(logs) == {"loss", "a_loss", "b_loss", "low", "high", "b_two_low", "b_two_high"}
    assert logs["b_two_high"] == 2 * logs["b_two_low"] != 2 * logs["low"]
    assert len(model.evaluate(x, [y, y], verbose=0)) == len(model.metrics_names) == 7


def test_a_list_of_one_loss_for_an_output():
    inputs = Input((3,))
    model = Model(inputs, {"a": Dense(1)(inputs), "b": Dense(1)(inputs)})
    model.compile("sgd", loss={"a": "mse", "b": ["mae"]}, metrics={"b": ["mse"]})
    y = np.ones((4, 1))
    assert set(model.fit(np.ones((4, 3)), {"a": y, "b": y}, verbose=0).history) == {"loss", "a_loss", "b_loss", "b_mse"}
    with pytest.raises(ValueError, match="The loss of the output 'b' is a list of 2, but an output has one loss"):
        model.compile("sgd", loss={"a": "mse", "b": ["mae", "mse"]})


def test_class_weights_of_targets_that_are_true_or_false():
    inputs = Input((1,))
    model = Model(inputs, Dense(1, kernel_initializer="zeros")(inputs))
    model.compile("sgd", "mse")
    x, y = np.zeros((4, 1)), np.array([True, False, False, False])
    assert model.fit(x, y, class_weight={1: 8.0}, verbose=0).history["loss"][0] == pytest.approx(2.0)


def test_a_name_given_for_two_outputs_is_a_metric_of_each():
    inputs = Input((3,))
    model = Model(inputs, [Dense(1, name="a")(inputs), Dense(1, name="b")(inputs)])
    model.compile("sgd", "mse", metrics="mae")
    x, y = np.zeros((4, 3)), np.ones((4, 1))
    logs = model.evaluate(x, [y, 3 * y], verbose=0, return_dict=True)
    assert (logs["a_mae"], logs["b_mae"]) == (1.0, 3.0)


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}, {"run_eagerly": True}])
def test_nothing_to_train(options):
    inputs = Input((3,))
    model = Model(inputs, Dense(1)(BatchNormalization()(inputs)))
    model.trainable = False
    model.get_layer("batch_normalization").trainable = False
    model.compile("adam", "mse", metrics=["mae"], **options)
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    before = [weight.copy() for weight in model.get_weights()]
    with pytest.warns(UserWarning, match="no weights to train") as caught:
        history = model.fit(x, y, batch_size=2, epochs=2, verbose=0).history
    assert len(caught) == 1
    assert history["mae"][0] == pytest.approx((model(x) - y).abs().mean().item(), rel=1e-5)
    assert all(map(np.array_equal, before, model.get_weights()))
    # Freed again, it trains.
    model.trainable = True
    model.compile("adam", "mse", **options)
    model.fit(x, y, batch_size=2, verbose=0)
    assert not np.array_equal(before[-1], model.get_weights()[-1])
