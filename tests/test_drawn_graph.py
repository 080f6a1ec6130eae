"""The drawn graph as a value, and the one class of the models made of it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import linecache
import pickle

import keras
import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.func import functional_call, stack_module_state, vmap

import torchfunc
from torchfunc import Input, Model, Sequential, layers
from torchfunc.modules import DrawnGraph


def make(units: int = 3) -> Model:
    a, b = Input((4,), name="a"), Input((4,), name="b")
    shared = layers.Dense(units, activation="relu", name="shared")
    return Model([a, b], {"sum": shared(a) + shared(b), "first": nn.Linear(units, 2)(shared(a)) * torch.ones(2)})


class Scored(Model):
    """A class of a user's."""

    def score(self) -> str:
        return self.name


class TestTheValue:
    def test_it_says_what_was_drawn(self):
        model = make()
        drawn = model.drawn
        assert isinstance(drawn, DrawnGraph)
        assert [value.name for value in drawn.input_tensors] == ["a", "b"]
        assert drawn.output_names == ["sum", "first"]
        assert drawn.keys == {model.shared: "shared", model.linear: "linear"}
        assert [drawn.name_of(node) for node in drawn.nodes] == ["a", "b", "shared", "shared", "add", *_rest(drawn)]
        assert drawn.layers == model.layers
        assert drawn.masks == [None, None]
        assert [(each.path, each.owner) for each in drawn.tensors] == [("constant", "model")]

    def test_it_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            make().drawn.nodes = ()

    def test_the_users_list_may_change_afterwards(self):
        a = Input((2,))
        outputs = [a + 1]
        model = Model(a, outputs)
        outputs.append(a + 2)
        assert len(model(torch.zeros(1, 2))) == 1
        assert len(model.output) == 1

    def test_a_sequential_model_has_one_when_its_input_is_known(self):
        model = Sequential([layers.Dense(3)])
        assert model.drawn is None
        with pytest.raises(AttributeError, match=r"Sequential model 'sequential' has no graph yet.*`build`"):
            _ = model.inputs
        model.build((None, 2))
        first = model.drawn
        assert [type(layer).__name__ for layer in first.layers] == ["InputLayer", "Dense"]
        model.add(layers.Dense(5))
        assert model.drawn is not first
        assert model(torch.zeros(1, 2)).shape == (1, 5)
        assert model.drawn is model.drawn


def _rest(drawn: DrawnGraph) -> list[str]:
    return ["shared", "linear", "mul"]


class TestOneClass:
    def test_models_are_of_one_class(self):
        first, second = make(), make(5)
        assert type(first) is type(second) is type(copy.deepcopy(first)) is type(pickle.loads(pickle.dumps(first)))
        assert type(first).__name__ == "Functional"
        assert isinstance(first, fx.GraphModule)

    def test_models_of_a_users_class_are_of_one_class(self):
        a = Input((2,))
        first, second = Scored(a, a + 1, name="x"), Scored(inputs=a, outputs=a + 2)
        assert type(first) is type(second) is type(pickle.loads(pickle.dumps(first)))
        assert isinstance(first, Scored)
        assert pickle.loads(pickle.dumps(first)).score() == "x"

    def test_each_has_its_own_forward(self):
        a = Input((2,), name="left")
        first, second = Model(a, a + 1), Model(a, a + 2)
        zeros = torch.zeros(1, 2)
        assert first(zeros)[0, 0] == first.forward(zeros)[0, 0] == 1
        assert second(zeros)[0, 0] == second.forward(zeros)[0, 0] == 2
        assert list(inspect.signature(first.forward).parameters) == ["left"]

    def test_copies_stacked_for_vmap(self):
        a = Input((4,))
        model = Model(a, nn.Linear(4, 3)(layers.Dense(4, activation="tanh")(a)))
        models = [model, copy.deepcopy(model)]
        with torch.no_grad():
            models[1].linear.bias.add_(1)
        x = torch.randn(2, 4)
        weights, buffers = stack_module_state(models)
        outputs = vmap(lambda w, b: functional_call(model, (w, b), (x,)))(weights, buffers)
        torch.testing.assert_close(outputs, torch.stack([each(x) for each in models]))

    def test_symbolic_trace_of_a_model(self):
        a, b = Input((4,)), Input((4,))
        model = Model([a, b], nn.Linear(4, 3)(a * 2 - b))
        x, y = torch.randn(3, 4), torch.randn(3, 4)
        traced = fx.symbolic_trace(model)
        torch.testing.assert_close(traced(x, y), model(x, y))
        assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["linear"]

    def test_a_forward_of_the_users_own_is_what_runs(self):
        class Doubled(Model):
            def call(self, inputs):
                return 2 * inputs

        a = Input((2,))
        model = Doubled(a, a + 1)
        assert model(torch.ones(1, 2)).tolist() == [[2, 2]]
        assert model.predict(torch.ones(1, 2), verbose=0).tolist() == [[2, 2]]


