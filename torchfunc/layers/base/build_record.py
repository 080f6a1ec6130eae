"""The shapes that a layer is built for: noted when it is, written to configs, and built from again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.call_arguments import bind_call, call_with_shapes
from torchfunc.layers.base.shapes import Shapes, map_shapes

__all__ = ["BuildRecord", "marking_built"]


class BuildRecord:
    """What a layer was built for.

    Attributes:
        built: whether it is built.
        build_shapes: the shapes, by `<argument>_shape`; None before.
    """

    built: bool
    build_shapes: dict[str, Shapes] | None
    build: Callable[..., None]
    describe: Callable[[], str]

    def build_from_shapes(self, shapes: Mapping[str, Any]) -> None:
        """Call `build` with the shapes it takes, given as `{"<argument>_shape": shape}`, and record them."""
        if type(self).forward is nn.Module.forward:  # type: ignore[attr-defined]
            raise NotImplementedError(
                f"{self.describe()} says nowhere what it computes: write `call(self, inputs)`, or torch's `forward`."
            )
        # Weights made for a first call in inference mode have to be trainable afterwards.
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext():
            call_with_shapes(self.build, shapes)
        if not self.built:
            self.built = True
        if not self.build_shapes:
            self.__dict__["build_shapes"] = dict(shapes)

    def get_build_config(self) -> Config | None:
        """The shapes the layer was built with, None before it is built."""
        if not self.build_shapes:
            return None
        if len(self.build_shapes) == 1:
            return {"input_shape": next(iter(self.build_shapes.values()))}
        return {"shapes_dict": dict(self.build_shapes)}

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Build with what `get_build_config` gave."""
        if "shapes_dict" in config:
            self.build_from_shapes({name: map_shapes(tuple, shapes) for name, shapes in config["shapes_dict"].items()})
        elif config.get("input_shape") is not None:
            self.build_from_shapes({"input_shape": map_shapes(tuple, config["input_shape"])})


def marking_built(build: Callable[..., None]) -> Callable[..., None]:
    """`build`, which afterwards sets `built` and records the shapes, whoever calls it."""

    @functools.wraps(build)
    def marked(self: BuildRecord, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self.built = True
        if self.build_shapes is None:
            shapes = bind_call(build, self, args, kwargs)
            self.__dict__["build_shapes"] = {name: shape for name, shape in shapes.items() if shape is not None}

    return marked
