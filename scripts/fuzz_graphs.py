"""Random graphs drawn here and in Keras, and all that can be asked of both compared.

    python scripts/fuzz_graphs.py [--graphs 2000] [--first 0]

A graph is made from its number alone. The two models have the same layers, shared and nested, masks, several inputs and
outputs; compared are: the order of layers and weights, outputs, the logs of `evaluate`, the weights after a training
step, configs in both directions, copies, and of some the outputs under torch.compile and torch.export. Needs Keras.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import random
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch

import torchfunc
from torchfunc import layers
from torchfunc.models import Model, clone_model

OURS = SimpleNamespace(layers=layers, Input=torchfunc.Input, Model=Model, name="torchfunc")
THEIRS = SimpleNamespace(layers=keras.layers, Input=keras.Input, Model=keras.Model, name="keras")
STEPS, ROWS, WORDS = 4, 6, 7
# What either library may raise, and a comparison.
ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Kind = Literal["vector", "sequence", "words"]


@dataclass(frozen=True)
class Value:
    """What is known of a value of a graph: (batch, width), (batch, STEPS, width), or (batch, STEPS) of integers."""

    kind: Kind
    width: int

    def shape(self) -> tuple[int, ...]:
        """Without the batch axis."""
        return {"vector": (self.width,), "sequence": (STEPS, self.width), "words": (STEPS,)}[self.kind]


class Recipe:
    """What a graph is made of: a function for each step that makes it in either library.

    Args:
        rng: decides.
        inputs: the inputs.
        size: how many steps.
        depth: how many levels of models there may be within this one.
    """

    def __init__(self, rng: random.Random, inputs: list[Value], size: int, depth: int) -> None:
        self.rng = rng
        self.inputs = inputs
        self.values = list(inputs)
        self.steps: list[Callable[[Any, dict[str, Any], list[Any]], list[Any]]] = []
        self.shared: list[tuple[Value, Value, str]] = []
        kinds = [self.dense, self.dense, self.plain, self.merge, self.merge, self.operator, self.again, self.reshaped]
        kinds += [self.recurrent, self.words, self.norm, self.softmax] + [self.nested] * (2 if depth else 0)
        self.depth = depth
        while len(self.steps) < size:
            rng.choice(kinds)()
        count = rng.choice([1, 1, 2, 3])
        usable = [place for place, value in enumerate(self.values) if value.kind != "words" and place >= len(inputs)]
        self.outputs = sorted(set(usable[-count:])) or [self.fallback()]
        self.named = rng.random() < 0.3

    def fallback(self) -> int:
        """An output where no step has made one that is a float."""
        self.add_layer(lambda library: library.layers.Embedding(WORDS, 3), [0], Value("sequence", 3))
        return len(self.values) - 1

    def choose(self, suits: Callable[[Value], bool] = lambda value: value.kind != "words") -> int | None:
        """The place of a value, most often a late one."""
        found = [place for place, value in enumerate(self.values) if suits(value)]
        return self.rng.choice([*found, *found[-2:], *found[-1:]]) if found else None

    def add(self, step: Callable[[Any, dict[str, Any], list[Any]], list[Any]], made: list[Value]) -> None:
        self.steps.append(step)
        self.values += made

    def add_layer(self, make: Callable[[Any], Any], places: list[int], made: Value, share: bool = True) -> None:
        """A call of a new layer, on one value or a list of several."""
        key = f"{id(self)}/{len(self.steps)}"

        def step(library: Any, made_layers: dict[str, Any], values: list[Any]) -> list[Any]:
            layer = made_layers.setdefault(key, make(library))
            given = [values[place] for place in places]
            return [layer(given if len(given) > 1 else given[0])]

        if share and len(places) == 1:
            self.shared.append((self.values[places[0]], made, key))
        self.add(step, [made])

    # Steps

    def dense(self) -> None:
        place, units = self.choose(), self.rng.choice([2, 3, 4])
        if place is None:
            return
        activation = self.rng.choice([None, "relu", "tanh", "sigmoid", "softmax", "gelu"])
        wrap = self.values[place].kind == "sequence" and self.rng.random() < 0.2

        def make(library: Any) -> Any:
            layer = library.layers.Dense(units, activation=activation)
            return library.layers.TimeDistributed(layer) if wrap else layer

        self.add_layer(make, [place], Value(self.values[place].kind, units))

    def plain(self) -> None:
        """A layer that keeps the shape."""
        place = self.choose()
        if place is None:
            return
        name, arguments = self.rng.choice(
            [("Activation", {"activation": "elu"}), ("Dropout", {"rate": 0.0}), ("Masking", {"mask_value": 0.0})]
            + [("ReLU", {}), ("LeakyReLU", {}), ("Identity", {}), ("UnitNormalization", {})]
        )
        if name == "Masking" and self.values[place].kind != "sequence":
            return
        self.add_layer(lambda library: getattr(library.layers, name)(**arguments), [place], self.values[place])

    def norm(self) -> None:
        place = self.choose()
        if place is not None:
            name = self.rng.choice(["LayerNormalization", "BatchNormalization"])
            self.add_layer(lambda library: getattr(library.layers, name)(), [place], self.values[place])

    def softmax(self) -> None:
        """Softmax, of a sequence with a mask by hand: that of its steps has another shape than the layer takes."""
        place = self.choose()
        if place is None:
            return
        value = self.values[place]
        other = self.choose(lambda each: each == value)
        masked, narrow = value.kind == "sequence" or self.flip(), self.flip()
        axis: Any = self.rng.choice([-1, 1, [1, 2]] if value.kind == "sequence" else [-1])
        key = f"{id(self)}/{len(self.steps)}"

        def step(library: Any, made_layers: dict[str, Any], values: list[Any]) -> list[Any]:
            layer = made_layers.setdefault(key, library.layers.Softmax(axis))
            if not masked:
                return [layer(values[place])]
            mask = values[other] > 0.1  # type: ignore[index]
            # (What is multiplied has no mask.)
            return [layer(values[place], mask=mask[..., :1] if narrow else mask) * 1.0]

        self.add(step, [value])

    def recurrent(self) -> None:
        place = self.choose(lambda value: value.kind == "sequence")
        if place is None:
            return
        name, units, sequences = self.rng.choice(["LSTM", "GRU", "SimpleRNN"]), self.rng.choice([2, 3]), self.flip()
        both = self.rng.random() < 0.2
        convolve = self.rng.random() < 0.2

        def make(library: Any) -> Any:
            if convolve:
                return library.layers.Conv1D(units, 3, padding="same")
            layer = getattr(library.layers, name)(units, return_sequences=sequences)
            return library.layers.Bidirectional(layer) if both else layer

        width = units * 2 if both and not convolve else units
        self.add_layer(make, [place], Value("sequence" if sequences or convolve else "vector", width))

    def words(self) -> None:
        place = self.choose(lambda value: value.kind == "words")
        if place is not None:
            width, masks = self.rng.choice([2, 3]), self.flip()
            made = Value("sequence", width)
            self.add_layer(lambda library: library.layers.Embedding(WORDS, width, mask_zero=masks), [place], made)

    def reshaped(self) -> None:
        place = self.choose()
        if place is None:
            return
        value = self.values[place]
        if value.kind == "vector":
            made = Value("sequence", value.width)
            self.add_layer(lambda library: library.layers.RepeatVector(STEPS), [place], made)
        elif self.flip():
            made = Value("vector", value.width)
            name = self.rng.choice(["GlobalAveragePooling1D", "GlobalMaxPooling1D"])
            self.add_layer(lambda library: getattr(library.layers, name)(), [place], made)
        else:
            made = Value("vector", value.width * STEPS)
            self.add_layer(lambda library: library.layers.Flatten(), [place], made)

    def merge(self) -> None:
        place = self.choose()
        if place is None:
            return
        one = self.values[place]
        if self.flip():
            other = self.choose(lambda value: value == one)
            name = self.rng.choice(["Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract"])
            made = one
        else:
            other = self.choose(lambda value: value.kind == one.kind)
            name, made = "Concatenate", one
        if other is None:
            return
        if name == "Concatenate":
            made = Value(one.kind, one.width + self.values[other].width)
            if made.width > 12:
                return
        self.add_layer(lambda library: getattr(library.layers, name)(), [place, other], made, share=False)

    def operator(self) -> None:
        place = self.choose()
        if place is None:
            return
        value = self.values[place]
        other = self.choose(lambda each: each == value)
        functions: list[tuple[Callable[[Any, Any], Any], int]] = [
            (lambda a, b: a + b, value.width),
            (lambda a, b: a * b, value.width),
            (lambda a, b: 1.0 - a, value.width),
            (lambda a, b: a / 2, value.width),
            (lambda a, b: -a, value.width),
            (lambda a, b: a[..., :1], 1),
        ]
        function, width = self.rng.choice(functions)
        self.add(lambda library, made, values: [function(values[place], values[other])], [Value(value.kind, width)])  # type: ignore[index]

    def again(self) -> None:
        """Another call of a layer."""
        if not self.shared:
            return
        given, made, key = self.rng.choice(self.shared)
        place = self.choose(lambda value: value == given)
        assert place is not None
        self.add(lambda library, made_layers, values: [made_layers[key](values[place])], [made])

    def nested(self) -> None:
        """A model, called once or twice."""
        places = [place for place in (self.choose() for _ in range(self.rng.choice([1, 2]))) if place is not None]
        if not places:
            return
        given = [self.values[place] for place in places]
        inner = Recipe(self.rng, given, self.rng.choice([1, 2, 3]), self.depth - 1)
        key = f"{id(self)}/{len(self.steps)}"
        made = [inner.values[place] for place in inner.outputs]
        for _ in range(self.rng.choice([1, 1, 2])):
            found = [self.choose(lambda value, wanted=wanted: value == wanted) for wanted in given]

            def step(
                library: Any, made_layers: dict[str, Any], values: list[Any], found: list[Any] = found
            ) -> list[Any]:
                if key not in made_layers:
                    made_layers[key] = inner.model(library, made_layers)
                arguments = [values[place] for place in found]
                names = inner.names(inner.inputs, "in")
                structure = dict(zip(names, arguments, strict=True)) if inner.named else arguments
                outputs = made_layers[key](structure if len(arguments) > 1 or inner.named else arguments[0])
                return list(outputs.values() if isinstance(outputs, dict) else flat(outputs))

            self.add(step, made)

    def flip(self) -> bool:
        return self.rng.random() < 0.5

    # Models

    @staticmethod
    def names(items: list[Any], prefix: str) -> list[str]:
        return [f"{prefix}_{index}" for index in range(len(items))]

    def model(self, library: Any, made_layers: dict[str, Any] | None = None) -> Any:
        """The graph as a model of one library."""
        made = {} if made_layers is None else made_layers
        names = self.names(self.inputs, "in")
        inputs = [
            library.Input(value.shape(), dtype="int32" if value.kind == "words" else "float32", name=name)
            for value, name in zip(self.inputs, names, strict=True)
        ]
        values = list(inputs)
        for step in self.steps:
            values += step(library, made, values)
        outputs = [values[place] for place in self.outputs]
        if self.named:
            outputs_by_name = dict(zip(self.names(self.outputs, "out"), outputs, strict=True))
            return library.Model(dict(zip(names, inputs, strict=True)), outputs_by_name)
        return library.Model(inputs if len(inputs) > 1 else inputs[0], outputs if len(outputs) > 1 else outputs[0])

    def data(self) -> Any:
        """Arrays for the inputs; some steps are zero."""
        rng = np.random.default_rng(self.rng.randrange(2**32))
        arrays = []
        for value in self.inputs:
            shape = (ROWS, *value.shape())
            array = rng.integers(0, WORDS, shape) if value.kind == "words" else rng.standard_normal(shape)
            if value.kind == "sequence":
                array = array * (rng.random((ROWS, STEPS, 1)) > 0.3)
            arrays.append(array.astype("int32" if value.kind == "words" else "float32"))
        if self.named:
            return dict(zip(self.names(self.inputs, "in"), arrays, strict=True))
        return arrays if len(arrays) > 1 else arrays[0]


def flat(outputs: Any) -> list[Any]:
    """The outputs of a model in order."""
    if isinstance(outputs, dict):
        return [each for key in sorted(outputs) for each in flat(outputs[key])]
    return [each for item in outputs for each in flat(item)] if isinstance(outputs, (list, tuple)) else [outputs]


def arrays_of(model: Any, data: Any) -> list[np.ndarray]:
    """What a model returns for the data."""
    data = {key: np.copy(value) for key, value in data.items()} if isinstance(data, dict) else data
    return [np.asarray(each) for each in flat(model.predict(data, verbose=0))]


def close(what: str, ours: Any, theirs: Any, tolerance: float = 2e-4) -> None:
    """Raise an AssertionError unless two lists of arrays are alike."""
    assert len(ours) == len(theirs), f"{what}: {len(ours)} and {len(theirs)}"
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(one, other, tolerance, tolerance, err_msg=f"{what} {index}")


def layer_kinds(model: Any) -> list[str]:
    """The classes of the layers in order; calls of functions, which are layers in Keras, left out."""
    return [type(layer).__name__ for layer in model.layers if "operation" not in type(layer).__module__.lower()]


def targets_like(outputs: list[np.ndarray], named: bool) -> Any:
    """Targets for the outputs of a model."""
    found = [np.cos(np.arange(each.size, dtype="float32")).reshape(each.shape) for each in outputs]
    if named:
        return {f"out_{index}": each for index, each in enumerate(found)}
    return found if len(found) > 1 else found[0]


def check_graph(number: int) -> None:
    """Draw a graph in both libraries and compare.

    Raises:
        AssertionError: they differ.
    """
    rng = random.Random(number)
    kinds: list[Kind] = ["vector", "sequence", "sequence", "words"]
    inputs = [Value(rng.choice(kinds), rng.choice([2, 3])) for _ in range(rng.choice([1, 1, 2, 3]))]
    recipe = Recipe(rng, inputs, rng.randrange(2, 11), depth=2)
    theirs, ours, data = recipe.model(THEIRS), recipe.model(OURS), recipe.data()
    known = {type(layer).__name__ for layer in ours.layers}
    assert layer_kinds(ours) == [kind for kind in layer_kinds(theirs) if kind in known], "order of layers"
    weights = theirs.get_weights()
    assert [each.shape for each in ours.get_weights()] == [each.shape for each in weights], "order of weights"
    weights = [np.random.default_rng(index).standard_normal(each.shape) * 0.3 for index, each in enumerate(weights)]
    weights = [np.abs(each).astype("float32") + 0.1 for each in weights]
    theirs.set_weights(weights)
    ours.set_weights(weights)
    expected = arrays_of(theirs, data)
    close("output", arrays_of(ours, data), expected)
    check_copies(ours, theirs, data, expected)
    check_training(ours, theirs, data, targets_like(expected, recipe.named))
    if number % 50 == 0:
        check_tools(ours, data)


def check_copies(ours: Any, theirs: Any, data: Any, expected: list[np.ndarray]) -> None:
    """The copies of a model, and configs in both directions."""
    close("output of the deep copy", arrays_of(copy.deepcopy(ours), data), expected)
    close("output of the pickle", arrays_of(pickle.loads(pickle.dumps(ours)), data), expected)
    again = {
        "clone": clone_model(ours),
        "config": Model.from_config(json.loads(json.dumps(ours.get_config()))),
        "Keras' config": Model.from_config(json.loads(json.dumps(theirs.get_config()))),
        "config in Keras": keras.Model.from_config(json.loads(json.dumps(ours.get_config()))),
    }
    for what, model in again.items():
        model.set_weights(ours.get_weights())
        close(f"output of the {what}", arrays_of(model, data), expected)


def check_training(ours: Any, theirs: Any, data: Any, targets: Any) -> None:
    """The logs of an evaluation and the weights after a step."""
    logs = []
    for library, model in ((torchfunc, ours), (keras, theirs)):
        model.compile(library.optimizers.SGD(0.01), "mse")
        logs.append(model.evaluate(data, targets, batch_size=4, verbose=0, return_dict=True))
    losses = [losses_of(model, each) for model, each in zip((ours, theirs), logs, strict=True)]
    shortest = min(map(len, losses))
    close("logs of evaluate", *(each[:shortest] for each in losses), 1e-3)
    refused = [not trains(model, data, targets) for model in (ours, theirs)]
    assert refused[0] == refused[1], f"trained: one refuses: {refused}"
    if not refused[0]:
        # (What was refused has run forward in Keras, where batch normalization saw the batch.)
        close("weights after a step", ours.get_weights(), theirs.get_weights(), 1e-3)


def trains(model: Any, data: Any, targets: Any) -> bool:
    """Train for a step; False if no weight has a gradient, which neither library takes."""
    try:
        model.fit(data, targets, batch_size=ROWS, epochs=1, shuffle=False, verbose=0)
    except (RuntimeError, ValueError) as error:
        if "nothing to learn" in str(error) or "does not require grad" in str(error):
            return False
        raise
    return True


def losses_of(model: Any, logs: dict[str, float]) -> list[float]:
    """The loss, and that of each output: the libraries number layers in another order."""
    outputs = model.output
    names = [f"{name}_loss" for name in (outputs if isinstance(outputs, dict) else model.output_names)]
    several = len(names) > 1 and len(set(names)) == len(names)
    return [logs[name] for name in (["loss", *names] if several else ["loss"])]


def check_tools(model: Any, data: Any) -> None:
    """What torch.compile and torch.export make of a model."""
    model.eval()
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else [data]
    tensors = tuple(torch.from_numpy(value) for value in values)
    with torch.no_grad():
        expected = [each.numpy() for each in flat(model(*tensors))]
        compiled = torch.compile(model, backend="eager")(*tensors)
        close("compiled", [each.numpy() for each in flat(compiled)], expected)
        exported = torch.export.export(model, tensors).module()(*tensors)
        close("exported", [each.numpy() for each in flat(exported)], expected)


def main() -> None:
    """Check graphs and print the numbers of those that differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--graphs", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    different = []
    for number in range(options.first, options.first + options.graphs):
        try:
            check_graph(number)
        except ERRORS as error:
            different.append(number)
            reason = (str(error).strip() or type(error).__name__).splitlines()
            print(f"Graph {number}: {type(error).__name__}: {' '.join(reason)[:300]}", flush=True)
            if options.verbose:
                traceback.print_exc()
        if (number + 1) % 100 == 0:
            print(f"{number + 1 - options.first} graphs, {len(different)} differ", flush=True)
    print(f"{options.graphs} graphs, {len(different)} differ: {different}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
