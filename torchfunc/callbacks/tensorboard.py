"""Logs, weights and the graph for TensorBoard."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.callbacks.base import Callback, Logs
from torchfunc.saving.files import PathLike

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Write what TensorBoard shows, with torch's `SummaryWriter`, under Keras' tags.

    Logs of training go to the folder "train", those of validation to "validation": "epoch_loss" and the like at the end
    of each epoch with "epoch_learning_rate", "batch_loss" in between if asked for, and
    "evaluation_loss_vs_iterations" after each evaluation.

    Args:
        log_dir: the folder.
        histogram_freq: how many epochs lie between histograms of the weights; 0 for none.
        write_graph: whether to write the graph of a drawn model.
        write_images: whether to draw weights as images too, together with their histograms.
        write_steps_per_second: whether to log the speed.
        update_freq: "epoch", or a number of batches after which logs are written too; "batch" is 1.
        profile_batch: 0: use `torch.profiler` with its `tensorboard_trace_handler`.
        embeddings_freq: 0: use `SummaryWriter.add_embedding`.
        embeddings_metadata: None.

    Raises:
        ImportError: tensorboard is not installed.
        ValueError: `update_freq` is something else, or something is asked for that is done otherwise in torch.

    >>> board = callbacks.TensorBoard(log_dir="logs")  # model.fit(x, y, callbacks=[board]); tensorboard --logdir logs
    """

    defers_logs = True
    first_process_only = True

    def __init__(
        self,
        log_dir: PathLike = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: int = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        super().__init__()
        if profile_batch:
            raise ValueError("profile_batch is 0 here: profile with torch.profiler and its tensorboard_trace_handler.")
        if embeddings_freq or embeddings_metadata:
            raise ValueError("embeddings_freq is 0 here: write embeddings with torch's SummaryWriter.add_embedding.")
        if update_freq not in ("epoch", "batch") and (not isinstance(update_freq, int) or update_freq < 1):
            raise ValueError(f"`update_freq` is 'epoch', 'batch' or a number of batches, got {update_freq!r}.")
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        if update_freq == "epoch":
            self.idle_hooks = (TensorBoard.on_train_batch_end,)
        self._make_writer = _summary_writer()
        self._writers: dict[str, Any] = {}
        self._batches = 0
        self._last_batch = -1
        self._marks: dict[str, tuple[int, float]] = {}

    def writer(self, folder: str) -> Any:
        """The `SummaryWriter` of a folder, "train" or "validation", for what else you want to write there."""
        if folder not in self._writers:
            self._writers[folder] = self._make_writer(os.path.join(self.log_dir, folder))
        return self._writers[folder]

    def set_model(self, model: Any) -> None:
        """Note the model, and write its graph."""
        super().set_model(model)
        graph = getattr(self.model, "graph", None)
        if self.write_graph and isinstance(graph, torch.fx.Graph):
            _write_graph(self.writer("train"), graph, dict(self.model.named_modules()))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Count batches from here."""
        self._batches = 0
        self._last_batch = -1
        self._marks["batch"] = self._iterations(), time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Start the clock."""
        self._marks["epoch"] = self._iterations(), time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Write the logs, if it is time."""
        if self.update_freq == "epoch":
            return
        self._batches += batch - self._last_batch if batch > self._last_batch else batch + 1
        self._last_batch = batch
        if self._batches % int(self.update_freq):
            return
        writer = self.writer("train")
        for name, value in (logs or {}).items():
            _write_number(writer, f"batch_{name}", value, self._batches)
        if self.write_steps_per_second:
            writer.add_scalar("batch_steps_per_second", self._steps_per_second("batch"), self._batches)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the logs, and histograms if it is time."""
        for name, value in (logs or {}).items():
            folder = "validation" if name.startswith("val_") else "train"
            _write_number(self.writer(folder), f"epoch_{name.removeprefix('val_')}", value, epoch)
        writer = self.writer("train")
        if self.model.optimizer is not None:
            writer.add_scalar("epoch_learning_rate", float(self.model.optimizer.learning_rate), epoch)
        if self.write_steps_per_second:
            writer.add_scalar("epoch_steps_per_second", self._steps_per_second("epoch"), epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(writer, epoch)
        for each in self._writers.values():
            each.flush()

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Write the results over the count of training steps."""
        if self.model.optimizer is not None:
            for name, value in (logs or {}).items():
                _write_number(self.writer("validation"), f"evaluation_{name}_vs_iterations", value, self._iterations())

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def state_dict(self) -> dict[str, Any]:
        """How many batches there were."""
        return {"batches": self._batches, "last_batch": self._last_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Count on from there."""
        self._batches, self._last_batch = state["batches"], state["last_batch"]

    def _iterations(self) -> int:
        return 0 if self.model.optimizer is None else int(self.model.optimizer.iterations)

    def _steps_per_second(self, since: str) -> float:
        """The speed since the mark of that name, which is set anew."""
        then, started = self._marks[since]
        self._marks[since] = now, ended = self._iterations(), time.perf_counter()
        return (now - then) / max(ended - started, 1e-9)

    def _write_weights(self, writer: Any, epoch: int) -> None:
        for name, weight in self.model.named_parameters():
            tag = name.replace(".", "/")
            writer.add_histogram(f"{tag}/histogram", weight.detach().float().cpu().numpy(), epoch)
            if self.write_images:
                _write_image(writer, f"{tag}/image", weight.detach().float().cpu(), epoch)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("TensorBoard needs tensorboard: pip install 'torchfunc[tensorboard]'") from error
    return SummaryWriter


def _write_number(writer: Any, tag: str, value: Any, step: int) -> None:
    if np.ndim(value) == 0 and not isinstance(value, str):
        writer.add_scalar(tag, value, step)


def _write_image(writer: Any, tag: str, weight: Tensor, epoch: int) -> None:
    """A vector as a row, a matrix lying down, kernels of one or three channels each by itself; else nothing."""
    weight = weight.squeeze()
    if weight.ndim <= 1:
        writer.add_image(tag, weight.reshape(1, -1), epoch, dataformats="HW")
    elif weight.ndim == 2:
        writer.add_image(tag, weight.T if weight.shape[0] > weight.shape[1] else weight, epoch, dataformats="HW")
    elif weight.ndim == 3:
        writer.add_images(tag, weight[:, None], epoch)
    elif weight.ndim == 4 and weight.shape[1] == 3:
        writer.add_images(tag, weight, epoch)


def _write_graph(writer: Any, graph: torch.fx.Graph, modules: dict[str, Any]) -> None:
    """The model's graph, a node for each call of a layer or function."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef

    nodes = [
        NodeDef(
            name=node.name,
            op=type(modules[node.target]).__name__ if node.op == "call_module" else node.op,
            input=[each.name for each in node.all_input_nodes],
        )
        for node in graph.nodes
    ]
    writer.file_writer.add_event(Event(graph_def=GraphDef(node=nodes).SerializeToString()))
