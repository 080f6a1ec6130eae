"""Damages files of models in seeded ways, and looks at what reading them does.

    python scripts/fuzz_files.py --cases 5000 --seed 0

Each case takes a good file, changes it, and reads it. It passes if the file loads as it was (a change may touch nothing
that counts), or is refused with a ValueError or OSError. It fails if other numbers come out of a file that was damaged
at random, something else is raised, a model that was to be filled changes, anything is executed or written, it takes
10 seconds or 1 GB, or the process dies. A change that is made on purpose, with right checksums, may load as what it
says.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import torchfunc as tf
from torchfunc import callbacks, layers, saving
from torchfunc.models import Model
from torchfunc.saving.safetensors_layout import Layout
from torchfunc.saving.states import read_state, write_state

SECONDS, BYTES = 10, 1_000_000_000
OWN_ERRORS = (ValueError, OSError)

# What no file may do. (Generated code is compiled and executed when a model is drawn.)
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn"),
    *("socket.connect", "socket.bind", "urllib.Request", "pickle.find_class", "marshal.loads"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"),
    *("shutil.copyfile", "shutil.rmtree", "shutil.move", "ctypes.dlopen"),
)
_watched: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    # (The one file that a case of a backup begins with is written by the case.)
    to_write = (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    if event == "marshal.loads" and sys._getframe(1).f_code.co_filename == "<frozen importlib._bootstrap_external>":
        # A module of some library is imported late.
        return
    if event in FORBIDDEN or (to_write and not str(arguments[0]).endswith("latest.safetensors")):
        _watched.append(f"{event}{arguments!r}"[:200])


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """What is executed or written within this block."""
    global _watched
    _watched = found = []
    try:
        yield found
    finally:
        _watched = None


# The good files ------------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).standard_normal((8, 6)).astype("float32")
Y = X[:, :1]


def layers_only() -> Model:
    inputs = tf.Input((6,), name="numbers")
    x = layers.Dense(5, activation="relu", kernel_regularizer="l2")(inputs)
    x = layers.BatchNormalization()(layers.Dropout(0.1, seed=1)(x))
    model = Model(inputs, layers.Dense(1, name="out")(x))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, Y, verbose=0)
    return model


def with_torch() -> Model:
    inputs = tf.Input((6,), name="numbers")
    x = nn.Linear(6, 6)(inputs)
    x = nn.Sequential(nn.Tanh(), nn.Linear(6, 5))(torch.nn.functional.gelu(x) + inputs.clamp(-1, 1))
    model = Model(inputs, (layers.Dense(1)(x), x[:, 1:3]))
    model.compile(torch.optim.Adam, ["mse", None])
    model.fit(X, [Y, X[:, 1:3]], verbose=0)
    return model


def contents(model: Model) -> dict[str, Any]:
    """All that a file of a model says, to be compared."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    optimizer = getattr(model, "optimizer", None)
    variables = [] if optimizer is None else [variable.clone() for variable in optimizer.variables]
    try:
        config = json.dumps(model.get_config(), default=str)
    except (RecursionError, TypeError, ValueError) as error:
        # What was loaded on purpose may be nothing that can be written again.
        config = repr(error)
    return {"config": config, "state": {n: v.detach().clone() for n, v in state.items()}, "variables": variables}


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return (
            isinstance(found, torch.Tensor)
            and found.dtype == expected.dtype
            and torch.equal(found.nan_to_num(), expected.nan_to_num())
        )
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and np.array_equal(found, expected)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(map(equal, found.values(), expected.values()))
        )
    if isinstance(expected, (list, tuple)):
        return type(found) is type(expected) and len(found) == len(expected) and all(map(equal, found, expected))
    return bool(found == expected)


@dataclasses.dataclass
class Kind:
    """One kind of file.

    Attributes:
        ending: how its names end.
        data: a good file.
        read: reads a path, and returns what it says.
        expected: what the good file says.
        changed: whether something that was to be filled by the last `read` was changed.
        edits: changes on purpose.
    """

    ending: str
    data: bytes
    read: Callable[[Path], Any]
    expected: Any
    changed: Callable[[], bool] = lambda: False
    edits: list[Callable[[bytes, random.Random], bytes]] = dataclasses.field(default_factory=list)


def whole_model(model: Model, ending: str, folder: Path) -> Kind:
    path = folder / f"good{ending}"
    model.save(path)
    expected = contents(saving.load_model(path))
    edits = [edited_config, edited_sections, edited_zip]
    return Kind(ending, path.read_bytes(), lambda path: contents(saving.load_model(path)), expected, edits=edits)


