"""An evaluation within a training does not count in its numbers, nor one metric for two outputs."""

import numpy as np
import pytest
import torchmetrics

from torchfunc import Input, Model, callbacks, layers, metrics, optimizers

X, Y = np.ones((8, 3), "float32"), np.zeros((8, 1), "float32")


class Within(callbacks.Callback):
    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.run(self.model)


RUNS = {
    "evaluate": lambda model: model.evaluate(X, Y + 1000, verbose=0),
    "test_on_batch": lambda model: model.test_on_batch(X, Y + 1000),
    "train_on_batch": lambda model: model.train_on_batch(X, Y + 1000),
    "predict": lambda model: model.predict(X, verbose=0),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_in_a_batch_hook(run):
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1)(inputs))
    given = ["mae", torchmetrics.MeanSquaredError()]
    model.compile(optimizers.SGD(0.0), "mse", metrics=given, jit_compile=False)
    history = model.fit(X, Y, batch_size=2, verbose=0, callbacks=[Within(RUNS[run])]).history
    predicted = model.predict(X, verbose=0)
    assert history["loss"][0] == pytest.approx((predicted**2).mean(), rel=1e-5)
    assert history["mae"][0] == pytest.approx(abs(predicted).mean(), rel=1e-5)
    assert history["mean_squared_error"][0] == pytest.approx((predicted**2).mean(), rel=1e-5)


@pytest.mark.parametrize("make", [metrics.MeanAbsoluteError, torchmetrics.MeanSquaredError])
def test_one_metric_object_given_twice(make):
    inputs = Input((3,))
    model = Model(inputs, [layers.Dense(1, name="a")(inputs), layers.Dense(1, name="b")(inputs)])
    one = make()
    with pytest.raises(ValueError, match="is given twice"):
        model.compile("sgd", "mse", metrics=[[one], [one]])
    with pytest.raises(ValueError, match="is given twice"):
        model.compile("sgd", "mse", metrics=[[one], []], weighted_metrics=[[], [one]])
    model.compile("sgd", "mse", metrics=[[one], [make()]])
