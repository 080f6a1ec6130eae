"""Keras' guide "Training & evaluation with the built-in methods", paragraph by paragraph, against Keras' numbers."""

import keras
import numpy as np
import pytest
import torch
from guide_code import FIT, LABELS, ONE_HOT, ROWS, SIZE, WEIGHTS, X, add, check_alike, drawn, seeded
from torch.utils.data import DataLoader, TensorDataset

import torchfunc

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

CROSSENTROPY = "sparse_categorical_crossentropy"


def test_a_first_example():
    def guide(library):
        model = drawn(library)
        model.compile(
            optimizer=library.optimizers.RMSprop(),
            loss=library.losses.SparseCategoricalCrossentropy(),
            metrics=[library.metrics.SparseCategoricalAccuracy()],
        )
        history = model.fit(X, LABELS, validation_data=(X[:10], LABELS[:10]), **FIT)
        results = model.evaluate(X, LABELS, batch_size=128, verbose=0)
        return history.history, results, model.predict(X[:3], verbose=0)

    check_alike(guide)


def test_names_and_functions():
    def guide(library):
        model, found = drawn(library), []
        for loss, metric in [
            (CROSSENTROPY, "sparse_categorical_accuracy"),
            (library.losses.sparse_categorical_crossentropy, library.metrics.sparse_categorical_accuracy),
            (library.losses.SparseCategoricalCrossentropy(name="mine"), "acc"),
        ]:
            model.compile("rmsprop", loss, metrics=[metric])
            found += [model.fit(X, LABELS, **FIT).history, model.evaluate(X, LABELS, verbose=0, return_dict=True)]
        return found

    check_alike(guide)


def test_custom_losses():
    def guide(library):
        ops = library.ops

        def custom_mean_squared_error(y_true, y_pred):
            return ops.mean(ops.square(y_true - y_pred), axis=-1)

        class CustomMSE(library.losses.Loss):
            def __init__(self, regularization_factor=0.1, name="custom_mse"):
                super().__init__(name=name)
                self.regularization_factor = regularization_factor

            def call(self, y_true, y_pred):
                mse = ops.mean(ops.square(y_true - y_pred), axis=-1)
                reg = ops.mean(ops.square(0.5 - y_pred), axis=-1)
                return mse + reg * self.regularization_factor

        model, found = drawn(library, None), []
        y = ops.one_hot(LABELS, num_classes=3)
        for loss in (custom_mean_squared_error, CustomMSE()):
            model.compile(optimizer=library.optimizers.Adam(), loss=loss, metrics=[custom_mean_squared_error])
            found.append(model.fit(X, y, sample_weight=WEIGHTS, **FIT).history)
        return found

    check_alike(guide)


def test_custom_metrics_keep_state_over_batches():
    def guide(library):
        ops = library.ops

        class CategoricalTruePositives(library.metrics.Metric):
            def __init__(self, name="categorical_true_positives", **kwargs):
                super().__init__(name=name, **kwargs)
                self.true_positives = self.add_variable(shape=(), name="ctp", initializer="zeros")

            def update_state(self, y_true, y_pred, sample_weight=None):
                y_pred = ops.reshape(ops.argmax(y_pred, axis=1), (-1, 1))
                values = ops.equal(ops.cast(ops.reshape(y_true, (-1, 1)), "int32"), ops.cast(y_pred, "int32"))
                values = ops.cast(values, "float32")
                if sample_weight is not None:
                    values = ops.multiply(values, ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1)))
                add(self.true_positives, ops.sum(values))

            def result(self):
                return self.true_positives + 0  # the state itself is reset before Keras has read it

        model = drawn(library)
        settings = {
            "metrics": [CategoricalTruePositives()],
            "weighted_metrics": [CategoricalTruePositives(name="weighted")],
        }
        model.compile(library.optimizers.RMSprop(learning_rate=1e-3), CROSSENTROPY, **settings)
        history = model.fit(X, LABELS, sample_weight=WEIGHTS, validation_split=0.25, **FIT)
        return history.history, model.evaluate(X, LABELS, WEIGHTS.size, 0, WEIGHTS)

    history, (_, counted, weighted) = check_alike(guide)
    assert counted > history["categorical_true_positives"][-1] - 6  # all rows, not those of one batch
    assert 0 < weighted < counted <= ROWS


