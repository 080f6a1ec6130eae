"""The models of `drawn`, written by hand: modules, losses and optimizers as one writes them in PyTorch.

Images are NCHW here, as PyTorch has them. Optimizers have Keras' settings, not torch's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workloads.data import CLASSES, CONTEXT, OBJECTS, PIXELS, VOCABULARY, WORDS

__all__ = ["HANDMADE", "Chain", "HandMade", "as_tensors"]

Outputs = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class HandMade:
    """A model and how it is trained.

    Attributes:
        module: makes the model.
        loss: takes the outputs and the targets.
        optimizer: takes the parameters.
        right: how many outputs are right, where the accuracy is measured.
        bfloat16: whether it is trained under autocast.
    """

    module: Callable[[], nn.Module]
    loss: Callable[..., torch.Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]
    right: Callable[..., torch.Tensor] | None = None
    bfloat16: bool = False


def as_tensors(arrays: Iterable[np.ndarray]) -> list[torch.Tensor]:
    """The arrays as tensors; images become NCHW in memory, but for large ones, whose model takes them as they are."""
    return [torch.from_numpy(_channels_first(a) if a.ndim == 4 and a.shape[1] < PIXELS else a) for a in arrays]


def _channels_first(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).copy()


# Modules -----------------------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(64, 64, 3, padding="same") for _ in range(2)) for _ in range(2)
        )
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.dense1, self.dropout, self.dense2 = nn.Linear(64, 256), nn.Dropout(0.5), nn.Linear(256, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 3)
        for first, second in self.blocks:
            x = x + F.relu(second(F.relu(first(x))))
        x = F.relu(self.conv3(x)).mean((2, 3))
        return self.dense2(self.dropout(F.relu(self.dense1(x))))


def vgg() -> nn.Module:
    steps: list[nn.Module] = []
    for before, filters in ((3, 32), (32, 64), (64, 128)):
        steps += [nn.Conv2d(before, filters, 3, padding="same"), nn.ReLU()]
        steps += [nn.Conv2d(filters, filters, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
    steps += [nn.Flatten(), nn.Linear(2048, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, CLASSES)]
    return nn.Sequential(*steps)


class Ticket(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.title_embedding, self.body_embedding = nn.Embedding(WORDS, 64), nn.Embedding(WORDS, 64)
        self.title_lstm = nn.LSTM(64, 128, batch_first=True)
        self.body_lstm = nn.LSTM(64, 32, batch_first=True)
        self.priority, self.department = nn.Linear(172, 1), nn.Linear(172, 4)

    def forward(self, title: torch.Tensor, body: torch.Tensor, tags: torch.Tensor) -> Outputs:
        title_features, _ = self.title_lstm(self.title_embedding(title))
        body_features, _ = self.body_lstm(self.body_embedding(body))
        x = torch.cat([title_features[:, -1], body_features[:, -1], tags], 1)
        return self.priority(x), self.department(x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.dense1, self.dense2 = nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.attention(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.dense2(F.relu(self.dense1(x))))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(WORDS, 64), nn.Linear(64, CLASSES)
        self.blocks = nn.Sequential(*(Block() for _ in range(20)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embedding(x)).mean(1))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.dense = nn.LSTM(256, 64, batch_first=True), nn.Linear(128, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        encoded = [self.lstm(tweet)[0][:, -1] for tweet in (a, b)]
        return self.dense(torch.cat(encoded, 1))


class Bottleneck(nn.Module):
    def __init__(self, before: int, filters: int, stride: int, widens: bool) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            *_convolved(before, filters, 1, stride),
            nn.ReLU(inplace=True),
            *_convolved(filters, filters, 3),
            nn.ReLU(inplace=True),
            *_convolved(filters, 4 * filters, 1),
        )
        self.shortcut = nn.Sequential(*_convolved(before, 4 * filters, 1, stride)) if widens else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x) + self.steps(x), inplace=True)


def _convolved(before: int, filters: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, filters, size, stride, padding=size // 2), nn.BatchNorm2d(filters, eps=1e-3)]


class FromChannelsLast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)


def resnet50() -> nn.Module:
    """ResNet-50, its memory in the order that a card's convolutions like best."""
    steps: list[nn.Module] = [FromChannelsLast(), *_convolved(3, 64, 7, 2), nn.ReLU(inplace=True)]
    steps.append(nn.MaxPool2d(3, 2, padding=1))
    before = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            filters = 64 * 2**stage
            steps.append(Bottleneck(before, filters, 2 if stage and not block else 1, not block))
            before = 4 * filters
    model = nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, OBJECTS))
    return model.to(memory_format=torch.channels_last)


class GPTBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(768), nn.LayerNorm(768)
        self.project, self.merge = nn.Linear(768, 3 * 768), nn.Linear(768, 768)
        self.feed = nn.Sequential(nn.Linear(768, 4 * 768), nn.GELU(), nn.Linear(4 * 768, 768))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.project(self.norm1(x)).unflatten(-1, (3, 12, 64)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.merge(attended.transpose(1, 2).flatten(2))
        return x + self.feed(self.norm2(x))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(VOCABULARY, 768), nn.Parameter(torch.zeros(CONTEXT, 768))
        self.blocks = nn.Sequential(*(GPTBlock() for _ in range(12)))
        self.norm, self.head = nn.LayerNorm(768), nn.Linear(768, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.embedding(tokens) + self.positions)))


class Chain(nn.Module):
    """Linear(4, 4) in a row."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(x)
        return x


# Losses, counts, optimizers ----------------------------------------------------------------------------------------


def ticket_loss(outputs: tuple[torch.Tensor, ...], priority: torch.Tensor, department: torch.Tensor) -> torch.Tensor:
    binary = F.binary_cross_entropy_with_logits(outputs[0], priority)
    return binary + 0.2 * F.cross_entropy(outputs[1], department)


def next_word_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


def sparse_right(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(-1) == target).sum()


def one_hot_right(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(-1) == target.argmax(-1)).sum()


def binary_right(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((output > 0) == (target > 0.5)).sum()


def rmsprop(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=1e-3, alpha=0.9, eps=1e-7)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-7)


def momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.004, eps=1e-7)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


HANDMADE = {
    "mlp": HandMade(mlp, F.cross_entropy, rmsprop, sparse_right),
    "resnet": HandMade(ResNet, F.cross_entropy, rmsprop, one_hot_right),
    "vgg": HandMade(vgg, F.cross_entropy, momentum, one_hot_right),
    "ticket": HandMade(Ticket, ticket_loss, rmsprop),
    "encoder": HandMade(Encoder, F.cross_entropy, adam, sparse_right),
    "siamese": HandMade(Siamese, F.binary_cross_entropy_with_logits, rmsprop, binary_right),
    "empty": HandMade(lambda: nn.Linear(1, 1), F.mse_loss, sgd),
    "resnet50": HandMade(resnet50, F.cross_entropy, momentum, bfloat16=True),
    "gpt": HandMade(GPT, next_word_loss, adamw, bfloat16=True),
}
