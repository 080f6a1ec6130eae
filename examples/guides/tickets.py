"""Tickets of a help desk: three inputs, two of them text of any length; one output says how urgent, one who answers.

Losses go in the order of the outputs or by their names. `../multi_input_output.py` trains such a model to be of use.
"""

import numpy as np

from torchfunc import Input, Model, layers, losses, optimizers, utils

NUM_TAGS, NUM_WORDS, NUM_DEPARTMENTS = 12, 10_000, 4


def build_model() -> Model:
    title = Input(shape=(None,), name="title")
    body = Input(shape=(None,), name="body")
    tags = Input(shape=(NUM_TAGS,), name="tags")
    title_features = layers.LSTM(128)(layers.Embedding(NUM_WORDS, 64)(title))
    body_features = layers.LSTM(32)(layers.Embedding(NUM_WORDS, 64)(body))
    x = layers.concatenate([title_features, body_features, tags])
    priority = layers.Dense(1, name="priority")(x)
    department = layers.Dense(NUM_DEPARTMENTS, name="department")(x)
    return Model([title, body, tags], {"priority": priority, "department": department})


random = np.random.default_rng(0)
tickets = {
    "title": random.integers(NUM_WORDS, size=(64, 12)),
    "body": random.integers(NUM_WORDS, size=(64, 30)),
    "tags": random.integers(2, size=(64, NUM_TAGS)).astype("float32"),
}
answers = {
    "priority": random.random((64, 1)),
    "department": np.eye(NUM_DEPARTMENTS)[random.integers(NUM_DEPARTMENTS, size=64)],
}
urgent, who = losses.BinaryCrossentropy(from_logits=True), losses.CategoricalCrossentropy(from_logits=True)

utils.set_random_seed(0)
start = build_model().get_weights()
found = []
for loss, weights in (
    ([urgent, who], [1.0, 0.2]),
    ({"department": who, "priority": urgent}, {"department": 0.2, "priority": 1.0}),
):
    model = build_model()
    model.set_weights(start)
    model.compile(optimizers.RMSprop(1e-3), loss=loss, loss_weights=weights)
    history = model.fit(tickets, answers, epochs=2, batch_size=32, shuffle=False, verbose=0)
    found.append(history.history["loss"])
print(f"Parameters: {model.count_params():,}")
print("In order or by name, the same loss:", np.allclose(*found, rtol=1e-5))
print("Outputs:", {name: value.shape for name, value in model.predict(tickets, verbose=0).items()})
short = {**tickets, "title": tickets["title"][:, :3]}
print("Shorter titles will do:", model.predict(short, verbose=0)["priority"].shape)
