"""Optuna looks for the size and the learning rate of a network, over `fit`, and ends what does not promise well.

Needs optuna: pip install optuna.
"""

from __future__ import annotations

import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from torchfunc import Input, Model, callbacks, layers, losses, optimizers, utils

DIGITS = load_digits(return_X_y=True)
X_TRAIN, X_TEST, Y_TRAIN, Y_TEST = train_test_split(DIGITS[0] / 16, DIGITS[1], test_size=0.2, random_state=0)


class Pruning(callbacks.Callback):
    """Report each epoch to a trial, and end the training where Optuna says so."""

    def __init__(self, trial: optuna.Trial, monitor: str = "val_accuracy") -> None:
        super().__init__()
        self.trial, self.monitor = trial, monitor

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.trial.report((logs or {})[self.monitor], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def build_model(units: int, rate: float) -> Model:
    """Draw a network of that size, ready to train."""
    utils.set_random_seed(0)
    inputs = Input(shape=(64,), name="pixels")
    x = layers.Dense(units, activation="relu")(inputs)
    model = Model(inputs, layers.Dense(10)(x))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def main(trials: int = 20, epochs: int = 10) -> tuple[optuna.Study, float]:
    """Return the study and the share of unseen digits that its best network reads right."""

    def objective(trial: optuna.Trial) -> float:
        model = build_model(
            trial.suggest_int("units", 4, 128, log=True), trial.suggest_float("rate", 1e-4, 0.1, log=True)
        )
        watch = [Pruning(trial)]
        history = model.fit(X_TRAIN, Y_TRAIN, epochs=epochs, validation_split=0.2, callbacks=watch, verbose=0).history
        return history["val_accuracy"][-1]

    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=trials)

    best = build_model(**study.best_params)
    best.fit(X_TRAIN, Y_TRAIN, epochs=epochs, verbose=0)
    _, accuracy = best.evaluate(X_TEST, Y_TEST, verbose=0)
    print(f"Best of {trials}: {study.best_params}, {accuracy:.1%} of unseen digits right")
    return study, accuracy


if __name__ == "__main__":
    main()
