"""How long things take beside others that do the same: contestants in turn, medians, ratios, a markdown table.

    python scripts/benchmark.py --floor [--quick] [--threads N] [--only ROW ...] [--rounds N]
    python scripts/benchmark.py --growth [--quick]
    python scripts/benchmark.py --scaling [--rounds N]
    python scripts/benchmark.py --waiting [--quick] [--threads N]
    python scripts/benchmark.py [--quick] [--threads N] [--device cuda] [--no-compile] [--only ROW ...] [--rounds N]

Run it on a machine that does nothing else. Each contestant works in a process of its own; in each round every one has
one turn while the others wait, so that whatever else slows the machine slows them all. Needs the extra `benchmark`; who
is not installed is left out. What is measured, and with whom, is in `workloads/rows.py`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform

from workloads.contestants import CONTESTANTS
from workloads.growth import growth_table
from workloads.rows import FLOORS, ROWS, Row
from workloads.scaling import scaling_table
from workloads.turns import Contest, Result
from workloads.waiting import waiting_table

HEADER = ["| work | against | ours | theirs | ratio | asked at most |", "|---|---|---:|---:|---:|---:|"]
NONE = "-"
PACKAGES = ("torchfunc", "torch", "keras", "jax", "lightning", "skorch", "pytorch-symbolic", "numpy")


def shown(result: Result) -> str:
    """A number with three figures, or words."""
    if isinstance(result, str):
        return result
    return f"{result:,.0f}" if result >= 100 else f"{result:.3g}"


def lines(row: Row, title: str, pairs: list[tuple[str, str]], results: dict[str, Result]) -> list[str]:
    """The row's lines of the table: ours, theirs, and ours over theirs."""
    found = []
    for ours, theirs in pairs:
        mine, other = results[ours], results[theirs]
        cells = (
            f"{title}{ours.removeprefix('torchfunc').replace(' compiled', ', compiled', 1)} [{row.unit}]",
            theirs,
            shown(mine),
            shown(other),
            f"{mine / other:.2f}" if isinstance(mine, float) and isinstance(other, float) else NONE,
            f"{row.asked[ours, theirs]:.2f}" if (ours, theirs) in row.asked else NONE,
        )
        found.append(f"| {' | '.join(cells)} |")
    return found


def rate_header() -> list[str]:
    """The head of the table of rates on a card, with what its matrix products reach."""
    import torch  # not needed otherwise on this side
    from workloads.card import matrix_peak

    half, single = (matrix_peak(dtype) / 1e12 for dtype in (torch.bfloat16, torch.float32))
    return [
        f"Matrix products reach {half:,.0f} TFLOP/s in bfloat16 and {single:,.0f} in float32 on this card.",
        "",
        "| work | who | a second | TFLOP/s | peak memory [MiB] |",
        "|---|---|---:|---:|---:|",
    ]


def rate_lines(row: Row, title: str, results: dict[str, Result], peaks: dict[str, float]) -> list[str]:
    """How much each contestant gets done in a second on a card."""
    from workloads.card import items_of, step_flops

    count, what = items_of(row.model)
    flops = step_flops(row.model)
    found = []
    for name, result in results.items():
        if isinstance(result, str):
            continue
        seconds = result / row.scale
        cells = (title, name, f"{count / seconds:,.0f} {what}", f"{flops / seconds / 1e12:.3g}")
        found.append(f"| {' | '.join(cells)} | {peaks.get(name, 0) / 2**20:,.0f} |")
    return found


def processor() -> str:
    """The processor's name, where the system tells it."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def graphics() -> str:
    """The name of the GPU. Raises RuntimeError if there is none."""
    import torch  # not needed otherwise on this side

    return torch.cuda.get_device_name()


def versions() -> str:
    """The versions of whatever is installed."""
    installed = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if name in installed)


def machine(options: argparse.Namespace) -> str:
    """What this was measured on, and with what."""
    threads = f"{options.threads} threads" if options.threads else "threads as each chooses"
    device = f"{graphics()}, " if options.device == "cuda" else ""
    return (
        f"{datetime.date.today()}: {versions()}, Python {platform.python_version()}; "
        f"{device}{processor()}, {os.cpu_count()} cores, {threads}; medians of {options.rounds} rounds."
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, with what follows from them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it works")
    parser.add_argument("--threads", type=int, default=0, help="threads and cores of each; their own choice by default")
    parser.add_argument("--rounds", type=int, help="turns of each that count: 7, or 3 under --quick")
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--no-compile", action="store_true", help="without those that use torch.compile")
    parser.add_argument("--scaling", action="store_true", help="only how a step's time grows with the processes")
    parser.add_argument("--floor", action="store_true", help="only steps beside their kernels alone")
    parser.add_argument("--growth", action="store_true", help="only how times grow with the number of layers")
    parser.add_argument("--waiting", action="store_true", help="only how long a training waits for the compiler")
    parser.add_argument("--limit", type=float, help="seconds after which one that does not answer is left out")
    parser.add_argument("--verbose", action="store_true", help="show what the contestants print")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 7)
    return options


def entered(options: argparse.Namespace) -> list[str]:
    """The contestants that can take part; says who cannot."""
    names = []
    for name, contestant in CONTESTANTS.items():
        if missing := contestant.missing():
            print(f"Left out: {name} ({', '.join(missing)} not installed).")
        elif not ((contestant.only_cuda and options.device == "cpu") or (contestant.inductor and options.no_compile)):
            names.append(name)
    return names


def main(arguments: list[str] | None = None) -> None:
    """Print the tables that are asked for."""
    options = parse(arguments)
    if options.growth or options.waiting:
        print(machine(options), "", sep="\n")
        for line in growth_table(options.quick) if options.growth else waiting_table(options.quick, options.threads):
            print(line, flush=True)
        return
    if options.scaling:
        print(machine(options))
        for line in scaling_table(options.rounds):
            print(line, flush=True)
        return
    if options.floor:
        # With all threads, and with one.
        for threads in [options.threads] if options.threads else [0, 1]:
            options.threads = threads
            measure(options, {name: row for name, row in FLOORS.items() if name in (options.only or FLOORS)})
            print()
        return
    on_card = options.device == "cuda"
    chosen = options.only or [name for name, row in ROWS.items() if on_card or not row.only_cuda]
    measure(options, {name: ROWS[name] for name in chosen})


def measure(options: argparse.Namespace, rows: dict[str, Row]) -> None:
    """Measure these rows and print the table as it grows."""
    names = entered(options)
    print(machine(options), "", *HEADER, sep="\n", flush=True)
    contest = Contest(options.device, options.threads, options.rounds, options.quick, options.verbose, options.limit)
    on_card = options.device == "cuda"
    rates: list[str] = []
    for row in rows.values():
        pairs = [pair for pair in row.pairs() if set(pair) <= set(names)]
        results = contest.measure(row, list(dict.fromkeys(name for pair in pairs for name in pair)))
        title = row.title.format(amount=row.amount[options.quick])
        for line in lines(row, title, pairs, results):
            print(line, flush=True)
        if on_card and row.work == "fit" and row.measure == "turns":
            rates.extend(rate_lines(row, title, results, contest.peaks))
    contest.close()
    if rates:
        print("", *rate_header(), *rates, sep="\n")


if __name__ == "__main__":
    main()
