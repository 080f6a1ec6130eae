"""An ensemble: three models in one, which answers with the mean of their answers."""

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import scale

from torchfunc import Input, Model, layers, optimizers, utils

utils.set_random_seed(0)
x, y = load_diabetes(return_X_y=True)
x, y = scale(x), scale(y)[:, None]


def train_model() -> Model:
    inputs = Input(shape=(10,))
    hidden = layers.Dense(8, activation="tanh")(inputs)
    model = Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizers.Adam(0.01), "mse")
    model.fit(x[:300], y[:300], epochs=5, verbose=0)
    return model


models = [train_model() for _ in range(3)]
inputs = Input(shape=(10,))
ensemble = Model(inputs, layers.average([model(inputs) for model in models]))
ensemble.compile(loss="mse")  # it is there to predict

print(f"Parameters: {models[0].count_params()} each, {ensemble.count_params()} in all")
alone = [model.evaluate(x[300:], y[300:], verbose=0) for model in models]
together = ensemble.evaluate(x[300:], y[300:], verbose=0)
print("Errors differ:", len(set(alone)) == 3)
print("The mean's error is less than the mean error:", together < np.mean(alone))  # as for any convex loss
