"""How the time of what is done with a whole model grows with its number of layers, or of levels of models in models."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import json
import math
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import torchfunc
from torchfunc.layers import Dense
from torchfunc.models import Model

__all__ = ["growth_table"]

CHAINS = (1000, 2000, 4000, 8000, 16000)
LEVELS = (50, 100, 200)


def chain(length: int) -> Model:
    """So many layers, one behind the other."""
    inputs = x = torchfunc.Input((4,))
    for _ in range(length):
        x = Dense(4)(x)
    return Model(inputs, x)


def levels(count: int) -> Model:
    """So many models, each but the first around the one before."""
    model = None
    for _ in range(count):
        inputs = torchfunc.Input((4,))
        model = Model(inputs, Dense(4)(inputs if model is None else model(inputs)))
    assert model is not None
    return model


def summarized(model: Model) -> None:
    """Its summary, shown to nobody."""
    with contextlib.redirect_stdout(io.StringIO()):
        model.summary()


WORKS: dict[str, Callable[[Model], Any]] = {
    "summary": summarized,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "config": lambda model: Model.from_config(json.loads(json.dumps(model.get_config()))),
}


def growth_table(quick: bool) -> Iterator[str]:
    """The lines of a table: the seconds for each size, and the exponent of the growth from the first to the last."""
    for make, sizes in ((chain, CHAINS), (levels, LEVELS)):
        counts = sizes[:2] if quick else sizes
        make(counts[0])
        seconds: dict[str, list[float]] = {}
        for count in counts:
            model, spent = timed(lambda make=make, count=count: make(count))
            seconds.setdefault("build", []).append(spent)
            with_collector = timed(lambda make=make, count=count: make(count), collects=True)[1]
            seconds.setdefault("build, garbage collector on", []).append(with_collector)
            for name, work in WORKS.items():
                seconds.setdefault(name, []).append(timed(lambda work=work, model=model: work(model))[1])
        yield f"\n| {make.__name__} | {' | '.join(f'{count:,}' for count in counts)} | exponent |"
        yield "|---|" + "---:|" * (len(counts) + 1)
        for name, found in seconds.items():
            exponent = math.log(found[-1] / found[0]) / math.log(counts[-1] / counts[0])
            yield f"| {name} [s] | {' | '.join(f'{each:.3g}' for each in found)} | {exponent:.2f} |"


def timed(work: Callable[[], Any], collects: bool = False) -> tuple[Any, float]:
    """What it returns, and the seconds of processor time that it takes.

    Python's garbage collector is off meanwhile, as it is in `timeit`, unless it `collects`: how often that looks at all
    objects there are depends on their number, in steps.
    """
    gc.collect()
    if not collects:
        gc.disable()
    try:
        start = time.process_time()
        result = work()
        return result, time.process_time() - start
    finally:
        gc.enable()
