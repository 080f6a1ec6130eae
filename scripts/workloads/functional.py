"""The contestants that draw a model and call its `fit`, `evaluate` and `predict`: torchfunc and Keras."""

from __future__ import annotations

import gc
import importlib
from types import ModuleType
from typing import Any

from workloads import small_calls, tables
from workloads.calls import DEPTH, forward
from workloads.data import BATCH, bare, make_data
from workloads.drawn import DRAWN, chain, resnet50
from workloads.jobs import Job, Turn, seconds

__all__ = ["prepare"]

BUILT = {"chain": chain, "resnet50": resnet50}


def prepare(job: Job, api: str, **compile_arguments: Any) -> Turn:
    """Return the function that does the job once.

    Args:
        job: what to do.
        api: the package to do it with: torchfunc, or keras on the backend its environment names.
        compile_arguments: for `compile`, beside the model's own.
    """
    package = importlib.import_module(api)
    if api == "torchfunc":
        # Steps are compiled from the second one on, not when another process is ready: `waiting.py` is about that.
        package.config.set_reproducible(True)
    if job.work in small_calls.SMALL_CALLS:
        return small_calls.drawn(job, package)
    if job.model in tables.TABLES:
        return tables.drawn(job, package, **compile_arguments)
    if job.work == "build":
        return _build(job, package)
    if job.work == "forward":
        model = chain(package, DEPTH)
        return forward(job, model.to(job.device) if api == "torchfunc" else model)
    drawn = DRAWN[job.model]
    model = drawn.draw(package)
    model.compile(**drawn.settings(package), **compile_arguments)
    return _fit(job, model) if job.work == "fit" else _infer(job, model)


def _fit(job: Job, model: Any) -> Turn:
    batch = BATCH[job.model]
    x, y = map(bare, make_data(job.model, batch * job.amount))
    return lambda: seconds(lambda: model.fit(x, y, batch_size=batch, epochs=1, verbose=0)) / job.amount


def _infer(job: Job, model: Any) -> Turn:
    batch = BATCH[job.model]
    x, y = map(bare, make_data(job.model, job.amount))
    if job.work == "predict":
        return lambda: seconds(lambda: model.predict(x, batch_size=batch, verbose=0))
    return lambda: seconds(lambda: model.evaluate(x, y, batch_size=batch, verbose=0))


def _build(job: Job, package: ModuleType) -> Turn:
    draw = BUILT[job.model]

    def turn() -> float:
        package.utils.clear_session()  # or Keras' names pile up from turn to turn
        gc.collect()
        return seconds(lambda: draw(package, job.amount))

    return turn