def test_losses_and_metrics_of_layers():
    def guide(library):
        class ActivityRegularizationLayer(library.layers.Layer):
            def call(self, inputs):
                self.add_loss(library.ops.sum(inputs) * 0.1)
                return inputs

        class MetricLoggingLayer(library.layers.Layer):
            def __init__(self):
                super().__init__()
                self.mean_metric = library.metrics.Mean(name="mean_activation")

            def call(self, inputs):
                self.mean_metric.update_state(library.ops.mean(inputs))
                return inputs

        inputs = library.Input((6,))
        x = library.layers.Dense(5, activation="relu")(inputs)
        x = MetricLoggingLayer()(ActivityRegularizationLayer()(x))
        model = seeded(library.Model(inputs, library.layers.Dense(3)(x)))
        model.compile("rmsprop", library.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(X, LABELS, **FIT).history
        return sorted(history), history["loss"], model.evaluate(X, LABELS, verbose=0, return_dict=True)["loss"]

    check_alike(guide)


def test_a_metric_in_a_layer_is_logged():
    """Keras' logs hold it, too, but the value is that of the last batch for some layers: so a closed form."""

    class Logging(torchfunc.layers.Layer):
        def __init__(self):
            super().__init__()
            self.mean_metric = torchfunc.metrics.Mean(name="mean_activation")

        def call(self, inputs):
            self.mean_metric.update_state(inputs.mean())
            return inputs

    inputs = torchfunc.Input((6,))
    model = torchfunc.Model(inputs, torchfunc.layers.Dense(1)(Logging()(inputs)))
    model.compile("sgd", "mse")
    assert model.evaluate(X, X[:, :1], batch_size=SIZE, verbose=0, return_dict=True)["mean_activation"] == (
        pytest.approx(X.mean(), rel=1e-5)
    )
    assert model.layers[1].metrics == [model.layers[1].mean_metric]


def test_a_loss_that_is_a_layer():
    def guide(library):
        class LogisticEndpoint(library.layers.Layer):
            def __init__(self, name=None):
                super().__init__(name=name)
                self.loss_fn = library.losses.BinaryCrossentropy(from_logits=True)

            def call(self, targets, logits, sample_weights=None):
                self.add_loss(self.loss_fn(targets, logits, sample_weights))
                return library.ops.softmax(logits)

        inputs, targets = library.Input((6,), name="inputs"), library.Input((3,), name="targets")
        logits = library.layers.Dense(3)(inputs)
        predictions = LogisticEndpoint(name="predictions")(targets, logits)
        model = seeded(library.Model(inputs=[inputs, targets], outputs=predictions))
        model.compile(optimizer="adam")  # No loss argument!
        return model.fit({"inputs": X, "targets": ONE_HOT}, **FIT).history

    check_alike(guide)


@pytest.mark.parametrize("split", [0.2, 0.5])
def test_validation_split(split):
    def guide(library):
        model = drawn(library)
        model.compile("adam", CROSSENTROPY, metrics=["accuracy"])
        return model.fit(X, LABELS, validation_split=split, **{**FIT, "batch_size": 5}).history

    check_alike(guide)


def test_loaders():
    def loader(*arrays):
        return DataLoader(TensorDataset(*map(torch.from_numpy, arrays)), batch_size=SIZE)

    def guide(library):
        model = drawn(library)
        model.compile("rmsprop", CROSSENTROPY, metrics=["accuracy"], weighted_metrics=["accuracy"])
        weighted = loader(X, LABELS, WEIGHTS)
        run = {"epochs": 2, "shuffle": False, "verbose": 0}  # Keras warns of a loader and shuffle=True
        found = [model.fit(weighted, validation_data=loader(X, LABELS), **run).history]
        found.append(model.fit(weighted, steps_per_epoch=2, **{**run, "epochs": 1}).history)
        found.append(model.fit(weighted, validation_data=weighted, validation_steps=1, **run).history)
        found.append(model.evaluate(weighted, verbose=0, return_dict=True))
        return [*found, model.predict(loader(X), verbose=0)]

    check_alike(guide)


def test_a_py_dataset():
    def guide(library):
        class ExamplePyDataset(library.utils.PyDataset):
            def __init__(self, x, y, batch_size, **kwargs):
                super().__init__(**kwargs)
                self.x, self.y, self.batch_size = x, y, batch_size

            def __len__(self):
                return int(np.ceil(len(self.x) / float(self.batch_size)))

            def __getitem__(self, idx):
                rows = slice(idx * self.batch_size, (idx + 1) * self.batch_size)
                return self.x[rows], self.y[rows]

        model = drawn(library)
        model.compile("rmsprop", CROSSENTROPY, metrics=["accuracy"])
        dataset = ExamplePyDataset(X, LABELS, SIZE, workers=1)
        history = model.fit(dataset, epochs=2, validation_data=dataset, shuffle=False, verbose=0)
        return history.history, model.evaluate(dataset, verbose=0)

    check_alike(guide)


def test_class_and_sample_weights():
    def guide(library):
        model, found = drawn(library), []
        model.compile("rmsprop", CROSSENTROPY, metrics=["accuracy"], weighted_metrics=["accuracy"])
        class_weight = {0: 1.0, 1: 2.0, 2: 0.5}
        found.append(model.fit(X, LABELS, class_weight=class_weight, **FIT).history)
        weights = np.ones(shape=(len(LABELS),))
        weights[LABELS == 2] = 2.0
        return [*found, model.fit(X, LABELS, sample_weight=weights, **FIT).history]

    check_alike(guide)


def test_class_weights_of_one_hot_targets_and_loaders():
    """Keras fails at the first on torch and refuses the second: so the weights by hand."""
    class_weight = {0: 1.0, 1: 2.0, 2: 0.5}
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(ONE_HOT)), batch_size=SIZE)
    found = []
    for data in (
        {"x": X, "y": ONE_HOT, "class_weight": class_weight},
        {"x": loader, "class_weight": class_weight},
        {"x": X, "y": ONE_HOT, "sample_weight": np.array([1.0, 2.0, 0.5])[LABELS]},
    ):
        model = drawn(torchfunc)
        model.compile("rmsprop", "categorical_crossentropy")
        run = FIT if data["x"] is X else {**FIT, "batch_size": None}
        found.append(model.fit(**data, **run).history)
    assert found[0] == found[1] == found[2]


