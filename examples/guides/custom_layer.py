"""A layer of one's own, and how a model with it goes through a config and a file."""

import tempfile
from pathlib import Path

import numpy as np

from torchfunc import Input, Model, layers, ops, utils
from torchfunc.models import load_model


class CustomDense(layers.Layer):
    """What `layers.Dense` does, in short."""

    def __init__(self, units=32, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="random_normal", trainable=True)
        self.b = self.add_weight(shape=(self.units,), initializer="random_normal", trainable=True)

    def call(self, inputs):
        return ops.matmul(inputs, self.w) + self.b

    def get_config(self):  # what __init__ takes
        return {**super().get_config(), "units": self.units}


utils.set_random_seed(0)
inputs = Input((4,))
model = Model(inputs, CustomDense(10)(inputs))
print("Weights:", {name: tuple(weight.shape) for name, weight in model.state_dict().items()})

# A config is the architecture, without weights. Who reads it says what the class is.
config = model.get_config()
copy = Model.from_config(config, custom_objects={"CustomDense": CustomDense})
copy.set_weights(model.get_weights())
x = np.random.random((3, 4)).astype("float32")
print("From its config and its weights:", np.array_equal(model.predict(x, verbose=0), copy.predict(x, verbose=0)))

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.keras"
    model.save(path)
    loaded = load_model(path, custom_objects={"CustomDense": CustomDense})
print("From a file:", np.array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0)))
