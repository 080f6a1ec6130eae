"""Let callbacks watch over a training: keep the best weights, lower the learning rate, stop in time, survive a crash.

The data are 569 breast tumours, each described by 30 measurements of its cells; the question is which are benign.
Given a folder (`python callbacks.py runs`), a training that was killed goes on when the script is run again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from torchfunc import Input, Model, callbacks, layers, optimizers, utils


def build_model() -> Model:
    """Draw the model and say how it is trained."""
    inputs = Input(shape=(30,), name="measurements")
    x = layers.Dense(32, activation="relu")(inputs)
    x = layers.Dropout(0.3)(x)
    outputs = layers.Dense(1, activation="sigmoid", name="benign")(x)
    model = Model(inputs, outputs, name="tumours")
    model.compile(optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


def main(epochs: int = 60, folder: str | None = None) -> tuple[float, list[float]]:
    """Return the accuracy on unseen tumours, and the validation loss of each epoch. Files go to the folder."""
    utils.set_random_seed(0)
    place = Path(folder or tempfile.mkdtemp())
    place.mkdir(exist_ok=True)
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
    scaler = StandardScaler().fit(x_train)
    x_train, x_test = scaler.transform(x_train), scaler.transform(x_test)

    best = place / "best.safetensors"
    watch = [
        # Saved every 20 batches, deleted at the end. Going on from there gives what going on without a crash would.
        callbacks.BackupAndRestore(place / "backup", save_freq=20),
        callbacks.ModelCheckpoint(best, monitor="val_loss", save_best_only=True, save_weights_only=True),
        callbacks.ReduceLROnPlateau("val_loss", factor=0.3, patience=3, min_delta=0.001, verbose=1),
        callbacks.EarlyStopping("val_loss", patience=8, verbose=1),
        callbacks.CSVLogger(place / "log.csv"),
        callbacks.TerminateOnNaN(),
        callbacks.LambdaCallback(on_train_end=lambda logs: print(f"In the end: {logs['val_accuracy']:.1%}")),
    ]
    model = build_model()
    history = model.fit(
        x_train, y_train[:, None], batch_size=32, epochs=epochs, validation_split=0.2, callbacks=watch, verbose=2
    )

    losses = history.history["val_loss"]
    print(f"Best of {len(losses)} epochs: epoch {losses.index(min(losses)) + 1}. {place / 'log.csv'} has them all.")
    model = build_model()  # another process would do the same
    model.load_weights(best)
    _, accuracy = model.evaluate(x_test, y_test[:, None], verbose=0)
    print(f"Accuracy on {len(x_test)} unseen tumours: {accuracy:.1%}")
    return accuracy, losses


if __name__ == "__main__":
    main(folder=sys.argv[1] if len(sys.argv) > 1 else None)
