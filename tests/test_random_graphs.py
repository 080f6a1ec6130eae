"""Drawn graphs of up to twelve calls: a model, its copies and clones give what the same calls give by hand."""

import copy
import operator
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from torchfunc import Input, Model, layers
from torchfunc.models import clone_model

ROWS = 3
ACTIVATIONS = {None: lambda x: x, "relu": torch.relu, "tanh": torch.tanh, "softmax": lambda x: torch.softmax(x, -1)}
UNARY = [
    torch.tanh,
    operator.neg,
    F.relu,
    lambda x: x * 2,
    lambda x: 1 - x,
    lambda x: x.abs(),
    lambda x: x - x.mean(-1, keepdim=True),
    lambda x: x.reshape(x.size(0), -1),
    lambda x: x[:, :2],
    lambda x: x.T.mT.T.T,
]
BINARY = [operator.add, operator.sub, torch.mul, torch.maximum, lambda a, b: torch.where(a > b, a, b * 2)]


@dataclass
class Call:
    """One call, made alike on symbolic and on real tensors.

    Attributes:
        function: makes the call.
        by_hand: the same in torch alone.
        places: the numbers of the values that it is made on.
    """

    function: Callable[..., Any]
    by_hand: Callable[..., Any]
    places: list[int]


@dataclass
class Program:
    """Calls in a row, on the values of those before.

    Attributes:
        widths: of each value `(rows, width)`, the inputs first.
        inputs: how many of them are inputs.
        calls: what makes the others.
        outputs: the numbers of the values that are returned.
        whole: whether a config tells all of it: no modules of torch, no layer that another model has as well.
    """

    widths: list[int]
    inputs: int
    calls: list[Call] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    whole: bool = True

    def run(self, values, by_hand=False):
        """All values: those of the inputs, and what the calls make of them."""
        values = list(values)
        for call in self.calls:
            made = (call.by_hand if by_hand else call.function)(*(values[place] for place in call.places))
            values += made if isinstance(made, (list, tuple)) else [made]
        return values

    def results(self, values, by_hand=False):
        values = self.run(values, by_hand)
        return [values[place] for place in self.outputs]

    def inputs_of_a_model(self):
        return [Input((width,)) for width in self.widths[: self.inputs]]

    def model(self):
        inputs = self.inputs_of_a_model()
        return Model(inputs, self.results(inputs))

    def data(self):
        return [torch.randn(ROWS, width) for width in self.widths[: self.inputs]]


class Author:
    """Writes programs as hypothesis decides.

    Args:
        draw: hypothesis' function.
        borrowed: layers of other programs, each with its width, its own call by hand and the width it returns.
    """

    def __init__(self, draw, borrowed=()):
        self.draw = draw
        self.borrowed = list(borrowed)
        self.own = []

    def choose(self, items):
        return self.draw(st.sampled_from(list(items)))

    def write(self, widths, size, depth):
        program = self.program = Program(list(widths), len(widths))
        kinds = [self.dense, self.linear, self.again, self.unary, self.binary, self.joined, self.parts, self.tensor]
        kinds += [self.norm] + [self.nested] * (2 if depth else 0)
        for _ in range(size):
            self.choose(kinds)(depth)
        count = len(program.widths)
        last = range(max(0, count - 3), count)
        program.outputs = self.draw(st.lists(st.sampled_from(last), min_size=1, max_size=3, unique=True))
        return program

    def add(self, function, places, widths, by_hand=None):
        self.program.calls.append(Call(function, by_hand or function, places))
        self.program.widths += widths

    def place(self, suits=lambda width: True):
        """The number of a value, most often one of the last."""
        found = [place for place, width in enumerate(self.program.widths) if suits(width)]
        return None if not found else self.choose([*found, *found[-2:], *found[-1:]])

    def dense(self, depth):
        place, units, activation = self.place(), self.choose([2, 3, 4]), self.choose(ACTIVATIONS)
        layer = layers.Dense(units, activation=activation)

        def by_hand(x):
            return ACTIVATIONS[activation](F.linear(x, layer.weight, layer.bias))

        self.own.append((layer, self.program.widths[place], by_hand, units))
        self.add(layer, [place], [units], by_hand)

    def linear(self, depth):
        place, units = self.place(), self.choose([2, 3, 4])
        layer = nn.Linear(self.program.widths[place], units)
        self.own.append((layer, layer.in_features, lambda x: x @ layer.weight.T + layer.bias, units))
        self.program.whole = False
        # Symbolic values reach a module of torch once there is an Input.
        self.add(layer, [place], [units], self.own[-1][2])

    def again(self, depth):
        """Another call of a layer, rarely of one that another model has."""
        known = self.own + (self.borrowed if self.draw(st.booleans()) else [])
        known = [each for each in known if each[1] in self.program.widths]
        if known:
            layer, width, by_hand, units = each = self.choose(known)
            self.program.whole &= each in self.own
            self.add(layer, [self.place(lambda other: other == width)], [units], by_hand)

    def unary(self, depth):
        place, function = self.place(), self.choose(UNARY)
        width = function(torch.ones(2, self.program.widths[place])).shape[-1]
        self.add(function, [place], [width])

    def binary(self, depth):
        place = self.place()
        width = self.program.widths[place]
        other = self.place(lambda other: other == width)
        self.add(self.choose(BINARY), [place, other], [width])

    def joined(self, depth):
        places = [self.place(), self.place()]
        width = sum(self.program.widths[place] for place in places)
        if width <= 8:
            layer = layers.Concatenate()
            function = self.choose([lambda *x: torch.cat(x, -1), lambda *x: layer(list(x))])
            self.add(function, places, [width], lambda *x: torch.cat(x, -1))

    def parts(self, depth):
        """A call with several outputs."""
        place = self.place(lambda width: width % 2 == 0)
        if place is not None:
            half = self.program.widths[place] // 2
            function = self.choose([lambda x: torch.chunk(x, 2, -1), lambda x: x.split(half, dim=-1)])
            self.add(function, [place], [half, half])

    def tensor(self, depth):
        place = self.place()
        tensor = torch.linspace(0.5, 1.5, self.program.widths[place])
        if self.draw(st.booleans()):
            tensor = nn.Parameter(tensor)
        self.add(lambda x: x * tensor + 0.5, [place], [self.program.widths[place]])

    def norm(self, depth):
        place = self.place()
        layer, width = layers.LayerNormalization(), self.program.widths[place]

        def by_hand(x):
            return F.layer_norm(x, (width,), layer.weight, layer.bias, layer.epsilon)

        self.add(layer, [place], [width], by_hand)

    def nested(self, depth):
        """A model of its own, called once or twice."""
        places = [self.place() for _ in range(self.choose([1, 2]))]
        widths = [self.program.widths[place] for place in places]
        inner = Author(self.draw, self.own).write(widths, self.choose([1, 2, 3]), depth - 1)
        # An output of the inner model that is one of its inputs is as good as any.
        model = inner.model()
        self.program.whole &= inner.whole
        for _ in range(self.choose([1, 2])):
            given = [self.place(lambda other, width=width: other == width) for width in widths]
            self.add(
                lambda *x: model(list(x)),
                given,
                [inner.widths[place] for place in inner.outputs],
                lambda *x: inner.results(x, by_hand=True),
            )


