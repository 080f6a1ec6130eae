"""What an import, and a model of our own layers, bring along: not torch's compiler, which alone takes seconds."""

import subprocess
import sys

PROGRAM = """
import sys
import numpy as np
import torchfunc
from torchfunc import layers

inputs = layers.Input((6, 3))
hidden = layers.LSTM(4, return_sequences=True)(inputs)
hidden = layers.Dropout(0.5)(layers.Conv1D(2, 3)(layers.BatchNormalization()(hidden)))
model = torchfunc.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(hidden)))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(np.ones((8, 6, 3)), np.zeros(8), verbose=0)
model.predict(np.ones((8, 6, 3)), verbose=0)
heavy = {"torch._dynamo", "torch._inductor", "torchmetrics", "pandas", "matplotlib", "tensorboard", "keras"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_compiler_is_not_imported():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