class TestGeneratedCode:
    @pytest.mark.parametrize(
        "name", ["lambda", "class", "two words", "a.b", "1st", "output", "self", "a\nb", '"quoted"', "back\\slash"]
    )
    def test_any_name_of_a_layer(self, name):
        a = Input((2,))
        model = Model(a, layers.Dense(3, name=name)(a))
        assert model.get_layer(name).name == name
        assert model(torch.zeros(1, 2)).shape == (1, 3)
        # torch.fx can make its own module of it, from the same code.
        assert fx.GraphModule(model, model.graph)(torch.zeros(1, 2)).shape == (1, 3)

    def test_a_hook_may_take_other_arguments(self):
        a = Input((4,))
        model = Model(a, nn.Linear(4, 3)(a))
        first, second = torch.randn(2, 4), torch.randn(3, 4)
        hook = model.register_forward_pre_hook(lambda module, args: (torch.cat(args),))
        torch.testing.assert_close(model(first, second), model.linear(torch.cat([first, second])))
        hook.remove()
        with pytest.raises(ValueError, match="takes 1 inputs"):
            model(first, second)

    def test_nothing_is_left_of_a_function_that_is_dropped(self):
        model = make()
        file = model.generated_forward.__code__.co_filename
        assert any("self.shared(a)" in line for line in linecache.getlines(file))
        model.recompile()
        assert file not in linecache.cache

    def test_a_changed_graph_is_noticed(self):
        model = make()
        assert not model.graph_was_changed
        assert not pickle.loads(pickle.dumps(model)).graph_was_changed
        for node in model.graph.nodes:
            if node.target is torch.add or getattr(node.target, "__name__", "") == "add":
                node.target = torch.sub
        model.recompile()
        twin = pickle.loads(pickle.dumps(model))
        x = torch.randn(2, 4)
        assert model.graph_was_changed
        assert twin.graph_was_changed
        torch.testing.assert_close(model(x, x)["sum"], torch.zeros(2, 3))
        torch.testing.assert_close(twin(x, x)["sum"], torch.zeros(2, 3))

    def test_a_layer_whose_weight_is_used_beside_its_calls(self):
        a = Input((3,))
        dense = layers.Dense(3, use_bias=False)
        x = dense(a)
        model = Model(a, x @ dense.weight)
        given = torch.randn(2, 3)
        torch.testing.assert_close(model(given), given @ dense.weight.T @ dense.weight)
        assert list(model.state_dict()) == ["dense.weight"]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in Keras
def test_layers_and_weights_are_in_keras_order():
    def draw(library, model_class):
        tokens, image = library.Input((5,)), library.Input((3,))
        late = library.layers.Dense(2, name="late")(image)
        early = library.layers.Dense(2, name="early")(library.layers.Dense(4, name="first")(tokens))
        shared = library.layers.Dense(2, name="shared")
        joined = library.layers.Add(name="joined")([late, early, shared(early)])
        return model_class([tokens, image], [library.layers.Dense(1, name="head")(shared(joined)), late])

    theirs, ours = draw(keras, keras.Model), draw(torchfunc, Model)
    named = [layer.name for layer in theirs.layers if not isinstance(layer, keras.layers.InputLayer)]
    assert [layer.name for layer in ours.layers if not isinstance(layer, layers.InputLayer)] == named
    assert [weight.shape for weight in ours.get_weights()] == [weight.shape for weight in theirs.get_weights()]
    ours.set_weights(theirs.get_weights())
    data = [np.random.default_rng(0).normal(size=(2, size)).astype("float32") for size in (5, 3)]
    for mine, other in zip(ours.predict(data, verbose=0), theirs.predict(data, verbose=0), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
    assert list(copy.deepcopy(ours).state_dict()) == list(ours.state_dict())


def test_masks_of_a_copy_are_there_to_draw_on():
    tokens = Input((4,), dtype="int64")
    model = Model(tokens, layers.Dense(2)(layers.Embedding(7, 3, mask_zero=True)(tokens)))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        embedded = twin.get_layer("embedding").output
        assert embedded.mask is not None
        further = Model(twin.input, layers.GlobalAveragePooling1D()(embedded))
        ids = torch.tensor([[1, 2, 0, 0]])
        expected = twin.get_layer("embedding")(ids[:, :2]).mean(1)
        torch.testing.assert_close(further(ids), expected)


@pytest.mark.parametrize("name", ["label", "entry", "direct", "masked", "code_1", "drawing"])
def test_ordinary_names_are_keys(name):
    a = Input((2,))
    assert list(Model(a, layers.Dense(3, name=name)(a)).state_dict()) == [f"{name}.weight", f"{name}.bias"]
    assert list(Sequential([a, layers.Dense(3, name=name)]).state_dict()) == [f"{name}.weight", f"{name}.bias"]