@st.composite
def programs(draw):
    widths = draw(st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=2))
    return Author(draw).write(widths, draw(st.integers(3, 10)), depth=2)


def same(model, values, expected):
    torch.testing.assert_close(listed(model(*values)), expected)


def listed(outputs):
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def cloned(layer):
    return type(layer).from_config(layer.get_config()) if hasattr(layer, "get_config") else copy.deepcopy(layer)


def given_so_many(examples):
    """Always the same examples; looking for a smaller one that fails takes minutes."""
    phases = (Phase.explicit, Phase.generate)
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, phases=phases)


@given_so_many(40)
@given(programs())
def test_drawn_graphs(program):
    check(program.model(), program, program.data())


@given_so_many(20)
@given(programs(), st.integers(0, 11))
def test_graphs_between_tensors_that_layers_made(program, cut):
    """The model begins in the middle: what the first calls have made are its inputs."""
    values = program.run(program.inputs_of_a_model())
    first = cut % (len(program.calls) + 1)
    given_count = len(Program(program.widths, program.inputs, program.calls[:first]).run(program.data()))
    rest = Program(program.widths, given_count, program.calls[first:], program.outputs, program.whole)
    model = Model(values[:given_count], [values[place] for place in program.outputs])
    check(model, rest, rest.data())


def check(model, program, values):
    """The model's outputs, gradients and copies against the calls made by hand."""
    model.eval()
    expected = program.results(values, by_hand=True)
    same(model, values, expected)
    weights = list(model.parameters())
    sums = [sum((x**2).sum() for x in found) for found in (expected, listed(model(*values)))]
    if sums[0].requires_grad:
        torch.testing.assert_close(*(torch.autograd.grad(each, weights, allow_unused=True) for each in sums))
    same(copy.deepcopy(model), values, expected)
    same(pickle.loads(pickle.dumps(model)), values, expected)
    check_again(clone_model(model, clone_function=cloned, recursive=True), model, values, expected)
    if program.whole:
        check_again(clone_model(model), model, values, expected)
        check_again(Model.from_config(model.get_config()), model, values, expected)


def calls_of(model):
    """What the model calls. (A tensor that a layer made has an input layer in its place in another model.)"""
    return [model.node_name(node) for node in model.nodes if node.op != "input"]


def check_again(again, model, values, expected):
    """Another model of the same architecture gives the same with the same weights."""
    assert sorted(calls_of(again)) == sorted(calls_of(model))
    assert list(again.state_dict()) == list(model.state_dict())
    again.load_state_dict(model.state_dict())
    same(again.eval(), values, expected)
