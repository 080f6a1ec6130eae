"""Models, where the parts meet: the graph of `modules`, the loop of `training` and the tables of `viewing`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.graph import SymbolicValue, symbolic_leaves
from torchfunc.modules import GraphNetwork, SequentialNetwork, drawn_class
from torchfunc.modules import clone_model as clone_network
from torchfunc.modules.from_module import model_of_module
from torchfunc.registry import deserialize_arguments, register_builtins
from torchfunc.saving.conversions import Convertible
from torchfunc.saving.files import PathLike
from torchfunc.saving.model_config import config_of_model, model_from_json
from torchfunc.saving.model_files import load_model, save_model
from torchfunc.saving.weights import load_weights, save_weights
from torchfunc.structures import leaves
from torchfunc.training import Trainer
from torchfunc.training.compile_config import compile_arguments, compile_config
from torchfunc.viewing import (
    Profile,
    in_notebook,
    layer_outputs,
    model_to_dot,
    print_text,
    profile_layers,
    show_in_notebook,
    summarize,
)

__all__ = [
    "Functional",
    "GraphModule",
    "Model",
    "Sequential",
    "clone_model",
    "from_module",
    "load_model",
    "model_from_json",
    "save_model",
]

# The layers of the largest model that a notebook draws by itself.
_MAX_DRAWN = 300


class Model(Trainer, Convertible):
    """A network that can be trained.

    `Model(inputs, outputs)` is the graph between symbolic tensors, a `GraphModule`. A subclass with `call` or `forward`
    is a model too; and one made as `Subclass(inputs, outputs)`, or whose `__init__` calls
    `super().__init__(inputs, outputs)`, is a graph with the subclass' methods.

    Args:
        inputs: symbolic tensor, or list, tuple or dict of them.
        outputs: symbolic tensor, or list, tuple or dict of them, nested as the model shall return them.
        name: the model's name.
        trainable: whether training may change the weights.

    >>> inputs = Input((4,))
    >>> hidden = layers.Dense(8, activation="relu")(inputs)
    >>> model = Model(inputs, layers.Dense(1)(hidden))
    >>> model(torch.zeros(2, 4)).shape
    torch.Size([2, 1])
    >>> list(model.state_dict())
    ['dense.weight', 'dense.bias', 'dense_1.weight', 'dense_1.bias']
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Model itself has nothing else to be made of; what a subclass takes is its own affair.
        if _is_drawn(args, kwargs) or (cls is Model and (args or {"inputs", "outputs"} & set(kwargs))):
            cls = cls._drawn_class()
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _is_drawn(args, kwargs) and not isinstance(self, GraphNetwork):
            self.__class__ = self._drawn_class()
            GraphNetwork.__init__(self, *args, **kwargs)  # type: ignore[arg-type]
        else:
            super().__init__(*args, **kwargs)

    @classmethod
    def _drawn_class(cls) -> Any:
        return drawn_class(cls, Functional)  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> Any:
        """Make a model from `get_config`'s result: a drawn one if the config holds a graph, else `cls(**config)`.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(1)(inputs))
        >>> Model.from_config(model.get_config()).count_params()
        5
        """
        if "input_layers" in config:
            return cls._drawn_class().from_config(config, custom_objects)
        return cls(**deserialize_arguments(config, custom_objects))

    def summary(
        self,
        line_length: int | None = None,
        positions: list[float] | None = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: list[str] | None = None,
        show: Sequence[str] = (),
    ) -> None:
        """Print a table of the layers, their output shapes and parameter counts; a notebook shows it as HTML.

        Args:
            line_length: the width of the table in characters.
            positions: where the columns end, as fractions of the width or in characters.
            print_fn: what to call with the text, instead of `print`.
            expand_nested: whether to show the layers of models within this one.
            show_trainable: whether to add a column that says which layers train.
            layer_range: the names (or patterns) of the first and last layer to show.
            show: further columns: "flops", the FLOPs of a pass forwards for one sample, as `torch.utils.flop_counter`
                counts them (two for a multiplication with an addition; products of matrices, convolutions and
                attention); "memory", the bytes of what a layer returns for one sample; "dtype", its type.

        Raises:
            ValueError: no layer is called so, there is no such column, or the columns do not fit the width.

        >>> inputs = Input((4,), name="x")
        >>> model = Model(inputs, layers.Dense(1)(inputs), name="small")
        >>> model.summary()
        Model: "small"
        ┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
        ┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
        ┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
        │ x (InputLayer)                  │ (None, 4)              │             0 │
        ├─────────────────────────────────┼────────────────────────┼───────────────┤
        │ dense (Dense)                   │ (None, 1)              │             5 │
        └─────────────────────────────────┴────────────────────────┴───────────────┘
         Total params: 5 (20.00 B)
         Trainable params: 5 (20.00 B)
         Non-trainable params: 0 (0.00 B)
        """
        summary = summarize(self, line_length, positions, expand_nested, show_trainable, layer_range, show)
        if print_fn is not None:
            print_fn(str(summary))
        elif in_notebook():
            show_in_notebook(summary)
        else:
            print_text(str(summary))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What a notebook shows: the drawing, if the model is built, can be taken in and there is a Graphviz."""
        if not self.built or len(self.layers) > _MAX_DRAWN:
            return {"text/plain": repr(self)}
        return {**model_to_dot(self, show_shapes=True)._repr_mimebundle_(), "text/plain": repr(self)}

    def activations(self, x: Any, layers: Sequence[str] | None = None) -> dict[str, Any]:
        """What the layers give for a batch, in one pass in evaluation mode.

        Args:
            x: the batch, as the model takes it.
            layers: the names of the layers to tell of, and of functions of a drawn model; all but the inputs by
                default.

        Returns:
            tensors without gradients, nested as each layer returns them, by name. For a layer that is called several
            times it is a list, one for each call.

        Raises:
            ValueError: there is no layer of a name.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(1)(layers.Dense(3, name="hidden")(inputs)))
        >>> model.activations(np.ones((2, 4)), ["hidden"])["hidden"].shape
        torch.Size([2, 3])
        """
        return layer_outputs(self, x, layers)

    def profile(self, x: Any, y: Any = None, sample_weight: Any = None) -> Profile:
        """What each layer costs in one training pass, forwards and back: a table of time and memory.

        Nothing is trained: weights, gradients, buffers and metrics stay as they are.

        Args:
            x: a batch, as the model takes it.
            y: its targets, for the loss of `compile`. Without them the mean of all outputs stands for the loss.
            sample_weight: weights of the rows.

        Raises:
            RuntimeError: there are targets, but `compile` was not called.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, torch.relu(layers.Dense(3, name="hidden")(inputs)))
        >>> [row[0] for row in model.profile(np.ones((8, 4))).rows()]
        ['hidden (Dense)', '(elsewhere)', 'total']
        """
        inputs = self.prepare_inputs(*(x if isinstance(x, tuple) else [x]))
        self.build_from_inputs(*inputs)

        def loss(outputs: Any) -> Tensor:
            if y is None:
                floats = [leaf for leaf in leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
                return torch.stack([leaf.float().mean() for leaf in floats]).sum()
            total: Tensor = self.compute_loss(x, y, outputs, sample_weight)
            return total

        return profile_layers(self, inputs, loss)

    def save(self, filepath: PathLike, overwrite: bool = True, include_optimizer: bool = True) -> None:
        """Write the whole model to a file. See `saving.save_model`.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(1)(inputs))
        >>> model.save("model.keras")
        >>> models.load_model("model.keras").count_params()
        5
        """
        save_model(self, filepath, overwrite, include_optimizer)

    def to_json(self, **kwargs: Any) -> str:
        """The architecture, and what `compile` was given, as a JSON text in Keras' form. See `model_from_json`.

        Args:
            **kwargs: of `json.dumps`.

        Raises:
            ValueError: a part of the model has no config; the message names it.

        >>> inputs = Input((4,))
        >>> model = Model(inputs, layers.Dense(1)(inputs))
        >>> models.model_from_json(model.to_json()).count_params()
        5
        """
        return json.dumps(config_of_model(self), **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile` was given, for a config; None before it was called.

        Raises:
            ValueError: an optimizer, loss or metric cannot be written; the message names it.

        >>> model = Sequential([Input((4,)), layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> model.get_compile_config()["loss"]
        'mse'
        """
        return compile_config(self.require_settings("get_compile_config")) if self.compiled else None

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile the model as `get_compile_config` (or Keras) describes it.

        A model with a `compile` of its own is left as it is, with a warning; it may override both of these methods.
        """
        if self.overrides("compile"):
            warnings.warn(
                f"Model {self.name!r} is not compiled, since only {type(self).__name__} knows what its own `compile` "
                "was given: call `compile`, or write `get_compile_config` and `compile_from_config`.",
                stacklevel=2,
            )
            return
        self.compile(**compile_arguments(config))

    def save_weights(self, filepath: PathLike, overwrite: bool = True) -> None:
        """Write the weights to a file, in Keras' layout or under the names of `state_dict`.

        Args:
            filepath: the file; its name ends in ".weights.h5" for Keras' format (with the optimizer's state, as there)
                or in ".safetensors" for torch's.
            overwrite: whether a file that is there may be replaced.

        Raises:
            ValueError: the name ends otherwise, or no weights of the model are made yet.
            FileExistsError: the file is there and must not be replaced.

        >>> model = Sequential([Input((4,)), layers.Dense(1)])
        >>> model.save_weights("model.weights.h5")
        """
        if not self.is_fully_built() and not self.weights:
            raise ValueError(f"The model {self.name!r} has no weights to save yet: call it on data, or `build` it.")
        if not overwrite and Path(filepath).exists():
            raise FileExistsError(f"{filepath} exists already, and overwrite=False.")
        save_weights(self, filepath)

    def load_weights(self, filepath: PathLike, skip_mismatch: bool = False, by_name: bool = False) -> None:
        """Read the weights from a file that `save_weights`, or Keras', wrote.

        Args:
            filepath: the file; its name ends in ".weights.h5" or ".safetensors", or it is Keras' of a whole model,
                ".keras" or legacy ".h5".
            skip_mismatch: whether to leave alone what the file does not hold, or holds in another shape.
            by_name: whether layers are found by their names in a legacy file, and not in the order of both.

        Raises:
            ValueError: the name ends otherwise, the file is damaged, or (without `skip_mismatch`) it holds other
                weights than the model has; then nothing is changed.

        >>> model = Sequential([Input((4,)), layers.Dense(1)])
        >>> other = Sequential([Input((4,)), layers.Dense(1)])
        >>> model.save_weights("model.safetensors")
        >>> other.load_weights("model.safetensors")
        >>> torch.equal(model(torch.ones(2, 4)), other(torch.ones(2, 4)))
        True
        """
        if not self.is_fully_built() and not self.weights:
            raise ValueError(f"The model {self.name!r} has no weights to fill yet: call it on data, or `build` it.")
        load_weights(self, filepath, skip_mismatch, by_name)


class Functional(GraphNetwork, Model):
    """A model drawn by calling layers on symbolic tensors; a `torch.fx.GraphModule`. See `Model`.

    >>> inputs = Input((4,))
    >>> model = Model(inputs, layers.Dense(1)(inputs))
    >>> isinstance(model, Functional), isinstance(model, torch.fx.GraphModule)
    (True, True)
    """


class Sequential(SequentialNetwork, Model):
    """Layers in a row, each called on the output of the one before. See `SequentialNetwork`.

    >>> model = Sequential([Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    >>> model.output_shape, len(model.layers), model.count_params()
    ((None, 1), 2, 49)
    """


GraphModule = Functional


def from_module(module: nn.Module, example_inputs: Any, name: str | None = None) -> Functional:
    """An existing module as a drawn model, with named layers, a summary and intermediate outputs.

    Its parts, those that are torch's own or torchfunc's, become the layers, and are shared: a layer is called as the
    part is in the module, `layer1.0.conv1`, and its weights are in the state_dict with `_` for those dots,
    `layer1_0_conv1.weight`. Parameters and buffers that no part has keep their names likewise. torch.fx traces the
    module; where it cannot, its `forward` runs on symbolic tensors; where that is not possible either, torch.export
    finds the operators, which are functions of the graph and no layers. The module itself is not changed.

    Args:
        module: the module.
        example_inputs: a tensor, a list or tuple of them, or a dict by argument: for shapes and dtypes. The first axis
            is the batch, of any size.
        name: the model's name; by default after the module's class.

    Returns:
        A model that computes the same, in training as well. Where the module's own code does other things in training
        than a dropout, a warning says so, and the model does what the module does in its present mode.

    Raises:
        TypeError: the inputs are no tensors.
        ValueError: the module cannot be drawn; the message says why not.

    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> model = from_module(module, torch.zeros(1, 4))
    >>> model.output_shape, list(model.state_dict())
    ((None, 1), ['0.weight', '0.bias', '2.weight', '2.bias'])
    >>> model.get_layer("0") is module[0]  # shared
    True
    """
    return model_of_module(Functional, module, example_inputs, name)


register_builtins("keras", {"Sequential": Sequential, "Model": Model})
register_builtins("keras.src.models.functional", {"Functional": Functional})


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Any], Any] | None = None,
    call_function: Callable[..., Any] | None = None,
    recursive: bool = False,
    **kwargs: Any,
) -> Any:
    """Make a model of the same architecture with new layers and newly initialized weights, compiled like `model`.

    Args:
        model: a drawn model, a `Sequential`, or a model with `get_config`.
        input_tensors: symbolic tensors to draw the copy on; new inputs by default.
        clone_function: makes the new layer from the old one; by default from its config. It may return the old layer,
            which is then shared.
        call_function: called as `(layer, *args, **kwargs)` in place of calling the new layer.
        recursive: whether `clone_function` is also used on the layers of models within the model.

    Raises:
        ValueError: a layer has no config.

    >>> model = Sequential([Input((4,)), layers.Dense(1)])
    >>> copy = models.clone_model(model)
    >>> copy.count_params(), torch.equal(copy.layers[0].weight, model.layers[0].weight)
    (5, False)
    """
    clone = clone_network(model, input_tensors, clone_function, call_function, recursive, **kwargs)
    if isinstance(model, Model) and model.compiled and isinstance(clone, Model):
        try:
            clone.compile_from_config(model.get_compile_config() or {})
        except ValueError as error:
            warnings.warn(f"The clone of model {model.name!r} is not compiled: {error}", stacklevel=2)
    return clone


def _is_drawn(args: Any, kwargs: Any) -> bool:
    """Whether these arguments are inputs and outputs of a graph."""
    outputs = args[1] if len(args) >= 2 else kwargs.get("outputs")
    return isinstance(outputs, SymbolicValue) or bool(symbolic_leaves(outputs))
