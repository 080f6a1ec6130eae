"""Three inputs, two outputs: rank support tickets by priority and send them to the right department.

The model is that of Keras' guide. The tickets are made up, but not at random: each department has words of its own,
and a ticket is urgent if it carries the first tag or the word "outage".
"""

from __future__ import annotations

import numpy as np

from torchfunc import Input, Model, layers, losses, metrics, optimizers, utils

NUM_TAGS = 12
NUM_WORDS = 10_000
NUM_DEPARTMENTS = 4
OUTAGE = 1  # the number of a word


def build_model() -> Model:
    """Draw the model: title and body through an LSTM each, joined with the tags; one head for each question."""
    title = Input(shape=(None,), name="title")  # word numbers; as many words as there are
    body = Input(shape=(None,), name="body")
    tags = Input(shape=(NUM_TAGS,), name="tags")  # 1 for each tag the ticket carries

    title_features = layers.LSTM(128)(layers.Embedding(NUM_WORDS, 64)(title))
    body_features = layers.LSTM(32)(layers.Embedding(NUM_WORDS, 64)(body))
    x = layers.concatenate([title_features, body_features, tags])
    priority = layers.Dense(1, name="priority")(x)
    department = layers.Dense(NUM_DEPARTMENTS, name="department")(x)
    return Model([title, body, tags], {"priority": priority, "department": department}, name="tickets")


def make_tickets(count: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Tickets and the right answers to them."""
    random = np.random.default_rng(0)
    department = random.integers(NUM_DEPARTMENTS, size=count)
    first_word = 2 + 20 * department[:, None]  # each department's tickets are about twenty words
    title = first_word + random.integers(20, size=(count, 12))
    body = first_word + random.integers(20, size=(count, 40))
    title[random.random(count) < 0.3, -1] = OUTAGE
    tags = random.integers(2, size=(count, NUM_TAGS)).astype("float32")
    urgent = (tags[:, 0] == 1) | (title == OUTAGE).any(axis=1)
    answers = {
        "priority": urgent.astype("float32")[:, None],
        "department": np.eye(NUM_DEPARTMENTS, dtype="float32")[department],
    }
    return {"title": title, "body": body, "tags": tags}, answers


def main(count: int = 1280, epochs: int = 5) -> dict[str, float]:
    """Return the losses and metrics on tickets the model was not trained on."""
    utils.set_random_seed(0)
    tickets, answers = make_tickets(count)
    model = build_model()
    model.summary()

    model.compile(
        optimizer=optimizers.RMSprop(1e-2),
        loss={
            "priority": losses.BinaryCrossentropy(from_logits=True),
            "department": losses.CategoricalCrossentropy(from_logits=True),
        },
        loss_weights={"priority": 1.0, "department": 0.2},
        metrics={"priority": metrics.BinaryAccuracy(threshold=0.0), "department": "accuracy"},
    )
    history = model.fit(tickets, answers, epochs=epochs, batch_size=32, validation_split=0.2)
    logs = {name: values[-1] for name, values in history.history.items()}
    print(f"\nUnseen tickets sent to the right department: {logs['val_department_accuracy']:.1%}")
    print(f"Unseen tickets with the right priority:      {logs['val_priority_binary_accuracy']:.1%}")
    return logs


if __name__ == "__main__":
    main()
