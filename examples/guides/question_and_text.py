"""A question about a text: each is read by a branch of its own, and the answer is one word.

The texts are made up: three people, each of whom is somewhere; the question asks where one of them is.
"""

import numpy as np

from torchfunc import Input, Model, layers, optimizers, utils

PEOPLE, PLACES = ["john", "mary", "sandra"], ["garden", "kitchen", "office", "hall"]
WORDS = ["", "where", "is", *PEOPLE, *PLACES]

random = np.random.default_rng(0)
where = random.integers(len(PLACES), size=(1000, 3))
who = random.integers(3, size=1000)
place_words = where + WORDS.index(PLACES[0])
person_words = np.broadcast_to(np.arange(3) + WORDS.index(PEOPLE[0]), (1000, 3))
text = np.stack([person_words, place_words], axis=-1).reshape(1000, 6)  # john garden mary hall sandra garden
question = np.stack([np.full(1000, 1), np.full(1000, 2), WORDS.index(PEOPLE[0]) + who], axis=-1)  # where is mary
answers = utils.to_categorical(where[np.arange(1000), who], len(PLACES))

utils.set_random_seed(0)
text_input = Input(shape=(None,), dtype="int32", name="text")
encoded_text = layers.LSTM(32)(layers.Embedding(len(WORDS), 64)(text_input))
question_input = Input(shape=(None,), dtype="int32", name="question")
encoded_question = layers.LSTM(16)(layers.Embedding(len(WORDS), 32)(question_input))
both = layers.concatenate([encoded_text, encoded_question], axis=-1)
x = layers.Dense(64, activation="relu")(both)
answer = layers.Dense(len(PLACES), activation="softmax")(x)
model = Model([text_input, question_input], answer)

model.compile(optimizers.RMSprop(5e-3), "categorical_crossentropy", metrics=["acc"])
model.fit([text[:900], question[:900]], answers[:900], epochs=10, batch_size=32, verbose=0)
model.fit({"question": question[:900], "text": text[:900]}, answers[:900], epochs=10, batch_size=32, verbose=0)
_, accuracy = model.evaluate([text[900:], question[900:]], answers[900:], verbose=0)
print("Far more right than a guess:", accuracy > 0.5)
shares = model.predict([text[:1], question[:1]], verbose=0)[0]
print(" ".join(WORDS[word] for word in text[0]), "-", " ".join(WORDS[word] for word in question[0]), "?")
print("An answer has a share for each place, in all:", round(float(shares.sum()), 4))