IMAGES = np.random.default_rng(6).random((ROWS, 7, 7, 3)).astype("float32")
SERIES = np.random.default_rng(7).random((ROWS, 9, 4)).astype("float32")
SCORES = np.random.default_rng(8).random((ROWS, 1)).astype("float32")


def two_branches(library):
    """The guide's model of an image and a time series, with a score and a class."""
    layers = library.layers
    image_input = library.Input(shape=(7, 7, 3), name="img_input")
    timeseries_input = library.Input(shape=(None, 4), name="ts_input")
    x1 = layers.GlobalMaxPooling2D()(layers.Conv2D(3, 3)(image_input))
    x2 = layers.GlobalMaxPooling1D()(layers.Conv1D(3, 3)(timeseries_input))
    x = layers.concatenate([x1, x2])
    score_output = layers.Dense(1, name="score_output")(x)
    class_output = layers.Dense(3, name="class_output")(x)
    return seeded(library.Model(inputs=[image_input, timeseries_input], outputs=[score_output, class_output]))


@pytest.mark.parametrize("form", ["lists", "dicts", "dicts of lists", "one loss"])
def test_several_inputs_and_outputs(form):
    def guide(library):
        model, metrics = two_branches(library), library.metrics
        mse, crossentropy = library.losses.MeanSquaredError(), library.losses.CategoricalCrossentropy(from_logits=True)
        score_metrics = [metrics.MeanAbsolutePercentageError(), metrics.MeanAbsoluteError()]
        settings = {
            "lists": {"loss": [mse, crossentropy], "metrics": [score_metrics, [metrics.CategoricalAccuracy()]]},
            "dicts": {
                "loss": {"score_output": mse, "class_output": crossentropy},
                "metrics": {"score_output": score_metrics, "class_output": [metrics.CategoricalAccuracy()]},
                "loss_weights": {"score_output": 2.0, "class_output": 1.0},
            },
            "dicts of lists": {"loss": [mse, crossentropy], "loss_weights": [2.0, 1.0]},
            "one loss": {"loss": "mse", "metrics": ["mae", "mae"]},
        }[form]
        model.compile(optimizer=library.optimizers.SGD(1e-2), **settings)
        if form == "lists":
            x, y, weights = [IMAGES, SERIES], [SCORES, ONE_HOT], [WEIGHTS, WEIGHTS[::-1].copy()]
        else:
            x, y = {"img_input": IMAGES, "ts_input": SERIES}, {"score_output": SCORES, "class_output": ONE_HOT}
            weights = None  # Keras takes weights as a dict only of a model that returns a dict
        history = model.fit(x, y, sample_weight=weights, **FIT)
        return history.history, model.evaluate(x, y, verbose=0), model.predict(x, verbose=0)

    check_alike(guide)


