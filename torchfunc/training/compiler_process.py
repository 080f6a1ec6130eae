"""Another process that compiles the graph of a step, while this one trains on eagerly.

It makes the same graph from the same model, of which it gets all but the data of its tensors, and so leaves it in the
compiler's caches on disk. What is left to do here is to trace the step and to load what lies there.

It runs none of the user's code: it gets models that are made of torchfunc's and torch's own alone.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass

import torch

from torchfunc import config

__all__ = ["CompilerProcess", "Request"]

# Search path and request come by a pipe, which stays open: its end is that of the process at the other side.
_BEGIN = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer);"
    "from torchfunc.training.compile_request import main; main()"
)


@dataclass(frozen=True)
class Request:
    """What is to be compiled.

    Attributes:
        model: a model and a batch, or a tuple of batches, without data (`dump_dataless`).
        method: "train_step", "test_step" or "predict_step".
        at_once: how many steps there are in the graph.
        niceness: by how much the process stands back behind others.
        threads, default_dtype, matmul_precision: torch's settings.
        floatx, epsilon: torchfunc's.
    """

    model: bytes
    method: str
    at_once: int
    niceness: int
    threads: int
    default_dtype: torch.dtype
    matmul_precision: str
    floatx: str
    epsilon: float

    @classmethod
    def make(cls, model: bytes, method: str, at_once: int, niceness: int) -> Request:
        """The same settings as here."""
        return cls(
            model,
            method,
            at_once,
            niceness,
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            config.floatx(),
            config.epsilon(),
        )

    def set_up(self) -> None:
        """Set this process up like that of the request."""
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.default_dtype)
        if self.matmul_precision != torch.get_float32_matmul_precision():
            # (To set it to what it is sets other things, too, by which graphs are cached.)
            torch.set_float32_matmul_precision(self.matmul_precision)
        config.set_floatx(self.floatx)
        config.set_epsilon(self.epsilon)


class CompilerProcess:
    """A process that compiles one graph. It ends with this object, and with the process that began it.

    Attributes:
        number: its number in the system.
        stop: ends it; called by itself with the last reference to it, and when Python ends.

    Raises:
        OSError: there can be no process.
    """

    def __init__(self, request: Request) -> None:
        message = pickle.dumps(sys.path) + pickle.dumps(request)
        # (A group of its own, with the C++ compiler in it.)
        process = subprocess.Popen(
            [sys.executable, "-c", _BEGIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        )
        self._process = process
        self._thread = threading.Thread(target=_wait, args=(process, message), daemon=True)
        self._thread.start()
        self.number = process.pid
        self.stop = weakref.finalize(self, _end, process)

    @property
    def was_stopped(self) -> bool:
        """Whether it was ended from here."""
        return not self.stop.alive

    @staticmethod
    def is_possible() -> bool:
        """Whether this process is Python as it is usually begun, so that it can be begun again."""
        return os.path.basename(sys.executable or "").startswith("python") and not hasattr(sys, "frozen")

    @property
    def is_running(self) -> bool:
        """Whether it is still at work."""
        return self._thread.is_alive()

    @property
    def has_succeeded(self) -> bool:
        """Whether it has made the graph."""
        return self._process.returncode == 0


def _wait(process: subprocess.Popen[bytes], message: bytes) -> None:
    """Send the request, and wait for the end."""
    assert process.stdin is not None
    with process, contextlib.suppress(OSError):
        process.stdin.write(message)
        process.stdin.flush()
        process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
