"""Lists, tuples and dicts of layers as attributes, against plain ones, nn.ModuleDict and Keras' own tracking."""

import collections
import copy
import json
import pickle

import keras
import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Model
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.core import Dense
from torchfunc.layers.input_layer import Input


class Holder(Layer):
    """Calls what is in `blocks`, one behind the other."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = []

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


class Chain(Layer):
    def __init__(self, count=3, **kwargs):
        super().__init__(**kwargs)
        self.blocks = []
        for _ in range(count):
            self.blocks.append(Dense(4, activation="tanh"))
        self.heads = {"a": Dense(2), "b": [Dense(3), (Dense(5),)]}

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        first, (second,) = self.heads["b"]
        return torch.cat([self.heads["a"](inputs), first(inputs), second(inputs)], -1)


def holder(*items):
    layer = Holder()
    layer.blocks.extend(items)
    return layer


def keys(layer):
    return sorted({name.rsplit(".", 1)[0] for name, _ in layer.named_parameters()})


A, B, C = (nn.Linear(2, 2) for _ in range(3))


def linears(count):
    return [nn.Linear(2, 2) for _ in range(count)]


# Each change as a function of a list, to be made on ours, on a plain list, and (as far as it has it) on a ModuleList.
LIST_CHANGES = {
    "append": lambda items: items.append(A),
    "extend": lambda items: items.extend([A, B]),
    "extend by a generator": lambda items: items.extend(each for each in (A, B)),
    "insert": lambda items: items.insert(1, A),
    "insert at a negative place": lambda items: items.insert(-1, A),
    "pop": lambda items: items.pop(),
    "pop first": lambda items: items.pop(0),
    "remove": lambda items: items.remove(items[1]),
    "set": lambda items: items.__setitem__(1, A),
    "set last": lambda items: items.__setitem__(-1, A),
    "set a slice": lambda items: items.__setitem__(slice(1, 3), [A, B, C]),
    "set to a number": lambda items: items.__setitem__(0, 7),
    "delete": lambda items: items.__delitem__(1),
    "delete a slice": lambda items: items.__delitem__(slice(0, 2)),
    "+=": lambda items: items.__iadd__([A, B]),
    "*=": lambda items: items.__imul__(2),
    "reverse": lambda items: items.reverse(),
    "sort": lambda items: items.sort(key=lambda module: -id(module)),
    "clear": lambda items: items.clear(),
    "append no module": lambda items: items.append("text"),
}


@pytest.mark.parametrize("change", LIST_CHANGES.values(), ids=LIST_CHANGES)
def test_list_changes_are_those_of_a_list_and_are_tracked(change):
    start = linears(3)
    expected = list(start)
    layer = holder(*start)
    assert (change(layer.blocks) is layer.blocks) == (change(expected) is expected)
    assert list(layer.blocks) == expected == layer.blocks == layer.blocks[:]
    assert len(layer.blocks) == len(expected)
    modules = {str(index): item for index, item in enumerate(expected) if isinstance(item, nn.Module)}
    if modules:
        assert dict(layer.blocks.named_children()) == dict(nn.ModuleDict(modules).named_children())
        assert {id(each) for each in layer.parameters()} == {id(p) for m in modules.values() for p in m.parameters()}
        assert all(layer.get_submodule(f"blocks.{name}") is module for name, module in modules.items())
    else:
        assert list(layer.children()) == []
        assert "blocks" in vars(layer)


DICT_CHANGES = {
    "set": lambda items: items.__setitem__("new", A),
    "replace": lambda items: items.__setitem__("one", A),
    "replace by a number": lambda items: items.__setitem__("one", 3),
    "update": lambda items: items.update({"one": A, "new": B}),
    "update by words": lambda items: items.update(new=A),
    "|=": lambda items: items.__ior__({"new": A}),
    "setdefault": lambda items: items.setdefault("new", A),
    "setdefault of what is there": lambda items: items.setdefault("one", A),
    "pop": lambda items: items.pop("one"),
    "pop with a default": lambda items: items.pop("nothing", None),
    "popitem": lambda items: items.popitem(),
    "delete": lambda items: items.__delitem__("two"),
    "clear": lambda items: items.clear(),
}


@pytest.mark.parametrize("change", DICT_CHANGES.values(), ids=DICT_CHANGES)
def test_dict_changes_are_those_of_a_dict_and_are_tracked(change):
    start = dict(zip(("one", "two"), linears(2), strict=True))
    expected = dict(start)
    layer = Holder()
    layer.parts = {}
    layer.parts.update(start)
    ours, theirs = change(layer.parts), change(expected)
    assert ours is layer.parts if theirs is expected else ours == theirs
    assert layer.parts == expected
    assert list(layer.parts.items()) == list(expected.items())
    modules = {key: value for key, value in expected.items() if isinstance(value, nn.Module)}
    assert keys(layer) == sorted(f"parts.{key}" for key in modules)


def test_reading_is_that_of_a_list():
    first, second = linears(2)
    blocks = holder(first, second).blocks
    assert isinstance(blocks, list)
    assert blocks[-1] is second
    assert blocks[:1] == [first]
    assert blocks.index(second) == 1
    assert blocks.count(first) == 1
    assert first in blocks
    assert list(reversed(blocks)) == [second, first]
    assert [*blocks] == blocks + [] == blocks.copy()
    assert type(blocks.copy()) is type(blocks[:]) is list
    with pytest.raises(IndexError):
        blocks[2]
    with pytest.raises(ValueError):  # noqa: PT011
        blocks.remove(A)


def test_plain_values_stay_plain():
    layer = Holder()
    layer.sizes, layer.options, layer.pair, layer.both = [1, 2], {"a": 1}, (1, torch.ones(2)), ((), {})
    assert [type(each) for each in (layer.sizes, layer.options, layer.pair, layer.both)] == [list, dict, tuple, tuple]
    layer.history, layer.log = [], {}
    layer.history.append(1.5)
    layer.log["x"] = [2]
    assert json.dumps([layer.history, layer.log]) == '[[1.5], {"x": [2]}]'
    assert repr(layer.history) == "[1.5]"
    assert list(layer.children()) == []


def test_lazy_nesting():
    layer = Holder()
    layer.grid = [[], {"row": []}]
    assert list(layer.children()) == []
    layer.grid[1]["row"].append(A)
    layer.grid[0] += [B, (C,)]
    assert keys(layer) == ["grid.0.0", "grid.0.1.0", "grid.1.row.0"]
    layer.grid[1]["row"].clear()
    layer.grid[0].pop()
    assert keys(layer) == ["grid.0.0"]
    layer.grid[0].clear()
    assert list(layer.children()) == []


def test_tuples_and_ordered_dicts():
    layer = Holder()
    layer.pair = (A, [B])
    layer.ordered = collections.OrderedDict(z=C, a=2)
    assert isinstance(layer.ordered, dict)
    first, (second,) = layer.pair
    assert (first, second) == (A, B)
    assert layer.pair[:1] == (A,)
    assert list(layer.ordered) == ["z", "a"]
    layer.pair[1].append(nn.Linear(1, 1))
    assert keys(layer) == ["ordered.z", "pair.0", "pair.1.0", "pair.1.1"]
    named = collections.namedtuple("named", "one two")
    with pytest.raises(TypeError, match="named tuple"):
        layer.named = named(A, 2)
    layer.named = named(1, 2)
    assert layer.named.two == 2


def test_keys_that_are_no_names():
    layer = Holder()
    layer.parts = {"a.b": A, 3: B, "update": C}
    assert keys(layer) == ["parts.3", "parts.a_b", "parts.update_"]
    assert layer.get_submodule("parts.update_") is layer.parts["update"] is C
    with pytest.raises(ValueError, match="both written 'a_b'"):
        layer.parts["a_b"] = nn.Linear(2, 2)


def test_assigning_again():
    layer = Holder()
    layer.blocks = [A]
    old = layer.blocks
    layer.blocks = layer.blocks
    assert layer.blocks is old
    layer.blocks = [B, C]
    old.append(nn.Linear(2, 2))
    assert keys(layer) == ["blocks.0", "blocks.1"]
    layer.blocks = A
    old.append(nn.Linear(2, 2))
    assert keys(layer) == ["blocks"]
    layer.blocks = [A]
    layer.other = layer.blocks
    layer.other.append(B)
    assert keys(layer) == ["blocks.0", "other.1"]
    for value in (None, 3, [1]):
        layer.blocks = [A]
        layer.blocks = value
        assert layer.blocks == value
        assert keys(layer) == ["other.0", "other.1"]
    for value in ([A], []):
        layer.blocks = value
        del layer.blocks
        assert not hasattr(layer, "blocks")
        assert keys(layer) == ["other.0", "other.1"]


def test_before_init_is_an_error_that_says_so():
    class Early(Layer):
        def __init__(self):
            self.blocks = [Dense(3)]
            super().__init__()

    with pytest.raises(AttributeError, match=r"Early.blocks .*super\(\).__init__\(\)"):
        Early()


class Blocks(Model):
    losses_by_head = None

    def __init__(self, name):
        super().__init__()
        setattr(self, name, nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 2)]))
        self.attribute = name

    def call(self, x):
        for layer in getattr(self, self.attribute):
            x = layer(x)
        return x


@pytest.mark.parametrize("name", ["metrics", "losses", "history", "drawn", "losses_by_head"])
def test_a_layer_that_an_attribute_of_the_class_would_hide(name):
    """It would not be called, as if it were not there."""
    with pytest.raises(AttributeError, match=rf"^Blocks\.{name} is an attribute of the class.*Call it something else"):
        Blocks(name)
    for free in ("blocks", "layers"):
        assert Blocks(free)(torch.ones(4, 3)).shape == (4, 2)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "pickle of a deepcopy": lambda layer: pickle.loads(pickle.dumps(copy.deepcopy(layer))),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_compute_the_same_and_go_on_tracking(duplicate):
    layer, x = Chain(), torch.randn(5, 4)
    layer.empty, layer.grid = [], [[]]
    expected = layer(x)
    twin = duplicate(layer)
    assert torch.equal(twin(x), expected)
    assert list(twin.state_dict()) == list(layer.state_dict())
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in layer.parameters()}
    before = list(layer.state_dict())
    twin.blocks.append(Dense(4))
    twin.empty.append(nn.Linear(4, 4))
    twin.grid[0].append(nn.Linear(4, 4))
    twin.heads["c"] = nn.Linear(4, 4)
    twin(x)
    assert {"blocks.3", "empty.0", "grid.0.0", "heads.c"} == {*keys(twin)} - {*keys(layer)}
    assert list(layer.state_dict()) == before


def test_a_list_can_be_copied_by_itself():
    layer = holder(nn.Linear(2, 2), [nn.Linear(2, 2)])
    alone = copy.deepcopy(layer.blocks)
    alone.append(A)
    assert len(layer.blocks) == 2
    assert list(dict(alone.named_parameters())) == [
        "0.weight",
        "0.bias",
        "1.0.weight",
        "1.0.bias",
        "2.weight",
        "2.bias",
    ]


def test_torch_tools_see_through():
    torch._dynamo.reset()
    layer, x = Chain(), torch.randn(5, 4)
    drawn = layer(Input((4,)))
    assert drawn.shape == (None, 10)
    assert keys(layer) == ["blocks.0", "blocks.1", "blocks.2", "heads.a", "heads.b.0", "heads.b.1.0"]
    expected = layer(x)
    doubled = {name: 2 * tensor for name, tensor in layer.state_dict().items()}
    called = torch.func.functional_call(layer, doubled, (x,))
    twin = Chain()
    twin(x)
    twin.load_state_dict(doubled)
    assert torch.equal(called, twin(x))
    assert not torch.equal(called, expected)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="eager")(x), expected)
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), expected)
    assert {p.dtype for p in layer.double().parameters()} == {torch.float64}
    assert layer.heads["b"][1][0].weight.dtype == torch.float64


def test_a_module_swapped_in_the_tree_is_the_one_called():
    layer, x = holder(nn.Linear(2, 2), nn.Linear(2, 2)), torch.randn(3, 2)
    layer.eval()
    setattr(layer.get_submodule("blocks"), "1", nn.Identity())
    assert torch.equal(layer(x), layer.blocks[0](x))
    layer.blocks.insert(0, nn.Tanh())
    assert isinstance(layer.blocks[2], nn.Identity)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(holder(nn.BatchNorm1d(2)))
    assert isinstance(converted.blocks[0], nn.SyncBatchNorm)


def test_lists_in_compiled_calls():
    torch._dynamo.reset()

    class Logs(Layer):
        def __init__(self):
            super().__init__()
            self.seen, self.last = [], {}
            self.dense = nn.Linear(2, 2)

        def call(self, inputs):
            self.outputs = []
            self.outputs.append(self.dense(inputs))
            self.seen.append(1)
            self.last["x"] = inputs
            return self.outputs[0]

    layer, x = Logs(), torch.ones(3, 2)
    layer(2 * x)
    torch.compile(layer, fullgraph=True, backend="eager")(x)
    assert list(layer.seen) == [1, 1]
    assert torch.equal(layer.last["x"], x)


def test_collections_can_be_returned():
    class Returns(Layer):
        def __init__(self):
            super().__init__()
            self.dense = Dense(3)

        def call(self, inputs):
            self.steps, self.named = [], {}
            self.steps.append(self.dense(inputs))
            self.named["x"] = inputs
            return {"steps": self.steps, "named": self.named}

    outputs = Returns()(Input((4,)))
    assert outputs["steps"][0].shape == (None, 3)
    assert outputs["named"]["x"].shape == (None, 4)


def test_freezing_mode_and_order_are_those_of_keras():
    class Theirs(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.blocks = []
            for _ in range(3):
                self.blocks.append(keras.layers.Dense(4, activation="tanh"))
            self.heads = {"a": keras.layers.Dense(2), "b": [keras.layers.Dense(3), (keras.layers.Dense(5),)]}

        def call(self, inputs):
            for block in self.blocks:
                inputs = block(inputs)
            first, (second,) = self.heads["b"]
            heads = [self.heads["a"](inputs), first(inputs), second(inputs)]
            return keras.ops.concatenate(heads, -1)

    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    ours, theirs = Chain(), Theirs()
    ours(torch.from_numpy(x))
    theirs(x)
    ours.set_weights([variable.value.detach().numpy() for variable in theirs.weights])
    np.testing.assert_allclose(ours(x).detach().numpy(), theirs(x).detach().numpy(), atol=1e-6)
    ours.trainable = theirs.trainable = False
    assert len(ours.trainable_weights) == len(theirs.trainable_weights) == 0
    assert not any(module.training for module in ours.eval().modules())


class Scales(Layer):
    """Weights in lists, tuples and dicts, made in `__init__` and by `add_weight` in `build`."""

    def __init__(self):
        super().__init__()
        self.made = [nn.Parameter(torch.ones(3)), (nn.Parameter(torch.ones(3)),)]

    def build(self, input_shape):
        self.scales = []
        for index in range(2):
            self.scales.append(self.add_weight(input_shape[-1:], "ones", name=f"scale_{index}"))
        self.table = {"up": [self.add_weight((), "ones", regularizer="l2")], "down": (self.add_weight((), "ones"),)}
        self.counts = [self.add_weight((), "zeros", trainable=False)]
        self.last = self.add_weight((), "ones")
        self.again = [self.last]

    def call(self, inputs):
        first, (second,) = self.made
        factors = [first, second, *self.scales, *self.table["up"], *self.table["down"], self.again[0]]
        for factor in factors:
            inputs = inputs * factor
        return inputs


SCALES = ["last", "made.0", "made.1.0", "scales.0", "scales.1", "table.up.0", "table.down.0", "counts.0"]


def built_scales():
    layer = Scales()
    layer.build((None, 3))
    return layer


def test_weights_in_collections_are_weights():
    layer = built_scales()
    assert sorted(layer.state_dict()) == sorted(SCALES)
    assert len(layer.trainable_weights) == 7
    assert len(layer.non_trainable_weights) == 1
    layer.set_weights([value * 2 for value in layer.get_weights()])
    assert layer.scales[1].tolist() == [2, 2, 2]
    assert layer.again[0] is layer.last
    torch.testing.assert_close(layer(torch.ones(1, 3)), torch.full((1, 3), 2.0**7))
    assert [round(loss.item(), 4) for loss in layer.losses] == [0.04]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_of_weights_in_collections(duplicate):
    layer = built_scales()
    twin = duplicate(layer)
    assert list(twin.state_dict()) == list(layer.state_dict())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.fill_(3)
    torch.testing.assert_close(twin(torch.ones(1, 3)), torch.full((1, 3), 3.0**7))
    torch.testing.assert_close(layer(torch.ones(1, 3)), torch.ones(1, 3))
    assert twin.again[0] is twin.last


def test_weights_in_collections_move_and_are_replaced():
    layer = built_scales().double()
    assert layer.counts[0].dtype == layer.scales[0].dtype == torch.float64
    zeros = {name: torch.zeros_like(value) for name, value in layer.named_parameters()}
    assert torch.func.functional_call(layer, zeros, torch.ones(1, 3)).abs().sum() == 0
    layer.made[0] = nn.Parameter(torch.zeros(3))
    assert layer.state_dict()["made.0"].sum() == 0
    del layer.made[0]
    assert "made.1.0" not in layer.state_dict()
    assert "made.0.0" in layer.state_dict()


def test_weights_in_collections_train():
    inputs = Input((3,))
    model = Model(inputs, Scales()(inputs))
    model.compile("sgd", "mse")
    before = [weight.clone() for weight in model.trainable_weights]
    assert len(before) == 7
    model.fit(np.ones((4, 3)), np.zeros((4, 3)), verbose=0)
    assert all(not torch.equal(old, new) for old, new in zip(before, model.trainable_weights, strict=True))


def test_what_a_frozen_layer_gets_is_frozen():
    class Block(Layer):
        def __init__(self):
            super().__init__(trainable=False)
            self.plain, self.dense = nn.Linear(3, 2), Dense(2)
            self.scale = nn.Parameter(torch.ones(2))
            self.more = []
            self.more.append(Dense(2))

        def call(self, inputs):
            return self.more[0](self.dense(inputs) + self.plain(inputs)) * self.scale

    block = Block()
    block(torch.ones(2, 3))
    assert not block.trainable_weights
    assert len(block.non_trainable_weights) == 7
    block.trainable = True
    assert len(block.trainable_weights) == 7
