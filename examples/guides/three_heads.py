"""Age, income and gender from what somebody writes: one trunk, three heads, a loss for each kind of answer.

The posts are made up of word numbers; each answer moves some words up the scale. The losses are of different sizes, so
each gets a weight.
"""

import numpy as np

from torchfunc import Input, Model, layers, utils

NUM_WORDS, INCOME_GROUPS = 1000, 10

utils.set_random_seed(0)
posts = Input(shape=(None,), dtype="int32", name="posts")
x = layers.Embedding(NUM_WORDS, 32)(posts)
x = layers.Conv1D(32, 5, activation="relu")(x)
x = layers.MaxPooling1D(5)(x)
x = layers.Conv1D(64, 5, activation="relu")(x)
x = layers.GlobalMaxPooling1D()(x)
x = layers.Dense(32, activation="relu")(x)
age = layers.Dense(1, name="age")(x)
income = layers.Dense(INCOME_GROUPS, activation="softmax", name="income")(x)
gender = layers.Dense(1, activation="sigmoid", name="gender")(x)
model = Model(posts, [age, income, gender])

random = np.random.default_rng(0)
ages, incomes, genders = random.random(256), random.integers(INCOME_GROUPS, size=256), random.integers(2, size=256)
words = random.integers(100, size=(256, 80)) + (450 * ages + 20 * incomes + 250 * genders).astype(int)[:, None]
answers = {"age": ages, "income": utils.to_categorical(incomes, INCOME_GROUPS), "gender": genders}

model.compile(
    "rmsprop", loss=["mse", "categorical_crossentropy", "binary_crossentropy"], loss_weights=[0.25, 1.0, 10.0]
)
model.fit(words, list(answers.values()), epochs=1, batch_size=64, verbose=0)
model.compile(
    "rmsprop",
    loss={"age": "mse", "income": "categorical_crossentropy", "gender": "binary_crossentropy"},
    loss_weights={"age": 0.25, "income": 1.0, "gender": 10.0},
)
history = model.fit(words, answers, epochs=6, batch_size=64, verbose=0)

logs = {name: values[-1] for name, values in history.history.items()}
print("Logs:", *logs)
total = 0.25 * logs["age_loss"] + logs["income_loss"] + 10 * logs["gender_loss"]
print("The loss is the weighted sum of the three:", np.isclose(logs["loss"], total, rtol=1e-4))
print("It learns:", history.history["loss"][-1] < history.history["loss"][0])
print("Predictions:", *(values.shape for values in model.predict(words, verbose=0)))