def test_an_output_without_a_loss():
    def guide(library):
        model = two_branches(library)
        model.get_layer("score_output").trainable = False  # else Keras and we warn that it gets no gradients
        model.compile("sgd", loss=[None, library.losses.CategoricalCrossentropy(from_logits=True)])
        return model.fit([IMAGES, SERIES], [SCORES, ONE_HOT], **FIT).history

    history = check_alike(guide)
    model = two_branches(torchfunc)
    model.get_layer("score_output").trainable = False
    # As the guide has it; Keras 3 refuses a dict that leaves an output out.
    model.compile("sgd", loss={"class_output": torchfunc.losses.CategoricalCrossentropy(from_logits=True)})
    by_name = model.fit({"img_input": IMAGES, "ts_input": SERIES}, {"class_output": ONE_HOT}, **FIT).history
    assert by_name["loss"] == pytest.approx(history["loss"], rel=1e-5)


def test_callbacks(tmp_path):
    def guide(library):
        class LossHistory(library.callbacks.Callback):
            def on_train_begin(self, logs):
                self.per_batch_losses = []

            def on_batch_end(self, batch, logs):
                self.per_batch_losses.append(logs.get("loss"))

        folder = tmp_path / library.__name__
        folder.mkdir()
        watch = LossHistory()
        callbacks = [
            library.callbacks.EarlyStopping(monitor="val_loss", min_delta=1e-2, patience=2, verbose=0),
            library.callbacks.ModelCheckpoint(
                filepath=str(folder / "{epoch}-{val_loss:.2f}.weights.h5")
                if library is keras
                else str(folder / "{epoch}-{val_loss:.2f}.safetensors"),
                save_best_only=True,
                save_weights_only=True,
                monitor="val_loss",
            ),
            library.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1, min_delta=1e-2),
            watch,
        ]
        model = drawn(library)
        model.compile(library.optimizers.SGD(0.02), CROSSENTROPY, metrics=["accuracy"])
        history = model.fit(X, LABELS, callbacks=callbacks, validation_split=0.2, **{**FIT, "epochs": 12})
        files = sorted(path.name.split(".w")[0].split(".s")[0] for path in folder.iterdir())
        return history.history, watch.per_batch_losses, files, float(model.optimizer.learning_rate)

    check_alike(guide)


@pytest.mark.parametrize("name", ["ExponentialDecay", "CosineDecay", "LearningRateScheduler"])
def test_learning_rate_schedules(name):
    def guide(library):
        schedules = library.optimizers.schedules
        rate = {
            "ExponentialDecay": lambda: schedules.ExponentialDecay(0.1, 2, 0.5, staircase=True),
            "CosineDecay": lambda: schedules.CosineDecay(0.02, 5, warmup_target=0.1, warmup_steps=2),
            "LearningRateScheduler": lambda: 0.1,
        }[name]()
        callback = library.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5**epoch)
        model = drawn(library)
        model.compile(library.optimizers.SGD(learning_rate=rate), CROSSENTROPY)
        chosen = [callback] if name == "LearningRateScheduler" else None
        history = model.fit(X, LABELS, callbacks=chosen, **FIT)
        return history.history, float(model.optimizer.learning_rate), int(model.optimizer.iterations)

    check_alike(guide)
