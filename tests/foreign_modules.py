"""Modules as other people write them, for what takes modules of anybody: residual nets, U-Nets, transformers."""

import torch
import torch.nn.functional as F
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, size, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(size, size, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size)
        self.downsample = nn.Sequential(nn.Conv2d(size, size, 1, stride), nn.BatchNorm2d(size)) if stride > 1 else None

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResidualNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False)
        self.layer1 = nn.Sequential(Bottleneck(4), Bottleneck(4, 2))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.layer1(F.relu(self.conv1(x), inplace=True))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(F.dropout(x, 0.3, training=self.training))


class Down(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.conv(x)
        return x, self.pool(x)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([Down(3, 4), Down(4, 8)])
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)])
        self.fuse = nn.ModuleList([nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)])
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        skips = []
        for down in self.down:
            skip, x = down(x)
            skips.append(skip)
        x = torch.relu(self.middle(x))
        for up, fuse, skip in zip(self.up, self.fuse, reversed(skips), strict=True):
            x = fuse(torch.cat([up(x), skip], 1))
        return self.out(x)


class PatchTransformer(nn.Module):
    """As torchvision writes its ViT."""

    def __init__(self, image_size=8, patch=4, size=16):
        super().__init__()
        self.image_size, self.patch, self.size = image_size, patch, size
        self.conv_proj = nn.Conv2d(3, size, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, size))
        self.register_buffer("scale", torch.tensor(0.5))
        self.pos_embedding = nn.Parameter(torch.randn(1, (image_size // patch) ** 2 + 1, size))
        self.attention = nn.MultiheadAttention(size, 2, batch_first=True)
        self.norm = nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, size))

    def forward(self, x):
        n, _, h, _ = x.shape
        torch._assert(h == self.image_size, "wrong height")
        x = self.conv_proj(x)
        x = x.reshape(n, self.size, (h // self.patch) ** 2).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(n, -1, -1), x], dim=1) + self.pos_embedding * self.scale
        y = self.norm(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + y
        return (x + self.mlp(x))[:, 0]


class Branching(nn.Module):
    """Looks at ranks, which torch.fx does not know."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, other):
        x = self.linear(x)
        if x.dim() == 2:
            x = x.unsqueeze(1)
        return {"sum": x.add(other, alpha=2), "pair": (x.mean(1), other)}


class Counting(nn.Module):
    """Looks at ranks and computes with the batch size: for torch.export alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        if x.dim() == 2:
            x = self.linear(x)
        return x / x.shape[0] + torch.arange(x.shape[0]).unsqueeze(1)


class InPlace(nn.Module):
    def forward(self, x):
        y = x * 2
        y.add_(1)
        z = y.relu_()
        return y + z


class ByMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) if self.training else x
