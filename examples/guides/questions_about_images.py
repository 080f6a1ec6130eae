"""Answers to questions about a picture, and then about a film.

The pictures are handwritten digits. A question is a row of word numbers, the answer one of twelve words: the ten
digits, yes and no.
"""

import numpy as np
from sklearn.datasets import load_digits

from torchfunc import Input, Model, Sequential, layers, optimizers, utils

QUESTIONS = ["which digit is it", "is it even", "is it more than four"]
WORDS = ["", *sorted({word for question in QUESTIONS for word in question.split()})]
ANSWERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "no", "yes"]
asked = utils.pad_sequences([[WORDS.index(word) for word in question.split()] for question in QUESTIONS], maxlen=5)

utils.set_random_seed(0)
vision = Sequential(name="vision")
vision.add(layers.Conv2D(32, (3, 3), activation="relu", padding="same", input_shape=(8, 8, 1)))
vision.add(layers.Conv2D(32, (3, 3), activation="relu"))
vision.add(layers.MaxPooling2D((2, 2)))
vision.add(layers.Flatten())

image = Input(shape=(8, 8, 1), name="image")
question = Input(shape=(5,), dtype="int32", name="question")
encoded_image = vision(image)
encoded_question = layers.LSTM(32)(layers.Embedding(len(WORDS), 16)(question))
x = layers.concatenate([encoded_question, encoded_image])
x = layers.Dense(64, activation="relu")(x)
answer = layers.Dense(len(ANSWERS), activation="softmax")(x)
about_images = Model([image, question], answer)

data = load_digits()
images = (data.images / 16)[..., None]
which = np.random.default_rng(0).integers(3, size=len(images))
right_answers = np.stack([data.target, 10 + (data.target % 2 == 0), 10 + (data.target > 4)])  # of each question
answers = right_answers[which, np.arange(len(images))]
about_images.compile(optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
about_images.fit([images[:1500], asked[which[:1500]]], answers[:1500], epochs=20, verbose=0)
_, accuracy = about_images.evaluate([images[1500:], asked[which[1500:]]], answers[1500:], verbose=0)
print("Five of six answers about unseen pictures are right:", accuracy > 5 / 6)
three_times = np.repeat(images[-1:], 3, axis=0)
for text, shares in zip(QUESTIONS, about_images.predict([three_times, asked], verbose=0), strict=True):
    print(f"{text}? {ANSWERS[shares.argmax()]}")

# The trained parts make a model for films: the vision sees each picture, and the questions are encoded as they were.
film = Input(shape=(None, 8, 8, 1), name="film")
film_question = Input(shape=(5,), dtype="int32", name="film_question")
encoded_film = layers.LSTM(64)(layers.TimeDistributed(vision)(film))
question_encoder = Model(question, encoded_question, name="question_encoder")
x = layers.concatenate([encoded_film, question_encoder(film_question)])
about_films = Model([film, film_question], layers.Dense(len(ANSWERS), activation="softmax")(x))
print("About films of 6 and 9 pictures:", *(tuple(about_films(images[None, :n], asked[:1]).shape) for n in (6, 9)))
kernel = vision.layers[0].weight
print(
    "Both models see with the same weights:",
    all(any(w is kernel for w in m.weights) for m in (about_images, about_films)),
)
