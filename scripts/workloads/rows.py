"""What is measured, against whom, and how much of their time may be taken."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from workloads.contestants import (
    CAPTURED,
    COMPILED,
    CONTESTANTS,
    EAGER,
    FLOOR,
    HAND_COMPILED,
    INDEXING,
    KERAS_JAX,
    KERAS_TORCH,
    LIGHTNING,
    LOADER,
    MODULE,
    REDUCED,
    SKORCH,
    SYMBOLIC,
    UNROLLED,
)

__all__ = ["FLOORS", "ROWS", "Row"]

OURS = (EAGER, COMPILED, UNROLLED)
SCALES = {"µs": 1e6, "ms": 1e3, "s": 1.0, "MiB": 1 / 2**20}


@dataclass(frozen=True)
class Row:
    """Something that is measured.

    Attributes:
        title: what is done; `{amount}` stands for how often.
        unit: what it is counted in.
        work: what is done, for a `Job`.
        model: with what.
        amount: how often in a turn; the second number under `--quick`.
        contestants: who does it.
        asked: how large ours over theirs may be.
        measure: "turns" of workers that live on; or, of fresh processes, "import", "first step" or "memory" (its peak).
        cold: whether caches of compiled code are emptied before.
        only_cuda: whether it is more than a CPU is asked to do.
        together: how many contestants fit into a card's memory at the same time; 0 for all.
    """

    title: str
    unit: str
    work: str
    model: str
    amount: tuple[int, int]
    contestants: tuple[str, ...]
    asked: dict[tuple[str, str], float] = field(default_factory=dict)
    measure: str = "turns"
    cold: bool = False
    only_cuda: bool = False
    together: int = 0

    @property
    def scale(self) -> float:
        """Units in a second, or in a byte."""
        return SCALES[self.unit]

    def pairs(self) -> list[tuple[str, str]]:
        """Ours and theirs that stand beside each other: like with like, and what is asked for."""
        return [
            (ours, theirs)
            for ours in self.contestants
            for theirs in self.contestants
            if ours in OURS and theirs not in OURS
            if (ours, theirs) in self.asked or CONTESTANTS[ours].compiled == CONTESTANTS[theirs].compiled
        ]


TRAINING = (EAGER, COMPILED, LOADER, INDEXING, HAND_COMPILED, REDUCED, CAPTURED, KERAS_TORCH, KERAS_JAX)


def _by_hand(eager: float, compiled: float | None = None) -> dict[tuple[str, str], float]:
    """What is asked against the loops by hand."""
    asked = {(EAGER, loop): eager for loop in (LOADER, INDEXING)}
    return asked if compiled is None else asked | {(COMPILED, loop): compiled for loop in (LOADER, INDEXING)}


FIT = {
    "mlp": Row(
        "MLP fit, a step of 64",
        "µs",
        "fit",
        "mlp",
        (400, 20),
        (*TRAINING, UNROLLED, LIGHTNING, SKORCH),
        {
            (COMPILED, KERAS_JAX): 0.8,
            (UNROLLED, KERAS_JAX): 0.8,
            (EAGER, LOADER): 0.5,
            (EAGER, KERAS_TORCH): 0.25,
        },
    ),
    "ticket": Row(
        "ticket model fit, a step of 32",
        "ms",
        "fit",
        "ticket",
        (40, 4),
        TRAINING,
        _by_hand(1.0, 0.85) | {(EAGER, KERAS_TORCH): 0.2, (EAGER, KERAS_JAX): 0.85},
    ),
    "resnet": Row(
        "toy ResNet fit, a step of 64",
        "ms",
        "fit",
        "resnet",
        (12, 2),
        TRAINING,
        _by_hand(1.0) | {(EAGER, KERAS_TORCH): 0.75},
    ),
    "vgg": Row("VGG-like net fit, a step of 32", "ms", "fit", "vgg", (12, 2), TRAINING, _by_hand(0.85)),
    "encoder": Row(
        "Transformer encoder fit, 20 layers, a step of 32",
        "ms",
        "fit",
        "encoder",
        (12, 2),
        TRAINING,
        _by_hand(1.0, 0.85),
    ),
    "siamese": Row("siamese LSTM fit, a step of 32", "ms", "fit", "siamese", (8, 2), TRAINING),
    "empty": Row(
        "fit of one Dense(1), a step of 64",
        "µs",
        "fit",
        "empty",
        (2000, 200),
        (EAGER, COMPILED, INDEXING, HAND_COMPILED, REDUCED, CAPTURED),
        {(EAGER, INDEXING): 1.0},
    ),
}

ON_CARD = (EAGER, COMPILED, INDEXING, HAND_COMPILED, REDUCED, CAPTURED)

# What takes a card to train.
LARGE = {
    "resnet50": Row(
        "ResNet-50 fit, bfloat16, a step of 256",
        "ms",
        "fit",
        "resnet50",
        (8, 4),
        ON_CARD,
        _by_hand(1.0),
        only_cuda=True,
        together=3,
    ),
    "gpt": Row(
        "GPT-like stack fit, 12 layers 768 wide, bfloat16, a step of 16 x 512 tokens",
        "ms",
        "fit",
        "gpt",
        (16, 8),
        ON_CARD,
        _by_hand(1.0),
        only_cuda=True,
        together=3,
    ),
}

INFERENCE = (EAGER, COMPILED, LOADER, KERAS_TORCH, KERAS_JAX)
BUILDING = (EAGER, KERAS_TORCH, SYMBOLIC)
STARTING = (EAGER, COMPILED, INDEXING, HAND_COMPILED, KERAS_TORCH, KERAS_JAX)

OTHERS = {
    "predict": Row(
        "MLP predict, {amount:,} rows",
        "ms",
        "predict",
        "mlp",
        (100_000, 5_000),
        INFERENCE,
        {(EAGER, LOADER): 0.5, (COMPILED, LOADER): 0.5},
    ),
    "evaluate": Row(
        "MLP evaluate, {amount:,} rows",
        "ms",
        "evaluate",
        "mlp",
        (100_000, 5_000),
        INFERENCE,
        {(EAGER, LOADER): 0.5, (COMPILED, LOADER): 0.5},
    ),
    "forward": Row(
        "forward of 250 Dense(4)",
        "µs",
        "forward",
        "chain",
        (200, 20),
        (EAGER, MODULE, SYMBOLIC, KERAS_TORCH),
        {(EAGER, MODULE): 0.7, (EAGER, SYMBOLIC): 0.7, (EAGER, KERAS_TORCH): 0.06},
    ),
    "build-dense": Row(
        "build of {amount:,} Dense(4)",
        "ms",
        "build",
        "chain",
        (500, 500),
        BUILDING,
        {(EAGER, KERAS_TORCH): 0.25, (EAGER, SYMBOLIC): 1.0},
    ),
    "build-resnet50": Row("build of ResNet-50", "ms", "build", "resnet50", (1, 1), BUILDING),
    "build-chain": Row("build of a chain of {amount:,} Dense(4)", "s", "build", "chain", (10_000, 10_000), BUILDING),
    "import": Row("import, torch being there", "ms", "", "", (1, 1), (EAGER, KERAS_TORCH, KERAS_JAX), measure="import"),
    "first-step-cold": Row(
        "MLP, drawn to second step, caches empty",
        "ms",
        "fit",
        "mlp",
        # (A step of ours is compiled at its second call.)
        (2, 2),
        STARTING,
        measure="first step",
        cold=True,
    ),
    "first-step-warm": Row(
        "MLP, drawn to second step, caches full",
        "ms",
        "fit",
        "mlp",
        (2, 2),
        STARTING,
        measure="first step",
    ),
}

MEMORY = {
    f"memory-{name}": Row(
        f"peak memory of {row.title.split(',')[0]}",
        "MiB",
        "fit",
        row.model,
        (20, 2),
        (EAGER, INDEXING, LOADER),
        {(EAGER, INDEXING): 1.05, (EAGER, LOADER): 1.05},
        measure="memory",
    )
    for name, row in FIT.items()
    if name != "empty"
}

CALLING = (EAGER, MODULE, KERAS_TORCH)
TABLE = (EAGER, COMPILED, INDEXING, KERAS_TORCH)

# What a step or a call costs beside its kernels. (A module that is called has no more than its call.)
COSTS = {
    "call": Row(
        "call of three Dense layers, one row", "µs", "call", "small", (500, 50), CALLING, {(EAGER, MODULE): 1.5}
    ),
    "call-eval": Row(
        "the same, training=False", "µs", "call in eval mode", "small", (500, 50), CALLING, {(EAGER, MODULE): 1.5}
    ),
    "predict-on-batch": Row(
        "predict_on_batch of one row", "µs", "predict_on_batch", "small", (500, 50), CALLING, {(EAGER, MODULE): 3.0}
    ),
    "predict-row": Row(
        "predict of one row", "µs", "predict one row", "small", (500, 50), CALLING, {(EAGER, MODULE): 3.0}
    ),
    "train-on-batch": Row(
        "train_on_batch of one row", "µs", "train_on_batch", "small", (500, 50), CALLING, {(EAGER, MODULE): 1.0}
    ),
    "columns": Row(
        "fit of 200 columns, a step of 64",
        "ms",
        "fit a table",
        "columns-200",
        (200, 10),
        TABLE,
        {(EAGER, INDEXING): 0.3},
    ),
    "columns-1000": Row(
        "fit of 1,000 columns, a step of 64",
        "ms",
        "fit a table",
        "columns-1000",
        (100, 5),
        (EAGER, INDEXING),
        {(EAGER, INDEXING): 0.3},
    ),
    "frame": Row(
        "fit of a frame of 200 columns, a step of 64",
        "ms",
        "fit a table",
        "frame-200",
        (200, 10),
        (EAGER, INDEXING),
        {(EAGER, INDEXING): 0.3},
    ),
    "embedding": Row(
        "fit of an embedding of a million rows, sparse gradients, a step of 256",
        "ms",
        "fit a table",
        "embedding-0",
        (100, 5),
        (EAGER, INDEXING),
        {(EAGER, INDEXING): 1.0},
    ),
}

ROWS = FIT | LARGE | OTHERS | COSTS | MEMORY

# The steps of `FIT` as multiples of what their kernels take alone.
FLOORS = {
    name: replace(
        FIT[name],
        contestants=(EAGER, COMPILED, *([UNROLLED] if name == "mlp" else []), FLOOR),
        asked={(COMPILED, FLOOR): asked} | ({(UNROLLED, FLOOR): 1.15} if name == "mlp" else {}),
    )
    for name, asked in {
        "mlp": 1.25,
        "ticket": 1.15,
        "resnet": 1.1,
        "vgg": 1.1,
        "encoder": 1.15,
        "siamese": 1.15,
    }.items()
}
