"""Images from a folder, one sub-folder for each class, as a Dataset that `fit` takes by way of a DataLoader.

`torchvision.datasets.ImageFolder(folder, transform)` is such a Dataset; here it is written out, to run without.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, random_split

from torchfunc import Input, Model, layers, optimizers, utils


class ImageFolder(Dataset):
    """Images as (height, width, channels) from 0 to 1, with the number of their folder."""

    def __init__(self, folder: Path) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        self.files = [
            (path, label) for label, name in enumerate(self.classes) for path in sorted((folder / name).iterdir())
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.files[index]
        return np.asarray(Image.open(path).convert("RGB"), dtype="float32") / 255, label


utils.set_random_seed(0)
digits = load_digits()
with tempfile.TemporaryDirectory() as folder:
    for number, (image, digit) in enumerate(zip(digits.images[:800], digits.target[:800], strict=True)):
        path = Path(folder, f"digit-{digit}", f"{number:04}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image * 255 / 16).astype("uint8")).save(path)

    images = ImageFolder(Path(folder))
    train, test = random_split(images, [600, 200])
    print("Classes:", *images.classes[:3], "...")

    inputs = Input(shape=(8, 8, 3))
    x = layers.RandomTranslation(0.1, 0.1, fill_mode="constant")(inputs)  # each image its own way, in training only
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    model = Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile(optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    train_batches, test_batches = DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=50)
    history = model.fit(train_batches, validation_data=test_batches, epochs=8, verbose=0)
    print("Four of five images it has not seen are told right:", history.history["val_accuracy"][-1] > 0.8)
    print("Probabilities:", model.predict(test_batches, verbose=0).shape)
