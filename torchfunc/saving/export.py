"""export: a model as a program for torch.export, ONNX or AOTInductor, for batches of any size."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.errors import did_you_mean
from torchfunc.graph import SymbolicTensor, really_set, record_input
from torchfunc.layers.base.shapes import is_shape
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.network import Network
from torchfunc.saving.files import PathLike, replacing
from torchfunc.structures import leaves, map_structure

__all__ = ["export_model"]

# What ONNX holds in one file.
_ONNX_BYTES = 2**31 - 2**20


def export_model(model: Network, path: PathLike, format: str) -> None:
    """Write a model, in evaluation mode, as a program of another format.

    Args:
        model: the model, built.
        path: the file; it ends in ".onnx" for "onnx", else in ".pt2".
        format: "torch_export", "onnx" or "aot_inductor".

    Raises:
        ValueError: there is no such format, the name ends otherwise, or the model is not built.
        ImportError: the packages that write ONNX are not installed.
    """
    if format not in _WRITERS:
        raise ValueError(
            f"export() takes one of {', '.join(map(repr, _WRITERS))} for format, got {format!r}."
            f"{did_you_mean(format, list(_WRITERS))}"
        )
    ending = ".onnx" if format == "onnx" else ".pt2"
    if not os.fspath(path).endswith(ending):
        raise ValueError(f"The name of a file of format {format!r} ends in {ending!r}, got {os.fspath(path)!r}.")
    inputs, shapes = _examples(model)
    with really_set([model], False), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # The exporters warn of their own internals.
        warnings.simplefilter("ignore")
        written = Path(folder) / f"model{ending}"
        _WRITERS[format](model, inputs, shapes, written)
        for beside in Path(folder).iterdir():
            target = path if beside == written else Path(path).with_name(beside.name.replace("model", Path(path).stem))
            with replacing(target) as file, beside.open("rb") as source:
                shutil.copyfileobj(source, file)


def _examples(model: Network) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Inputs to trace the model with, and which of their sizes are unknown.

    Raises:
        ValueError: the model is not built.
    """
    batch = torch.export.Dim("batch", min=1)
    weight = next(model.parameters(), torch.zeros((), dtype=as_dtype(floatx())))

    def example(value: SymbolicTensor) -> Tensor:
        shape = value.spec.examples[0]
        dtype = weight.dtype if value.dtype.is_floating_point and weight.dtype.is_floating_point else value.dtype
        return torch.zeros(shape, dtype=dtype, device=weight.device)

    def unknown(value: SymbolicTensor) -> dict[int, Any]:
        sizes = enumerate(value.shape)
        return {axis: batch if axis == 0 else torch.export.Dim.AUTO for axis, size in sizes if size is None}

    declared = _declared(model)
    return tuple(map_structure(example, declared)), tuple(map_structure(unknown, declared))


def _declared(model: Network) -> list[Any]:
    """Symbolic tensors like the arguments of a call of the model."""
    if isinstance(model, GraphNetwork):
        if model.drawn is not None:
            return list(model.drawn.input_tensors)
    elif model.build_shapes:
        dtype = as_dtype(floatx())
        return [
            map_structure(lambda shape: record_input("data", _any_batch(shape), dtype).outputs, each, is_leaf=is_shape)
            for each in model.build_shapes.values()
        ]
    raise ValueError(f"The model {model.name!r} is not built yet: call it on data, or `build` it, first.")


def _any_batch(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return (None, *shape[1:])


def _program(model: Network, inputs: Any, shapes: Any) -> torch.export.ExportedProgram:
    return torch.export.export(model, inputs, dynamic_shapes=shapes)


def _write_program(model: Network, inputs: Any, shapes: Any, path: Path) -> None:
    torch.export.save(_program(model, inputs, shapes), path)


def _write_compiled(model: Network, inputs: Any, shapes: Any, path: Path) -> None:
    torch._inductor.aoti_compile_and_package(_program(model, inputs, shapes), package_path=str(path))


def _write_onnx(model: Network, inputs: Any, shapes: Any, path: Path) -> None:
    size = sum(tensor.nbytes for tensor in leaves(dict(model.state_dict())))
    names = model.output_names
    options: dict[str, Any] = {"external_data": size > _ONNX_BYTES, "verbose": False}
    if names is not None and len(names) == len(set(names)):
        options["output_names"] = names
    try:
        torch.onnx.export(model, inputs, path, dynamo=True, dynamic_shapes=shapes, **options)
    except ImportError as error:
        raise ImportError(f"Writing ONNX needs the packages onnx and onnxscript: {error}") from error


_WRITERS: dict[str, Callable[[Network, Any, Any, Path], None]] = {
    "torch_export": _write_program,
    "onnx": _write_onnx,
    "aot_inductor": _write_compiled,
}