def weights(ending: str, folder: Path) -> Kind:
    path, source, target = folder / f"good{ending}", layers_only(), layers_only()
    source.save_weights(path)
    before = contents(target)

    def read(path: Path) -> Any:
        # The model is back at what it was before each case.
        with torch.no_grad():
            for name, value in {**dict(target.named_parameters()), **dict(target.named_buffers())}.items():
                value.copy_(before["state"][name])
            for value, old in zip(target.optimizer.variables, before["variables"], strict=True):
                value.copy_(old)
        target.load_weights(path)
        return contents(target)["state"]

    edits = [edited_header] if ending == ".safetensors" else []
    expected = read(path)
    return Kind(ending, path.read_bytes(), read, expected, lambda: not equal(contents(target), before), edits)


def backup(folder: Path) -> Kind:
    """What `BackupAndRestore` writes, taken up by a `fit`."""
    place = folder / "backups"
    model = layers_only()
    keeping = callbacks.BackupAndRestore(place, delete_checkpoint=False)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=keeping)
    data = (place / "latest.safetensors").read_bytes()
    target = layers_only()
    before = contents(target)

    def read(path: Path) -> Any:
        with torch.no_grad():
            for name, value in {**dict(target.named_parameters()), **dict(target.named_buffers())}.items():
                value.copy_(before["state"][name])
            for value, old in zip(target.optimizer.variables, before["variables"], strict=True):
                value.copy_(old)
        (place / "latest.safetensors").write_bytes(path.read_bytes())
        resumed = callbacks.BackupAndRestore(place, save_freq=False, delete_checkpoint=False)
        target.fit(X, Y, epochs=2, verbose=0, callbacks=resumed)
        return contents(target)

    path = folder / "good.backup"
    path.write_bytes(data)
    expected = read(path)
    return Kind(".backup", data, read, expected, lambda: not equal(contents(target), before), [edited_header])


def state(folder: Path) -> Kind:
    value = {"a": [1, (2.5, None)], "t": torch.arange(50.0), 3: np.arange(4, dtype="int16"), "s": "x" * 50}
    path = folder / "good.state"
    write_state(path, value)
    return Kind(".state", path.read_bytes(), read_state, value, edits=[edited_header])


def all_kinds(folder: Path) -> dict[str, Kind]:
    """The kinds of files by name."""
    kinds = {
        ".torchfunc": whole_model(layers_only(), ".torchfunc", folder),
        ".torchfunc of torch modules": whole_model(with_torch(), ".torchfunc", folder),
        ".safetensors": weights(".safetensors", folder),
        "backup": backup(folder),
        "state": state(folder),
    }
    for ending, make in ((".keras", lambda: whole_model(layers_only(), ".keras", folder)), (".weights.h5", None)):
        # Formats that this version cannot write are left out.
        with contextlib.suppress(ValueError):
            kinds[ending] = make() if make else weights(ending, folder)
    return kinds


# Damage at random ----------------------------------------------------------------------------------------------------


