"""A stand-in for a model in training, to feed the same numbers to our callbacks and to Keras'."""

import warnings
from types import SimpleNamespace


class Stub:
    """What callbacks ask of a model: one weight, an optimizer with a learning rate, and files it is told to write."""

    metrics = ()

    def __init__(self):
        self.stop_training = False
        self.weights = -1
        self.optimizer = SimpleNamespace(learning_rate=1.0)
        self.saved = []

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def state_dict(self):
        return {"weight": self.weights}

    def load_state_dict(self, state):
        self.weights = state["weight"]

    def save_weights(self, path, overwrite):
        assert overwrite
        self.saved.append((str(path).removesuffix(".safetensors").removesuffix(".weights.h5"), self.weights))


def play(callback, epochs, batches=(), capsys=None):
    """Let a callback see these logs, one dict an epoch, with the logs of each epoch's batches before.

    Returns all that it decided: when to stop, the weight that was left, the learning rates, the files it wrote, what it
    added to the logs, what it said and what it warned of.
    """
    model = Stub()
    rates, added = [], []
    if capsys is not None:
        capsys.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callback.set_params({"epochs": len(epochs), "steps": len(batches) or None, "verbose": 0})
        callback.set_model(model)
        callback.on_train_begin({})
        for epoch, logs in enumerate(epochs):
            callback.on_epoch_begin(epoch, {})
            for batch, batch_logs in enumerate(batches):
                model.weights = (epoch, batch)
                callback.on_train_batch_end(batch, dict(batch_logs))
                if model.stop_training:
                    break
            model.weights = epoch
            logs = dict(logs)
            callback.on_epoch_end(epoch, logs)
            rates.append(model.optimizer.learning_rate)
            added.append(logs)
            if model.stop_training:
                break
        callback.on_train_end({})
    said = [] if capsys is None else [line for line in capsys.readouterr().out.splitlines() if line]
    said = [line.replace(".weights.h5", ".safetensors") for line in said]
    told = [str(warning.message) for warning in caught]
    return epoch, model.stop_training, model.weights, rates, model.saved, added, said, told
