"""The first model, drawn twice: as a row of layers and as a graph. Then the graph is used as a layer itself."""

import numpy as np
from sklearn.datasets import load_digits

from torchfunc import Input, Model, Sequential, layers, utils

utils.set_random_seed(0)
images, digits = load_digits(return_X_y=True)  # 1,797 digits, 64 pixels each
targets = utils.to_categorical(digits, 10)

row = Sequential()
row.add(layers.Dense(32, activation="relu", input_shape=(64,)))
row.add(layers.Dense(32, activation="relu"))
row.add(layers.Dense(10, activation="softmax"))

pixels = Input(shape=(64,))
x = layers.Dense(32, activation="relu")(pixels)
x = layers.Dense(32, activation="relu")(x)
classes = layers.Dense(10, activation="softmax")(x)
graph = Model(pixels, classes)
print("Parameters:", row.count_params(), "and", graph.count_params())

graph.set_weights(row.get_weights())
for model in (row, graph):
    utils.set_random_seed(1)  # the same batches
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(images / 16, targets, epochs=2, verbose=0)
same = np.allclose(row.predict(images / 16, verbose=0), graph.predict(images / 16, verbose=0), atol=1e-5)
print("Trained alike, they predict the same:", same)

# A model is a layer. So a model of one image makes a model of a film: it is called on each picture.
film = Input(shape=(20, 64))
film_classes = layers.TimeDistributed(graph)(film)
film_model = Model(film, film_classes)
print("A film of 20 pictures gives", film_model.predict(images[:20][None] / 16, verbose=0).shape)
print("It has no weights of its own:", film_model.count_params() == graph.count_params())
