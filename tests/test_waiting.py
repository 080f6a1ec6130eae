"""The running loop never waits for the device: values are read back where an epoch's logs are, and nowhere else."""

import contextlib

import numpy as np
import pytest
import torch
from no_reading import Readings
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Input, Model, callbacks, layers, losses, metrics, optimizers, schedules

ROWS = 400
X = np.random.default_rng(0).standard_normal((ROWS, 5)).astype("float32")
KIND = X[:, :3].argmax(1)
ONE_HOT = np.eye(3, dtype="float32")[KIND]
VALUE = X[:, :1] ** 2
WORDS = np.where(X[:, :4] > 0, 3 + KIND[:, None], 0)
TAGS = WORDS % 3
WEIGHT = np.abs(X[:, 0])


def classifier(**settings):
    inputs = Input((5,))
    hidden = layers.Dense(8, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm")(inputs)
    hidden = layers.Dropout(0.1, seed=1)(layers.BatchNormalization()(hidden))
    model = Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile(
        **{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **settings}
    )
    return model


def two_headed():
    inputs = Input((5,))
    hidden = layers.Dense(4, activation="tanh")(inputs)
    heads = {"value": layers.Dense(1)(hidden), "kind": layers.Dense(3, activation="sigmoid")(hidden)}
    model = Model(inputs, heads)
    model.compile(
        "rmsprop",
        {"value": losses.Huber(), "kind": "binary_crossentropy"},
        loss_weights={"value": 0.3},
        metrics={"value": ["mae", metrics.RootMeanSquaredError(), metrics.R2Score()], "kind": [metrics.AUC()]},
        weighted_metrics={"kind": [metrics.Precision(), metrics.Recall(), metrics.F1Score(), "acc"]},
    )
    return model


def tagger(layer):
    words = Input((4,), dtype="int64")
    x = layers.Embedding(9, 3, mask_zero=True)(words)
    model = Model(words, layers.Dense(3, activation="softmax")(layer(x)))
    entropy = "sparse_categorical_crossentropy"
    model.compile(
        "sgd",
        entropy,
        metrics=["accuracy"],
        weighted_metrics=[entropy, metrics.MeanIoU(3, sparse_y_pred=False, dtype="float32")],
    )
    return model


RUNS = {
    "no metrics": lambda: (classifier(metrics=None), X, KIND, {}),
    "class weights": lambda: (classifier(weighted_metrics=["acc"]), X, KIND, {"class_weight": {0: 2.0}}),
    "one-hot": lambda: (
        classifier(loss="categorical_crossentropy", metrics=["acc", "top_k_categorical_accuracy"]),
        X,
        ONE_HOT,
        {},
    ),
    "two outputs": lambda: (two_headed(), X, {"value": VALUE, "kind": ONE_HOT}, {"sample_weight": WEIGHT}),
    "masks": lambda: (tagger(layers.Dense(3)), WORDS, TAGS, {"sample_weight": WEIGHT}),
    "masked LSTM": lambda: (tagger(layers.LSTM(3, return_sequences=True)), WORDS, TAGS, {}),
    "masked attention": lambda: (tagger(lambda x: layers.MultiHeadAttention(1, 2)(x, x)), WORDS, TAGS, {}),
    "clipped": lambda: (classifier(optimizer=optimizers.AdamW(clipnorm=1.0)), X, KIND, {}),
    "clipped globally": lambda: (classifier(optimizer=optimizers.Adam(global_clipnorm=1.0)), X, KIND, {}),
    "averaged": lambda: (classifier(optimizer=optimizers.SGD(use_ema=True, ema_overwrite_frequency=3)), X, KIND, {}),
    "accumulated": lambda: (classifier(optimizer=optimizers.Adam(gradient_accumulation_steps=3)), X, KIND, {}),
    "schedule": lambda: (
        classifier(optimizer=optimizers.Adam(schedules.CosineDecay(0.1, 30, warmup_steps=4))),
        X,
        KIND,
        {},
    ),
    "scaled loss": lambda: (classifier(optimizer=optimizers.LossScaleOptimizer(optimizers.Adam())), X, KIND, {}),
    "torch's own": lambda: (classifier(optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)), X, KIND, {}),
    "several at once": lambda: (classifier(steps_per_execution=3), X, KIND, {}),
    **{
        name: lambda name=name: (classifier(optimizer=name), X, KIND, {})
        for name in ["sgd", "adamax", "nadam", "adagrad", "adadelta", "adafactor", "muon", "lion", "lamb", "ftrl"]
    },
}


def first(part, rows):
    return {key: value[:rows] for key, value in part.items()} if isinstance(part, dict) else part[:rows]


@contextlib.contextmanager
def reads(expected):
    """Values are read back so many times in this block."""
    with Readings() as readings:
        yield
    found = readings.count
    # The targets that the user gives are looked at once, on the host; `.cpu()` is followed by `.numpy()`.
    assert found["tolist"] <= 2
    assert sum(found.values()) - found["tolist"] - found["cpu"] == expected, found


# The beginning of `fit` asks for the number of steps so far.
AT_BEGIN = 1


@pytest.mark.parametrize("name", RUNS)
def test_only_logs_are_read(name):
    model, x, y, options = RUNS[name]()
    x, y, rows, epochs = first(x, 30), first(y, 30), 30, 2
    options = {key: value[:rows] if key == "sample_weight" else value for key, value in options.items()}
    logs = len(model.fit(x, y, batch_size=4, verbose=0, **options).history)
    with reads(AT_BEGIN + 2 * logs * epochs):
        model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, validation_data=(x, y), **options)
    with reads(logs):
        model.evaluate(x, y, batch_size=4, verbose=0)
    with reads(len(model.outputs)):
        model.predict(x, batch_size=4, verbose=0)


def test_a_thousand_steps():
    inputs = Input((5,))
    model = Model(inputs, layers.Dense(3, activation="softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = np.tile(X, (5, 1)), np.tile(KIND, 5)
    with reads(AT_BEGIN + 2):
        model.fit(x, y, batch_size=2, verbose=0)
    with reads(2):
        model.evaluate(x, y, batch_size=2, verbose=0)
    with reads(1):
        model.predict(x, batch_size=2, verbose=0)


def test_a_loader():
    # (Of class indices, each batch is looked at while it is on the host.)
    model = classifier(loss="categorical_crossentropy")
    data = DataLoader(TensorDataset(torch.from_numpy(X[:20]), torch.from_numpy(ONE_HOT[:20])), batch_size=4)
    # A loader draws a seed each epoch.
    with reads(AT_BEGIN + 2 * (2 + 1)):
        model.fit(data, epochs=2, verbose=0)
    with reads(2 + 1):
        model.evaluate(data, verbose=0)


@pytest.mark.cuda
@pytest.mark.parametrize("name", RUNS)
def test_nothing_waits_on_cuda(name):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model, x, y, options = RUNS[name]()
    model.fit(x, y, batch_size=4, verbose=0, **options)

    class Watch(callbacks.Callback):
        # Else each batch's logs would be read.
        defers_logs = True

        def on_train_batch_end(self, batch, logs=None):
            # From the second batch to the last but one: what comes before and after may wait.
            torch.cuda.set_sync_debug_mode("error" if batch < 98 else "default")

        on_test_batch_end = on_predict_batch_end = on_train_batch_end

    try:
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[Watch()], **options)
        model.evaluate(x, y, batch_size=4, verbose=0, callbacks=[Watch()])
        model.predict(x, batch_size=4, verbose=0, callbacks=[Watch()])
    finally:
        torch.cuda.set_sync_debug_mode("default")
