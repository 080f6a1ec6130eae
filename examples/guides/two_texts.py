"""Are two texts by the same hand? One LSTM reads both, character by character.

The texts are pieces of what scikit-learn writes about two of its data sets.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes

from torchfunc import Input, Model, layers, optimizers, utils

LENGTH, ALPHABET = 40, 256


def pieces(text: str, count: int, random: np.random.Generator) -> np.ndarray:
    """Parts of the text as (count, LENGTH, ALPHABET): a 1 for the character at each place."""
    codes = np.frombuffer(text.encode("latin-1", "replace"), "uint8")
    starts = random.integers(len(codes) - LENGTH, size=count)
    return np.eye(ALPHABET, dtype="float32")[codes[starts[:, None] + np.arange(LENGTH)]]


random = np.random.default_rng(0)
texts = np.stack([pieces(load().DESCR, 400, random) for load in (load_breast_cancer, load_diabetes)])
hand_a, hand_b = random.integers(2, size=(2, 400))
texts_a, texts_b = texts[hand_a, np.arange(400)], texts[hand_b, random.permutation(400)]
same_hand = (hand_a == hand_b).astype("float32")

utils.set_random_seed(0)
text_a = Input(shape=(LENGTH, ALPHABET), name="text_a")
text_b = Input(shape=(LENGTH, ALPHABET), name="text_b")
reader = layers.LSTM(64, name="reader")
encoded_a = reader(text_a)  # the same layer, the same weights
encoded_b = reader(text_b)
merged = layers.concatenate([encoded_a, encoded_b], axis=-1)
answer = layers.Dense(1, activation="sigmoid", name="answer")(merged)
model = Model([text_a, text_b], answer)

print("Weights:", *model.state_dict())
print(f"The LSTM is counted once: {reader.count_params():,} of {model.count_params():,} parameters")
model.compile(optimizers.RMSprop(3e-3), "binary_crossentropy", metrics=["accuracy"])
history = model.fit([texts_a, texts_b], same_hand, epochs=6, verbose=0)
print("It learns:", history.history["loss"][-1] < history.history["loss"][0])

swapped = Model([text_b, text_a], answer)  # the same graph, its inputs in another order
predictions = model.predict([texts_a, texts_b], verbose=0)
print("The order of inputs is the model's:", np.allclose(predictions, swapped.predict([texts_b, texts_a], verbose=0)))
