"""Make `fit` your own: a train_step that trains on noisy copies, a loss and a metric of one's own, and a loop by hand.

The data are 442 diabetes patients; the question is how far the disease has progressed after a year. With a pinball loss
the network does not say what to expect, but what nine of ten patients stay below.
"""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Input, Model, layers, losses, metrics, optimizers, utils


class Pinball(losses.Loss):
    """Too little costs nine times what too much does, so the least loss is at the 90 % quantile."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        error = y_true - y_pred
        return torch.maximum(0.9 * error, -0.1 * error).mean(dim=-1)


class Coverage(metrics.Metric):
    """The share of targets that lie below what was predicted."""

    def __init__(self, name: str = "coverage") -> None:
        super().__init__(name=name)
        self.below = self.add_variable(())
        self.count = self.add_variable(())

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        self.below += (y_true <= y_pred).sum()
        self.count += y_true.numel()

    def result(self) -> Tensor:
        return self.below / self.count


class Robust(Model):
    """Trains on inputs with noise. All else (`compile`, callbacks, validation ...) is that of any model."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        return super().train_step((x + 0.1 * torch.randn_like(x), y))


def build_model() -> Robust:
    inputs = Input(shape=(10,))
    x = layers.Dense(32, activation="relu")(inputs)
    return Robust(inputs, layers.Dense(1)(x), name="progression")


def main(epochs: int = 60) -> tuple[float, float]:
    """Return the shares of unseen patients that stay below the prediction: trained by `fit`, and by hand."""
    utils.set_random_seed(0)
    x, y = load_diabetes(return_X_y=True)
    x, y = torch.tensor(x / x.std(), dtype=torch.float32), torch.tensor(y[:, None] / 100, dtype=torch.float32)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0)

    model = build_model()
    model.compile(optimizers.Adam(0.005), Pinball(), metrics=[Coverage()])
    model.fit(x_train, y_train, batch_size=32, epochs=epochs, validation_data=(x_test, y_test), verbose=0)
    covered = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["coverage"]

    # The same in plain PyTorch: the model is a module, and losses and metrics work outside `fit` as well.
    by_hand, loss_fn, coverage = build_model(), Pinball(), Coverage()
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.005)
    for _ in range(epochs):
        for batch, targets in DataLoader(TensorDataset(x_train, y_train), batch_size=32, shuffle=True):
            optimizer.zero_grad()
            loss_fn(targets, by_hand(batch + 0.1 * torch.randn_like(batch))).backward()
            optimizer.step()
    with torch.no_grad():
        coverage.update_state(y_test, by_hand(x_test))
    print(f"Unseen patients below the predicted 90 % quantile: {covered:.0%} by fit, {coverage.result():.0%} by hand")
    return covered, float(coverage.result())


if __name__ == "__main__":
    main()
