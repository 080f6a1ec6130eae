"""A run in a process of its own: training goes on eagerly while another process prepares its graph, and switches.

It raises AssertionError if this process made the graph once more, or if the numbers are not those of eager steps.
"""

import time

import numpy as np
import torch
from torch._dynamo.utils import counters

from torchfunc import callbacks, config, layers, regularizers
from torchfunc.models import Model

BATCH = 8
RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((64, 6)), RNG.integers(0, 3, 64)
# A number that no graph on disk has yet.
PENALTY = float(np.random.default_rng().random())


class Switches(callbacks.Callback):
    """Waits for the graph, and ends the training nine steps after it was taken."""

    steps = after = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.after += sum(step.graphs for step in self.model._training_settings.graphs["train_step"].values())
        self.model.stop_training = self.after == 9
        if not self.after:
            time.sleep(0.05)


def make(jit_compile):
    torch.manual_seed(0)
    inputs = layers.Input((6,))
    x = layers.Dense(4, kernel_regularizer=regularizers.L2(PENALTY))(layers.Dropout(0.5)(inputs))
    model = Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile)
    torch.manual_seed(1)
    return model


def main():
    config.set_floatx("float64")
    switched, switches = make(True), Switches()
    switched.fit(X, LABELS, BATCH, epochs=10_000, shuffle=False, verbose=0, callbacks=[switches])
    assert switches.steps > 14
    assert counters["aot_autograd"]["autograd_cache_hit"] == 1, counters
    assert counters["aot_autograd"]["autograd_cache_miss"] == 0, counters

    eager = make(False)
    batches = [(X[start : start + BATCH], LABELS[start : start + BATCH]) for start in range(0, len(X), BATCH)]
    seen = iter([batches[step % len(batches)] for step in range(switches.steps)])
    eager.fit(seen, steps_per_epoch=switches.steps, verbose=0)
    for one, other in zip(switched.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


if __name__ == "__main__":
    main()