def flipped_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped_in_front(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(min(600, len(changed)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped_at_the_end(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[-1 - rng.randrange(min(400, len(changed)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def extended(data: bytes, rng: random.Random) -> bytes:
    more = rng.randbytes(rng.randrange(1, 200))
    return data + more if rng.random() < 0.7 else more + data


def overwritten(data: bytes, rng: random.Random) -> bytes:
    start, count = rng.randrange(len(data)), rng.randrange(1, 600)
    what = rng.choice((b"\0" * count, b"\xff" * count, rng.randbytes(count)))
    return data[:start] + what + data[start + count :]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 300) :]


def moved(data: bytes, rng: random.Random) -> bytes:
    """Two blocks exchanged, as on a disk whose sectors were written in the wrong order."""
    size = rng.choice((16, 64, 512))
    a, b = (rng.randrange(0, max(1, len(data) - size)) for _ in range(2))
    a, b = sorted((a, b))
    if b < a + size:
        return data
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


def changed_letter(data: bytes, rng: random.Random) -> bytes:
    """One letter or digit exchanged for another, in a text or in numbers."""
    places = [place for place, byte in enumerate(data) if chr(byte).isalnum() and byte < 128]
    place = rng.choice(places)
    return data[:place] + bytes([rng.choice(b"0123456789abcdefxyzAEZ")]) + data[place + 1 :]


DAMAGE = (
    *(flipped_bits, flipped_in_front, flipped_at_the_end, truncated, extended, overwritten, cut_out, moved),
    changed_letter,
)


# Changes on purpose --------------------------------------------------------------------------------------------------

NAMES = (
    *(
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "torch.load",
        "torch.hub.load",
        "importlib.import_module",
        "pickle",
    ),
    *("pickle.loads", "subprocess.Popen", "__import__", "torch.utils.data.DataLoader", "torch.serialization.load"),
    *("numpy.load", "eval", "getattr", "torch.nn.functional.os", "../../etc/passwd", "torch.jit.load", "Lambda", ""),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _places(value[index], (*path, index))


def _deep(rng: random.Random) -> Any:
    value: Any = 1
    for _ in range(rng.choice((50, 500))):
        value = [value] if rng.random() < 0.5 else {"class_name": "Dense", "config": {"units": value}}
    return value


def edited_value(value: Any, rng: random.Random) -> Any:
    """A JSON value with one place changed."""
    places = [place for place in _places(value) if place]
    if not places:
        return value
    *path, last = rng.choice(places)
    owner = value
    for key in path:
        owner = owner[key]
    named = [place for place in places if place[-1] in ("class_name", "module", "registered_name", "target", "op")]
    what = rng.randrange(9)
    if what <= 2 and named:
        *path, last = rng.choice(named)
        owner = value
        for key in path:
            owner = owner[key]
        owner[last] = rng.choice(NAMES)
    elif what == 3:
        lambdas = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA", None, None]}}
        partial = {
            "class_name": "__partial__",
            "config": {"function": rng.choice(NAMES), "args": ["id"], "keywords": {}},
        }
        owner[last] = rng.choice((lambdas, partial))
    elif what == 4:
        owner[last] = rng.choice((10**9, 10**30, -1, 0, 2**31, 1e308, float("nan"), 10**6))
    elif what == 5:
        owner[last] = rng.choice((None, True, "", "x" * 10_000, [], {}, [[]], {"class_name": "Dense"}))
    elif what == 6:
        owner[last] = _deep(rng)
    elif what == 7:
        del owner[last]
    else:
        owner[last] = rng.choice([_at(value, place) for place in places])
    return value


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return json.loads(json.dumps(value))


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(members: dict[str, bytes] | list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return file.getvalue()


def edited_config(data: bytes, rng: random.Random) -> bytes:
    members = _members(data)
    name = rng.choice([name for name in members if name.endswith(".json")] + ["config.json"] * 4)
    members[name] = json.dumps(edited_value(json.loads(members[name]), rng)).encode()
    if rng.random() < 0.02:
        depth = rng.choice((1_000, 100_000))
        members[name] = rng.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth))
    return _zipped(members)


def edited_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, whose checksum is right half the time."""
    length = int.from_bytes(data[:8], "little")
    header = edited_value(json.loads(data[8 : 8 + length]), rng)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(metadata, dict) and rng.random() < 0.5:
        metadata.pop("header_crc32", None)
        if rng.random() < 0.5:
            metadata.pop("data_crc32", None)
    text = json.dumps(header).encode()
    body = data[8 + length :]
    if rng.random() < 0.5:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            metadata.pop("header_crc32", None)
            layout = Layout.decode(json.dumps({**header, "__metadata__": {}}).encode(), len(body))
            plain = {key: value for key, value in metadata.items() if key != "data_crc32"}
            return dataclasses.replace(layout, metadata=plain).encode() + body
    size = rng.choice((len(text), len(text), 2**40, 2**63, 0, len(text) + 1))
    return size.to_bytes(8, "little") + text + body


def edited_sections(data: bytes, rng: random.Random) -> bytes:
    members = _members(data)
    sections = [name for name in members if name.endswith(".safetensors")]
    if not sections:
        return edited_zip(data, rng)
    name = rng.choice(sections)
    members[name] = edited_header(members[name], rng)
    return _zipped(members)


def edited_zip(data: bytes, rng: random.Random) -> bytes:
    members = list(_members(data).items())
    what = rng.randrange(8)
    first, second = rng.randrange(len(members)), rng.randrange(len(members))
    if what == 0:
        a, b = members[first], members[second]
        members[first], members[second] = (a[0], b[1]), (b[0], a[1])
    elif what == 1:
        members.append(members[first])
    elif what == 2:
        members.append(
            (rng.choice(("../evil", "/tmp/evil", "..\\evil", "config.json/../../x", "a\0b", "a" * 5000)), b"x")
        )
    elif what == 3:
        del members[first]
    elif what == 4:
        members[first] = members[first][0], b""
    elif what == 5:
        bomb = [
            (name, b"\0" * 50_000_000 if index == first else content) for index, (name, content) in enumerate(members)
        ]
        return _zipped(bomb, zipfile.ZIP_DEFLATED)
    elif what == 6:
        packed = bytearray(_zipped(members))
        for _ in range(3):
            # Sizes and offsets in the directory.
            place = packed.rfind(b"PK\x01\x02", 0, rng.randrange(len(packed)) + 4)
            if place >= 0:
                struct.pack_into(
                    "<I", packed, place + rng.choice((16, 20, 24, 42)), rng.choice((0, 2**31, 2**32 - 1, 7))
                )
        return bytes(packed)
    else:
        rng.shuffle(members)
    return _zipped(members)


# Cases ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    """How one case ended: `verdict` is "loaded", "refused", or what is wrong."""

    kind: str
    change: str
    verdict: str
    detail: str = ""

    @property
    def is_good(self) -> bool:
        return self.verdict in ("loaded", "refused", "loaded as changed")


def peak_memory() -> int:
    """The peak of this process's memory in bytes since `reset_peak`; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def run_case(kinds: dict[str, Kind], number: int, seed: int, folder: Path) -> Outcome:
    """Damage a file, read it, and judge."""
    rng = random.Random(f"{seed}/{number}")
    name = list(kinds)[number % len(kinds)]
    kind = kinds[name]
    edited = bool(kind.edits) and rng.random() < 0.5
    change = rng.choice(kind.edits if edited else DAMAGE)
    data = change(kind.data, rng)
    path = folder / f"case{kind.ending}"
    path.write_bytes(data)
    before = set(os.listdir(folder))
    reset_peak()
    memory, start = peak_memory(), time.perf_counter()
    error: BaseException | None = None
    with watched() as events, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = kind.read(path)
        except Exception as raised:  # noqa: BLE001
            error = raised
    seconds, used = time.perf_counter() - start, peak_memory() - memory
    outcome = Outcome(name, change.__name__, "refused" if error else "loaded", f"{type(error).__name__}: {error}"[:300])
    if events:
        outcome.verdict, outcome.detail = "executed or written", "; ".join(events[:3])
    elif set(os.listdir(folder)) != before:
        outcome.verdict = "files were made"
    elif seconds > SECONDS or used > BYTES:
        outcome.verdict = f"took {seconds:.1f} s and {used / 1e6:.0f} MB"
    elif error is not None and not isinstance(error, OWN_ERRORS):
        outcome.verdict = "raw error"
    elif error is not None and kind.changed():
        outcome.verdict = "refused, but the model was changed"
    elif error is None and not equal(found, kind.expected):
        outcome.verdict = "loaded as changed" if edited else "other numbers"
    return outcome


def run_cases(first: int, last: int, seed: int) -> Iterator[tuple[int, Outcome]]:
    """The cases of these numbers, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tf.utils.set_random_seed(0)
        kinds = all_kinds(folder)
        for number in range(first, last):
            yield number, run_case(kinds, number, seed, folder)


sys.addaudithook(_audit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--child", action="store_true", help="run the cases in this very process")
    options = parser.parse_args()
    if options.child:
        for number, outcome in run_cases(options.first, options.cases, options.seed):
            print(json.dumps([number, dataclasses.asdict(outcome)]), flush=True)
        return
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    bad = 0
    number = options.first
    while number < options.cases:
        command = [sys.executable, __file__, "--child", "--seed", str(options.seed)]
        command += ["--first", str(number), "--cases", str(options.cases)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                number, fields = json.loads(line)
                outcome = Outcome(**fields)
                counts[outcome.kind, outcome.verdict] += 1
                number += 1
                if not outcome.is_good:
                    bad += 1
                    print(f"case {number - 1}: {outcome.kind}, {outcome.change}: {outcome.verdict}. {outcome.detail}")
        if child.returncode:
            bad += 1
            print(f"case {number}: the process ended with {child.returncode}")
            number += 1
    for (kind, verdict), count in sorted(counts.items()):
        print(f"{count:6d}  {kind}: {verdict}")
    print(f"{sum(counts.values())} cases, {bad} bad")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
