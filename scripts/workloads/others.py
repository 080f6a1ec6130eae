"""Lightning and skorch, which train a module written by hand, and pytorch-symbolic, which draws one."""

from __future__ import annotations

import gc
import importlib
import logging
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from workloads.calls import DEPTH, forward
from workloads.data import BATCH, make_data
from workloads.jobs import Job, Turn, seconds
from workloads.modules import HANDMADE, as_tensors

__all__ = ["prepare"]


def prepare(job: Job, api: str) -> Turn:
    """Return the function that does the job once, with the package of that name."""
    package = importlib.import_module(api)
    return {"lightning": _lightning, "skorch": _skorch, "pytorch_symbolic": _symbolic}[api](job, package)


def _lightning(job: Job, package: ModuleType) -> Turn:
    """Its loop over a DataLoader; it keeps running sums in its own way, `self.log`."""
    made = HANDMADE[job.model]

    class Module(package.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = made.module()

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            data, target = batch
            outputs = self.module(data)
            loss = made.loss(outputs, target)
            right = (outputs.argmax(-1) == target).float().mean()
            self.log_dict({"loss": loss, "accuracy": right}, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return made.optimizer(self.parameters())

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    x, y = make_data(job.model, BATCH[job.model] * job.amount)
    loader: Any = DataLoader(TensorDataset(*as_tensors([*x, *y])), batch_size=BATCH[job.model], shuffle=True)
    module = Module()

    def turn() -> float:
        trainer = package.Trainer(
            max_epochs=1,
            accelerator=job.device,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return seconds(lambda: trainer.fit(module, loader)) / job.amount

    return turn


def _skorch(job: Job, package: ModuleType) -> Turn:
    """Its loop over a DataLoader of its own; it keeps the loss, and no accuracy in training."""
    settings = {"lr": 1e-3, "optimizer__alpha": 0.9, "optimizer__eps": 1e-7}  # those of `modules.rmsprop`
    net = package.NeuralNetClassifier(
        HANDMADE[job.model].module(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.RMSprop,
        batch_size=BATCH[job.model],
        max_epochs=1,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
        device=job.device,
        **settings,
    )
    net.initialize()
    (x,), (y,) = make_data(job.model, BATCH[job.model] * job.amount)
    return lambda: seconds(lambda: net.partial_fit(x, y)) / job.amount


def _symbolic(job: Job, package: ModuleType) -> Turn:
    if job.work == "forward":
        return forward(job, _symbolic_chain(package, DEPTH).to(job.device))
    draw = {"chain": _symbolic_chain, "resnet50": _symbolic_resnet50}[job.model]

    def turn() -> float:
        gc.collect()
        return seconds(lambda: draw(package, job.amount))

    return turn


def _symbolic_chain(package: ModuleType, depth: int) -> nn.Module:
    inputs = x = package.Input((4,))
    for _ in range(depth):
        x = nn.Linear(4, 4)(x)
    return package.SymbolicModel(inputs, x)


def _symbolic_resnet50(package: ModuleType, _: int) -> nn.Module:
    """The ResNet-50 of `drawn`, of torch's modules."""

    def convolved(x: Any, filters: int, size: int, stride: int = 1, relu: bool = True) -> Any:
        x = nn.Conv2d(x.shape[1], filters, size, stride, padding=size // 2)(x)
        x = nn.BatchNorm2d(filters)(x)
        return nn.ReLU()(x) if relu else x

    inputs = package.Input((3, 224, 224))
    x = nn.MaxPool2d(3, 2, padding=1)(convolved(inputs, 64, 7, 2))
    for stage, blocks in enumerate((3, 4, 6, 3)):
        filters = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            shortcut = x if block else convolved(x, 4 * filters, 1, stride, relu=False)
            x = convolved(convolved(x, filters, 1, stride), filters, 3)
            x = nn.ReLU()(shortcut + convolved(x, 4 * filters, 1, relu=False))
    x = nn.Flatten()(nn.AdaptiveAvgPool2d(1)(x))
    return package.SymbolicModel(inputs, nn.Softmax(1)(nn.Linear(2048, 1000)(x)))
