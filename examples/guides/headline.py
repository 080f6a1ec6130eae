"""How often will a headline be shared? Two inputs, and a second loss early on that trains the LSTM directly.

The headlines are 100 word numbers each, made up: those with many of the first thousand words are shared, most of all
in the evening. What `compile` and `fit` take for several inputs and outputs can be lists or dicts.
"""

import numpy as np

from torchfunc import Input, Model, layers, utils


def build_model() -> Model:
    headline = Input(shape=(100,), dtype="int32", name="main_input")
    words = layers.Embedding(input_dim=10_000, output_dim=512)(headline)
    summary = layers.LSTM(32)(words)
    early = layers.Dense(1, activation="sigmoid", name="aux_output")(summary)

    circumstances = Input(shape=(5,), name="aux_input")
    x = layers.concatenate([summary, circumstances])
    for _ in range(3):
        x = layers.Dense(64, activation="relu")(x)
    late = layers.Dense(1, activation="sigmoid", name="main_output")(x)
    return Model(inputs=[headline, circumstances], outputs=[late, early])


random = np.random.default_rng(0)
liked = random.random(128) < 0.5
headlines = np.where(random.random((128, 100)) < 0.1 + 0.4 * liked[:, None], 0, 9) * 1000 + random.integers(1, 1000)
circumstances = random.random((128, 5))
shared = (liked & (circumstances[:, 0] > 0.3)).astype("float32")

utils.set_random_seed(0)
by_order = build_model()
print(f"Parameters: {by_order.count_params():,}")
by_name = build_model()
by_name.set_weights(by_order.get_weights())

# One loss goes for all outputs; the weights are in the order of the outputs.
by_order.compile("rmsprop", loss="binary_crossentropy", loss_weights=[1.0, 0.2])
history = by_order.fit([headlines, circumstances], [shared, shared], epochs=2, batch_size=32, shuffle=False, verbose=0)
print("Logs:", *history.history)

# The same by name.
by_name.compile(
    "rmsprop",
    loss={"main_output": "binary_crossentropy", "aux_output": "binary_crossentropy"},
    loss_weights={"main_output": 1.0, "aux_output": 0.2},
)
named = by_name.fit(
    {"main_input": headlines, "aux_input": circumstances},
    {"main_output": shared, "aux_output": shared},
    epochs=2,
    batch_size=32,
    shuffle=False,
    verbose=0,
)
print("Lists and dicts train alike:", np.allclose(history.history["loss"], named.history["loss"], rtol=1e-4))
late, early = by_order.predict([headlines, circumstances], verbose=0)
print("Predictions:", late.shape, early.shape)
