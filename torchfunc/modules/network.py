"""Network: a layer made of layers; what a drawn model, a Sequential and a subclassed model have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.errors import did_you_mean
from torchfunc.graph import CALL_ERRORS, modules_within, pass_over, record_input
from torchfunc.layers import Layer
from torchfunc.layers.base.tracking import TrackedDict, TrackedList, TrackedTuple
from torchfunc.modules.float_dtype import TypedByWeights
from torchfunc.modules.naming import Namer
from torchfunc.recursion import Steps
from torchfunc.registry import to_snake_case
from torchfunc.structures import map_structure

__all__ = ["Network", "OutputDescription", "TrainingOutputs"]

_COLLECTIONS = (nn.ModuleList, nn.ModuleDict, TrackedList, TrackedTuple, TrackedDict)


class OutputDescription(NamedTuple):
    """What a model knows of an output.

    Attributes:
        activation: "softmax" (over the last axis) or "sigmoid", if that is where the output comes from.
        masked: whether the output has a mask.
    """

    activation: str | None = None
    masked: bool = False


class TrainingOutputs(NamedTuple):
    """What a model computes for training.

    Attributes:
        y_pred: what the model returns.
        masks: for each output, in flat order, its mask or None; None if no output has one.
        logits: for each output, in flat order, what went into its final softmax or sigmoid, or None; None if none was
            requested, or none of those requested is known.
    """

    y_pred: Any
    masks: Sequence[Tensor | None] | None = None
    logits: Sequence[Tensor | None] | None = None


class Network(TypedByWeights):
    """A model without its training loop. Subclass `torchfunc.Model`, which has one."""

    # Of a model that is drawn.
    runs_its_graph = False
    graph_was_changed = False
    drawn: Any = None
    # Whether there is a `call` or `forward`. A model may do without: its `train_step` calls its parts.
    has_call = True
    # Whether `recording` is `record_call` as steps for `unrolled`.
    records_in_steps = False

    def recording(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Steps:
        """`record_call` for `unrolled`, of a drawn model."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Any:
        """Set train or eval mode. A module of torch.export has one mode for good, and is left in it."""
        self.training = mode
        for module in self.children():
            # (torch's own modules of that kind raise here.)
            with contextlib.suppress(NotImplementedError):
                module.train(mode)
        return self

    def to_empty(self, *, device: Any, recurse: bool = True) -> Any:
        """As torch's: weights elsewhere, without values, to be loaded. What no state_dict holds keeps its own."""
        saved = self.state_dict()
        kept = {name: each for name, each in self.named_buffers() if name not in saved and not each.is_meta}
        super().to_empty(device=device, recurse=recurse)
        for name, value in kept.items():
            self.get_buffer(name).copy_(value)
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.has_call = cls.forward is not nn.Module.forward

    @pass_over
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.has_call:
            raise NotImplementedError(
                f"Model {self.name!r} cannot be called, since {type(self).__name__} has no `call`. Call its layers, as "
                "its own steps do, or write `call(self, inputs)` (or torch's `forward`)."
            )
        return self.run_outermost(super().__call__, *args, **kwargs)

    def keeps_inputs(self) -> bool:
        """Whether a call surely leaves the memory of its inputs as it is: it is that of the graph that was drawn."""
        return self.runs_its_graph and not self.graph_was_changed

    def forward_for_training(self, *prepared: Any, logits_of: Sequence[int] = ()) -> TrainingOutputs:
        """The outputs, and for the loss their masks and the logits behind them, as far as the model knows.

        Args:
            *prepared: what `prepare_inputs` made.
            logits_of: the numbers of the outputs, in flat order, whose logits are wanted.

        Returns:
            `y_pred` is exactly what the model returns.
        """
        return TrainingOutputs(self(*prepared))

    def describe_outputs(self) -> list[OutputDescription] | None:
        """What is known of each output, in flat order, without running anything; None for a model that is not drawn."""
        return None

    @property
    def layers(self) -> list[nn.Module]:
        """The layers and modules of the model, those in lists and dicts included."""
        found: list[nn.Module] = []
        pending = list(self.children())[::-1]
        while pending:
            module = pending.pop()
            if isinstance(module, _COLLECTIONS):
                pending.extend(list(module.children())[::-1])
            else:
                found.append(module)
        return list(dict.fromkeys(found))

    def layer_names(self) -> list[str]:
        """The names of `layers`, in their order; those that nobody gave are numbered, by type."""
        namer, names = Namer(), dict.fromkeys(self.layers, "")
        # Given names first, so that no number takes one of them.
        for layer in sorted(names, key=lambda layer: not (isinstance(layer, Layer) and layer.has_explicit_name)):
            names[layer] = namer.next(layer.name if isinstance(layer, Layer) else to_snake_case(type(layer).__name__))
        return list(names.values())

    def get_layer(self, name: str | None = None, index: int | None = None) -> nn.Module:
        """A layer by its name or its place in `layers`.

        Raises:
            ValueError: there is no such layer, or neither or both of name and index were given.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(1)(layers.Dense(3, name="hidden")(inputs)))
        >>> model.get_layer("hidden").units, model.get_layer(index=-1).units
        (3, 1)
        """
        if (name is None) == (index is None):
            raise ValueError("get_layer() takes a name or an index.")
        names = self.layer_names()
        if index is not None:
            if not -len(names) <= index < len(names):
                raise ValueError(f"Model {self.name!r} has {len(names)} layers, there is none at index {index}.")
            return self.layers[index]
        if name not in names:
            raise ValueError(
                f"Model {self.name!r} has no layer called {name!r}.{did_you_mean(name, names)} "
                f"Its layers are: {', '.join(names)}."
            )
        return self.layers[names.index(name)]

    @property
    def input_names(self) -> list[str] | None:
        """The inputs' names, if they are known before the model runs."""
        return None

    @property
    def output_names(self) -> list[str] | None:
        """The names of the outputs in order; None where only running the model would tell."""
        return None

    def prepare_inputs(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The arguments of a call as the model's own code gets them: arrays as tensors, in the model's order.

        Floats come in the dtype that their inputs declare, or else that of the weights.

        Raises:
            ValueError: inputs are missing, unknown, or of the wrong shape.
        """
        dtype = self.float_dtype() or as_dtype(floatx())

        def convert(leaf: Any) -> Any:
            value = self._to_tensor(leaf)
            floats = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(dtype) if floats and value.dtype is not dtype else value

        converted: tuple[Any, ...] = map_structure(convert, args)
        return converted

    def build_from_inputs(self, *inputs: Any) -> None:
        """Make the weights that a call on `inputs` needs, without running on them or changing anything else."""
        if not self.has_call or self.is_fully_built():
            return

        def stand_in(leaf: Any, batch: bool) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            shape = tuple(leaf.shape) if batch else (None, *leaf.shape[1:])
            return record_input("data", shape, leaf.dtype).outputs

        try:
            self._infer_first_call(map_structure(lambda leaf: stand_in(leaf, batch=False), inputs))
        except CALL_ERRORS as error:
            # The call may depend on the size of the batch.
            try:
                self._infer_first_call(map_structure(lambda leaf: stand_in(leaf, batch=True), inputs))
            except CALL_ERRORS:
                # (As it was raised: its cause is what a reader needs.)
                raise error from error.__cause__

    def is_fully_built(self) -> bool:
        """Whether this model and every layer in it have their weights."""
        # (A loop: of a small model a generator takes as long as a layer's call.)
        for layer in modules_within(self):
            if isinstance(layer, Layer) and not layer.built and getattr(layer, "has_call", True):
                return False
        return True

    def _infer_first_call(self, inputs: Sequence[Any]) -> None:
        arguments = self._bind(inputs, {})
        if not self.built:
            self._build_for(arguments)
        self._infer_by_running(inputs, {})
