"""Torch's own modules and functions in the graph, and a plain torch loop to train it with.

What comes out of `Model(...)` is a `torch.nn.Module` like any other: nothing below the drawing is torchfunc's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Input, Model, layers


def build_model() -> Model:
    """Draw a network that reads an image as a row of patches which attend to each other."""
    images = Input(shape=(1, 8, 8), name="images")  # torch's layout: channels first
    x = nn.Conv2d(1, 32, kernel_size=2, stride=2)(images)  # 16 patches of 2 x 2 pixels
    x = nn.BatchNorm2d(32)(x)
    x = F.gelu(x).flatten(2).mT  # (batch, 16 patches, 32 features)
    x = x + nn.Parameter(0.1 * torch.randn(16, 32))  # where each patch is: a weight of the model
    attended, attention = nn.MultiheadAttention(32, num_heads=4, batch_first=True)(x, x, x)
    x = layers.BatchNormalization()(x + attended)  # Keras' layers fit in anywhere
    logits = layers.Dense(10)(x.flatten(1))
    return Model(images, {"logits": logits, "attention": attention}, name="patches")


def main(epochs: int = 12) -> float:
    """Return the share of unseen digits that are recognised."""
    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    digits = torch.tensor(data.target)
    batches = DataLoader(TensorDataset(images[:1400], digits[:1400]), batch_size=32, shuffle=True)

    model = build_model()
    model.summary()
    print(model.code)

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for batch, target in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch)["logits"], target)
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(batches):.4f}")

    model.eval()
    with torch.inference_mode():
        result = model(images[1400:])
    accuracy = (result["logits"].argmax(-1) == digits[1400:]).float().mean().item()
    watched = result["attention"].mean(dim=(0, 1)).reshape(4, 4)
    print(f"\nAccuracy on unseen digits: {accuracy:.1%}")
    print("How much the patches of an image are looked at, in %:")
    for row in (100 * watched).round().int().tolist():
        print("  ", *(f"{share:3d}" for share in row))
    return accuracy


if __name__ == "__main__":
    main()
