"""How a step's time grows with the number of processes: ours, and a loop by hand with DistributedDataParallel.

And how long training waits for a save: of whole weights, which one process writes; of sharded ones, which all write;
and of these while another thread writes them.

Each process has batches of the same size, whatever the number of processes. `python scaling.py` is what each of them
runs, started by torchrun; the first one prints its times.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["scaling_table"]

WIDTHS = (784, 512, 512, 10)
BATCH, STEPS = 64, 50
CALLS = ("ours", "by hand", "alone")
# How a model is trained and saved: the strategy, and whether training goes on meanwhile.
SAVES = {"saved whole": ("ddp", False), "saved in shards": ("fsdp", False), "the same, behind": ("fsdp", True)}


def scaling_table(rounds: int) -> Iterator[str]:
    """The lines of the table, for 1 and 2 processes on the CPU, or as many as there are GPUs."""
    import torch  # not needed otherwise on this side

    most = torch.cuda.device_count() if torch.cuda.is_available() else 2
    yield f"An MLP of {' - '.join(map(str, WIDTHS))}, Adam, {BATCH} rows a process and step; one thread a process."
    yield ""
    saves = " | ".join(f"{name} [ms]" for name in SAVES)
    yield f"| processes | ours [µs] | by hand [µs] | ratio | efficiency | exchange | {saves} |"
    yield f"|{'---:|' * (6 + len(SAVES))}"
    first = 0.0
    for size in sorted({1, min(2, most), most}):
        times = measured(size, rounds)
        ours, hand, alone = (times[name] for name in CALLS)
        first = first or ours
        cells = (size, f"{ours:,.0f}", f"{hand:,.0f}", f"{ours / hand:.2f}", f"{first / ours:.2f}")
        waits = " | ".join(f"{times[name] / 1e3:.3g}" for name in SAVES)
        yield f"| {' | '.join(map(str, cells))} | {max(0.0, 1 - alone / ours):.2f} | {waits} |"


def measured(size: int, rounds: int) -> dict[str, float]:
    """The median time of a step in microseconds, of each contestant in so many processes."""
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*program, __file__, str(rounds)], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def build(strategy: str | None) -> Any:
    """The model, compiled."""
    from torchfunc import Input, layers, optimizers
    from torchfunc.models import Sequential

    hidden = [layers.Dense(width, activation="relu") for width in WIDTHS[1:-1]]
    model = Sequential([Input((WIDTHS[0],)), *hidden, layers.Dense(WIDTHS[-1], activation="softmax")])
    model.compile(optimizers.Adam(), "sparse_categorical_crossentropy", strategy=strategy)
    return model


def contestants() -> dict[str, Callable[[], float]]:
    """Functions that train for some steps and give the seconds of one: together, by hand, and each for itself.

    And functions that give the seconds that a save takes of a training.
    """
    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    from torchfunc import callbacks

    rank, size = distributed.get_rank(), distributed.get_world_size()
    on_cuda = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")
    torch.manual_seed(0)
    rows = BATCH * STEPS * size
    x, y = torch.rand(rows, WIDTHS[0]), torch.randint(0, WIDTHS[-1], (rows,))

    def clocked(train: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            distributed.barrier()
            begun = time.perf_counter()
            train()
            if on_cuda:
                torch.cuda.synchronize()
            return (time.perf_counter() - begun) / STEPS

        return run

    def ours(strategy: str | None) -> Callable[[], float]:
        model = build(strategy)
        batch = BATCH * size if strategy else BATCH
        data = (x, y) if strategy else (x[: BATCH * STEPS], y[: BATCH * STEPS])
        return clocked(lambda: model.fit(*data, batch_size=batch, verbose=0))

    def saving(strategy: str, in_background: bool) -> Callable[[], float]:
        model = build(strategy)

        class Clocked(callbacks.BackupAndRestore):
            longest = 0.0

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                begun = time.perf_counter()
                super().on_train_batch_end(batch, logs)
                self.longest = max(self.longest, time.perf_counter() - begun)

        def run() -> float:
            with tempfile.TemporaryDirectory() as own:
                folders = [own]
                distributed.broadcast_object_list(folders)
                backup = Clocked(folders[0], STEPS // 2, save_on_background=in_background)
                model.fit(x, y, batch_size=BATCH * size, verbose=0, callbacks=[backup])
                distributed.barrier()
                return backup.longest

        return run

    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(WIDTHS):
        parts += [nn.Linear(before, after), nn.ReLU()]
    plain = DistributedDataParallel(nn.Sequential(*parts[:-1]).to(device))
    optimizer = torch.optim.Adam(plain.parameters())
    own_x, own_y = x[rank::size].to(device), y[rank::size].to(device)

    def by_hand() -> None:
        torch.set_flush_denormal(True)
        for numbers in torch.randperm(len(own_x), device=device).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(own_x[numbers]), own_y[numbers]).backward()
            optimizer.step()
        torch.set_flush_denormal(False)

    saves = {name: saving(*how) for name, how in SAVES.items()}
    return {"ours": ours("ddp"), "by hand": clocked(by_hand), "alone": ours(None), **saves}


def main(rounds: int) -> None:
    """Let the contestants take turns, and print the medians."""
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        torch.set_num_threads(1)
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    calls = contestants()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in calls:
            seconds = calls[name]()
            if turn:
                times[name].append(seconds)
    if distributed.get_rank() == 0:
        print(json.dumps({name: 1e6 * statistics.median(found) for name, found in times.items()}))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))
