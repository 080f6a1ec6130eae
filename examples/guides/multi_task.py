"""Two inputs, two tasks: from the left and the right half of a digit, is it even, and which is it?"""

import numpy as np
from sklearn.datasets import load_digits

from torchfunc import Input, Model, layers, utils

utils.set_random_seed(0)
data = load_digits()
left, right = (data.images[..., half].reshape(-1, 32) / 16 for half in (slice(0, 4), slice(4, 8)))
is_even = (data.target % 2 == 0).astype("float32")[:, None]
which = utils.to_categorical(data.target, 10)

x_in = Input(shape=(32,), name="x_in")
y_in = Input(shape=(32,), name="y_in")
x = layers.Dense(64, activation="relu")(x_in)
y = layers.Dense(64, activation="relu")(y_in)
z = layers.concatenate([x, y])
share_of_even = layers.Dense(1, activation="sigmoid", name="x_out")(z)
shares_of_digits = layers.Dense(10, activation="softmax", name="y_out")(z)
model = Model(inputs=[x_in, y_in], outputs=[share_of_even, shares_of_digits])

model.compile("rmsprop", loss=["binary_crossentropy", "categorical_crossentropy"], loss_weights=[1.0, 0.2])
model.fit([left, right], [is_even, which], epochs=5, verbose=0)

# The same by the names of inputs and outputs; training goes on.
model.compile(
    "rmsprop",
    loss={"x_out": "binary_crossentropy", "y_out": "categorical_crossentropy"},
    loss_weights={"x_out": 1.0, "y_out": 0.2},
    metrics={"x_out": "accuracy", "y_out": "accuracy"},
)
history = model.fit({"x_in": left, "y_in": right}, {"x_out": is_even, "y_out": which}, epochs=5, verbose=0)
print("Logs:", *history.history)
print("Both are learnt:", history.history["x_out_accuracy"][-1] > 0.85, history.history["y_out_accuracy"][-1] > 0.85)

# A layer that is called on its own output is still one layer.
inputs = Input(shape=(64,))
shared = layers.Dense(64, activation="relu")
twice = Model(inputs, layers.Dense(10, activation="softmax")(shared(shared(inputs))))
print("Called twice, counted once:", twice.count_params() == 64 * 64 + 64 + 64 * 10 + 10)
print("Shares of a digit:", np.round(model.predict([left[:1], right[:1]], verbose=0)[1].sum(), 4))
