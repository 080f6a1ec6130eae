"""The contestants that write their loops: what people do with PyTorch itself.

All keep a running loss, and count what is right where the drawn model measures its accuracy, on the device; they read
both once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, TensorDataset

from workloads import small_calls, tables
from workloads.calls import DEPTH, forward
from workloads.data import BATCH, make_data
from workloads.jobs import Job, Turn, seconds
from workloads.modules import HANDMADE, Chain, HandMade, as_tensors

__all__ = ["prepare"]

Batches = Iterable[list[torch.Tensor]]


def prepare(job: Job, data: str = "loader", compiled: str = "", captured: bool = False) -> Turn:
    """Return the function that does the job once.

    Args:
        job: what to do.
        data: "loader" for a DataLoader; "index" for slices of a permutation of tensors on the device.
        compiled: the mode of torch.compile that model, loss and optimizer step go through, if any.
        captured: whether the step is a CUDA graph.
    """
    if job.work in small_calls.SMALL_CALLS:
        return small_calls.by_hand(job)
    if job.model in tables.TABLES:
        return tables.by_hand(job)
    if job.work == "forward":
        return forward(job, Chain(DEPTH).to(job.device))
    if job.work in ("predict", "evaluate"):
        return _infer(job)
    handmade = HANDMADE[job.model]
    x, y = make_data(job.model, BATCH[job.model] * job.amount)
    module = handmade.module().to(job.device)
    optimizer = handmade.optimizer(module.parameters())
    if captured:
        for group in optimizer.param_groups:
            group["capturable"] = True
    tensors, sums = as_tensors([*x, *y]), Sums(*torch.zeros(2, device=job.device))
    batches = IndexedBatches(tensors, job) if data == "index" else LoadedBatches(tensors, job, shuffle=True)
    if compiled:
        step = _compiled_step(module, optimizer, handmade, len(x), sums, compiled)
    else:
        step = _eager_step(module, optimizer, handmade, len(x), sums)
    if captured:
        step = _captured_step(step, [t[: BATCH[job.model]].to(job.device) for t in tensors])
    return lambda: seconds(lambda: _epoch(step, batches, sums)) / job.amount


# Data --------------------------------------------------------------------------------------------------------------


class LoadedBatches:
    """Batches of a DataLoader, moved to the device."""

    def __init__(self, tensors: list[torch.Tensor], job: Job, shuffle: bool) -> None:
        self.device = job.device
        dataset = TensorDataset(*tensors)
        on_cuda = job.device == "cuda"
        self.loader: Any = DataLoader(dataset, batch_size=BATCH[job.model], shuffle=shuffle, pin_memory=on_cuda)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        if self.device == "cpu":
            return iter(self.loader)
        return ([t.to(self.device, non_blocking=True) for t in batch] for batch in self.loader)


class IndexedBatches:
    """Batches picked by index out of tensors on the device."""

    def __init__(self, tensors: list[torch.Tensor], job: Job) -> None:
        self.tensors, self.batch, self.device = [t.to(job.device) for t in tensors], BATCH[job.model], job.device

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for picked in torch.randperm(len(self.tensors[0]), device=self.device).split(self.batch):
            yield [t[picked] for t in self.tensors]


# Steps ---------------------------------------------------------------------------------------------------------------

Step = Callable[[list[torch.Tensor]], None]


class Sums(NamedTuple):
    """What an epoch adds up, on the device: losses of batches, and right answers."""

    loss: torch.Tensor
    right: torch.Tensor


def autocast(made: HandMade, device: str) -> torch.autocast:
    """The precision that a model is trained in."""
    return torch.autocast(device, torch.bfloat16, enabled=made.bfloat16)


def _eager_step(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer, made: HandMade, inputs: int, sums: Sums
) -> Step:
    total, right = sums

    def step(batch: list[torch.Tensor]) -> None:
        optimizer.zero_grad()
        with autocast(made, total.device.type):
            outputs = module(*batch[:inputs])
            loss = made.loss(outputs, *batch[inputs:])
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())
        if made.right is not None:
            right.add_(made.right(outputs, *batch[inputs:]))

    return step


def _compiled_step(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer, made: HandMade, inputs: int, sums: Sums, mode: str
) -> Step:
    """Model, loss and count in one graph, the optimizer's step in another: what torch's tutorials recommend."""

    def forward_and_loss(batch: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        with autocast(made, sums.loss.device.type):
            outputs = module(*batch[:inputs])
            right = None if made.right is None else made.right(outputs, *batch[inputs:])
            return made.loss(outputs, *batch[inputs:]), right

    compiled, update = torch.compile(forward_and_loss, mode=mode), torch.compile(optimizer.step)

    def step(batch: list[torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss, right = compiled(batch)
        loss.backward()
        update()
        sums.loss.add_(loss.detach())
        if right is not None:
            sums.right.add_(right)

    return step


def _captured_step(eager: Step, held: list[torch.Tensor]) -> Step:
    """The eager step as one CUDA graph, over tensors that each batch is copied to."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # so that the optimizer's state and cuDNN's choices are there before the capture
            eager(held)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        eager(held)

    def step(batch: list[torch.Tensor]) -> None:
        for place, value in zip(held, batch, strict=True):
            place.copy_(value)
        graph.replay()

    return step


def _epoch(step: Step, batches: Batches, sums: Sums) -> tuple[float, float]:
    for total in sums:
        total.zero_()
    for batch in batches:
        step(batch)
    return float(sums.loss), float(sums.right)


# Without training ----------------------------------------------------------------------------------------------------


def _infer(job: Job) -> Turn:
    made = HANDMADE[job.model]
    x, y = make_data(job.model, job.amount)
    module = made.module().to(job.device).eval()
    batches, inputs = LoadedBatches(as_tensors([*x, *y]), job, shuffle=False), len(x)

    def predict() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([module(*batch[:inputs]) for batch in batches]).cpu()

    def evaluate() -> tuple[float, float]:
        total, right = torch.zeros((), device=job.device), torch.zeros((), device=job.device)
        assert made.right is not None
        with torch.inference_mode():
            for batch in batches:
                outputs, targets = module(*batch[:inputs]), batch[inputs:]
                total += made.loss(outputs, *targets) * len(targets[0])
                right += made.right(outputs, *targets)
        return float(total) / job.amount, float(right) / job.amount

    return lambda: seconds(predict if job.work == "predict" else evaluate)
