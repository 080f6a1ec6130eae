"""Data of two kinds for one model: a pandas frame whose columns go to the inputs of their names, then a DataLoader.

The wines are real: 178 from three growers of one Italian region, with what a laboratory measured in them.
"""

from __future__ import annotations

import pandas as pd
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from torchfunc import Input, Model, layers, losses, optimizers, utils

MEASURED = ["alcohol", "flavanoids", "color_intensity", "proline"]  # of 13 columns


class Wines(Dataset):
    """Wines one by one, as a PyTorch user would write it: `({column: value}, grower)`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.values = torch.tensor(frame[MEASURED].to_numpy(), dtype=torch.float32)
        self.growers = torch.tensor(frame["target"].to_numpy())

    def __len__(self) -> int:
        return len(self.growers)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return dict(zip(MEASURED, self.values[index], strict=True)), self.growers[index]


def build_model() -> Model:
    """Draw the model: one input for each column, brought to one scale and joined."""
    inputs = [Input(shape=(1,), name=name) for name in MEASURED]
    # Proline is a thousand times larger than the rest. The epochs are short, so the averages follow quickly.
    x = layers.BatchNormalization(momentum=0.9)(layers.concatenate(inputs))
    x = layers.Dense(16, activation="relu")(x)
    return Model(inputs, layers.Dense(3, name="grower")(x), name="wines")


def main(epochs: int = 20) -> float:
    """Return the share of unseen wines whose grower is found."""
    utils.set_random_seed(0)
    wines = load_wine(as_frame=True).frame
    train, test = train_test_split(wines, test_size=0.25, stratify=wines["target"], random_state=0)
    model = build_model()
    model.summary()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.Adam(0.01), loss, metrics=["accuracy"])

    # The frame has more columns than the model has inputs; each input takes the one of its name.
    counts = train["target"].value_counts()
    rare_count_more = {int(grower): len(train) / (3 * count) for grower, count in counts.items()}
    model.fit(train, train["target"], epochs=epochs, validation_split=0.2, class_weight=rare_count_more, verbose=2)

    # Whatever a DataLoader does is left to it: here it draws rare growers more often. The frame serves to validate.
    sampler = WeightedRandomSampler([1 / counts[grower] for grower in train["target"]], num_samples=len(train))
    loader = DataLoader(Wines(train), batch_size=16, sampler=sampler)
    model.fit(loader, epochs=epochs, validation_data=(test, test["target"]), verbose=2)

    _, accuracy = model.evaluate(test, test["target"], verbose=0)
    print(f"\nGrowers found of {len(test)} unseen wines: {accuracy:.1%}")
    found = test[["alcohol", "target"]].assign(found=model.predict(test, verbose=0).argmax(axis=-1))
    print(found.head())
    return accuracy


if __name__ == "__main__":
    main()
