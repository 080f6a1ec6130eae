"""Runs of one model on several threads: each counts for itself, and none enters a training beside it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchmetrics

from torchfunc import Input, Model, callbacks, layers, metrics, optimizers

THREADS, CALLS = 8, 80
ROWS = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")


def drawn(*stack, outputs=1):
    inputs = value = Input((5,))
    for layer in stack:
        value = layer(value)
    heads = [layers.Dense(1, name=f"head_{number}")(value) for number in range(outputs)]
    return Model(inputs, heads[0] if outputs == 1 else heads)


class Subclassed(Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


class OwnStep(Subclassed):
    def test_step(self, data):
        return {name: value * 1 for name, value in super().test_step(data).items()}


class OwnLoss(Subclassed):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight, training) * 2


MODELS = {
    "one output": lambda: (
        drawn(layers.Dropout(0.5)),
        ["mae", metrics.MeanSquaredError(), torchmetrics.MeanSquaredError()],
    ),
    "two outputs": lambda: (drawn(layers.Dropout(0.5), outputs=2), [["mae"], ["mse", metrics.RootMeanSquaredError()]]),
    "activity": lambda: (drawn(layers.Dense(4, activity_regularizer="l2")), ["mae"]),
    "subclassed": lambda: (Subclassed(), ["mae", metrics.MeanSquaredError()]),
    "own step": lambda: (OwnStep(), ["mae"]),
    "own loss": lambda: (OwnLoss(), ["mae"]),
}


def compiled(kind):
    torch.manual_seed(0)
    model, given = MODELS[kind]()
    model(ROWS)
    model.compile(optimizers.SGD(0.0), "mse", metrics=given, jit_compile=False)
    return model


def data(number):
    """Rows and targets that no other call has."""
    rows = ROWS[: 8 + number % 9] * (1 + number % 5)
    return rows, np.full((len(rows), 1), float(number), "float32")


def evaluated(model, number):
    rows, target = data(number)
    y = [target, target] if len(model.output_names or ()) == 2 else target
    if number % 4 == 3:
        return model.test_on_batch(rows, y, return_dict=True)
    return model.evaluate(rows, y, batch_size=5, verbose=0, return_dict=True)


def in_threads(function, calls=CALLS):
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, range(calls)))


@pytest.mark.parametrize("kind", MODELS)
def test_evaluations_in_threads(kind):
    model = compiled(kind)
    results = in_threads(lambda number: evaluated(model, number))
    for number, result in enumerate(results):
        assert result == pytest.approx(evaluated(model, number), rel=1e-4), number


@pytest.mark.parametrize("kind", ["two outputs", "activity", "own step", "own loss"])
def test_evaluations_and_predictions_beside_a_fit(kind):
    """The history is that of a fit that nothing disturbs, and the evaluations are those of the model alone."""

    def fit(model):
        rows, target = np.tile(ROWS, (4, 1)), np.ones((96, 1), "float32")
        y = [target, target] if kind == "two outputs" else target
        torch.manual_seed(1)
        return model.fit(rows, y, batch_size=8, epochs=6, shuffle=False, verbose=0).history

    # (Dropout would draw from the generator that all threads share.)
    def without_dropout():
        model = compiled(kind)
        for module in model.modules():
            if isinstance(module, layers.Dropout):
                module.rate = 0.0
        return model

    model = without_dropout()
    alone = [evaluated(model, number) for number in range(CALLS)]
    expected, done, beside = fit(without_dropout()), threading.Event(), []

    def disturb(number):
        while not done.is_set():
            place = number % CALLS
            beside.append((place, evaluated(model, place)))
            model.predict(ROWS, verbose=0)
            number += 1

    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(disturb, 20 * number) for number in range(4)]
        try:
            history = fit(model)
        finally:
            done.set()
        for task in tasks:
            task.result()
    assert history.keys() == expected.keys()
    for name, values in history.items():
        assert values == pytest.approx(expected[name], rel=1e-4), name
    assert beside
    for place, result in beside:
        assert result == pytest.approx(alone[place], rel=1e-4)


def test_what_calls_add_to_the_loss_stays_on_their_thread():
    class Adding(layers.Layer):
        def call(self, inputs):
            self.add_loss(inputs.sum())
            return inputs

    layer = Adding()
    layer(torch.ones(2, 2))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (layer(torch.ones(3, 3)), [float(loss) for loss in layer.losses])[1]).result() == [9]
    assert [float(loss) for loss in layer.losses] == [4]
    layer.clear_losses()
    assert layer.losses == []


class Stopping(callbacks.Callback):
    """Ends its own run after the first batch, when the other run is under way."""

    def __init__(self, barrier, kind, stops):
        super().__init__()
        self.barrier, self.kind, self.stops, self.seen = barrier, kind, stops, 0

    def on_test_batch_end(self, batch, logs=None):
        self.seen += 1
        if batch == 0:
            self.barrier.wait(timeout=60)
            if self.stops:
                setattr(self.model, self.kind, True)
            self.barrier.wait(timeout=60)

    on_predict_batch_end = on_test_batch_end


@pytest.mark.parametrize(("method", "kind"), [("evaluate", "stop_evaluating"), ("predict", "stop_predicting")])
def test_a_callback_stops_the_run_that_it_belongs_to(method, kind):
    model, barrier = compiled("one output"), threading.Barrier(2)
    watching = [Stopping(barrier, kind, stops) for stops in (True, False)]

    def run(callback):
        given = (ROWS,) if method == "predict" else (ROWS, np.ones((24, 1)))
        return getattr(model, method)(*given, batch_size=4, verbose=0, callbacks=[callback])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, watching)
    assert [callback.seen for callback in watching] == [1, 6]
    if method == "predict":
        assert (len(first), len(second)) == (4, 24)


def test_a_thread_without_a_run_stops_all():
    model, begun = compiled("one output"), threading.Event()

    class Beginning(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            begun.set()
            stopped.wait(timeout=60)

    stopped = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(model.fit, ROWS, np.ones((24, 1)), epochs=5, verbose=0, callbacks=[Beginning()])
        assert begun.wait(timeout=60)
        model.stop_training = True
        stopped.set()
        assert len(run.result().epoch) == 1
    assert model.stop_training
    model.fit(ROWS, np.ones((24, 1)), epochs=2, verbose=0)
    assert not model.stop_training


def beside_an_evaluation(model, function):
    """What the function gives on another thread, in the middle of an evaluation of the model."""

    class Calling(callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            if batch == 0:
                with ThreadPoolExecutor(1) as pool:
                    results.append(pool.submit(function).result())

    results = []
    rows, target = data(1)
    logs = model.evaluate(rows, target, batch_size=4, verbose=0, return_dict=True, callbacks=[Calling()])
    assert logs == pytest.approx(model.evaluate(rows, target, batch_size=4, verbose=0, return_dict=True))
    return results[0]


def test_a_fit_beside_an_evaluation():
    model = compiled("one output")
    history = beside_an_evaluation(model, lambda: model.fit(ROWS, np.ones((24, 1)), verbose=0).history)
    assert model.metrics[0].name == "loss"
    assert np.isfinite(history["loss"]).all()


def test_metrics_that_cannot_be_copied_are_named():
    class Locked(metrics.MeanSquaredError):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

    model = drawn()
    model.compile("sgd", "mse", metrics=[Locked()], jit_compile=False)
    with pytest.raises(ValueError, match=r"cannot be copied.*lock"):
        beside_an_evaluation(model, lambda: model.evaluate(ROWS, np.ones((24, 1)), verbose=0))


def test_metrics_among_the_attributes_count_for_all_threads():
    class Own(Subclassed):
        def __init__(self):
            super().__init__()
            self.own = metrics.Mean(name="own")

        def test_step(self, data):
            self.own.update_state(1.0)
            return super().test_step(data)

    model = Own()
    model(ROWS)
    model.compile("sgd", "mse", jit_compile=False)

    def evaluate():
        with pytest.warns(UserWarning, match="attributes of the model count for all together"):
            model.evaluate(ROWS, np.ones((24, 1)), verbose=0)

    beside_an_evaluation(model, evaluate)


def test_the_first_batches_build_a_model_once():
    model = Subclassed()
    results = in_threads(lambda _: model.predict(ROWS, verbose=0), 8)
    for result in results:
        np.testing.assert_array_equal(result, results[0])
