"""A dropped model is freed when its last name goes: no reference cycle, nothing left in tables of the process."""

import copy
import gc
import linecache
import pickle
import weakref

import pytest
import torch
from torch import nn

from torchfunc import Input
from torchfunc.layers import LSTM, BatchNormalization, Bidirectional, Dense, Embedding, TimeDistributed
from torchfunc.models import Model, Sequential, clone_model

X, Y = torch.ones(8, 4), torch.zeros(8, 2)


def drawn():
    inputs = Input((4,))
    hidden = BatchNormalization()(Dense(4, activation="relu")(inputs))
    return Model(inputs, Dense(2)(torch.relu(hidden) + 1))


def shared():
    """Each call of the layer is made on what another has returned."""
    inputs, layer = Input((4,)), Dense(4)
    return Model(inputs, layer(layer(inputs)))


def nested():
    inputs = Input((4,))
    return Model(inputs, Dense(2)(drawn()(inputs)))


def several():
    first, second = Input((4,)), Input((4,))
    layer = nn.Linear(4, 2)
    return Model([first, second], {"a": layer(first), "b": layer(second), "c": [torch.chunk(first, 2, -1)[0]]})


def sequential():
    model = Sequential([Dense(3), Dense(2)])
    model(X)
    return model


def with_masks():
    inner_inputs, inputs = Input((5, 4)), Input((5,), dtype="int64")
    inner = Model(inner_inputs, Bidirectional(LSTM(3, return_sequences=True))(inner_inputs))
    model = Model(inputs, TimeDistributed(Dense(2))(inner(Embedding(9, 4, mask_zero=True)(inputs))))
    model(torch.ones(2, 5, dtype=torch.int64))
    return model


class Written(Model):
    def __init__(self):
        super().__init__()
        self.first, self.others = Dense(3), [Dense(2)]

    def call(self, inputs):
        return self.others[0](self.first(inputs))

    def predict_step(self, data):
        return super().predict_step(data)


class WrittenAndDrawn(Model):
    def __init__(self):
        inputs = Input((4,))
        super().__init__(inputs, Dense(2)(inputs))


def written():
    model = Written()
    model(X)
    return model


def with_calls_in_no_model():
    model = drawn()
    model(Input((4,)))
    model.layers[1](Input((4,)))
    return model


def looked_at():
    model = nested()
    model.summary(print_fn=lambda text: None)
    assert model.graph.owning_module is model
    model.graph.eliminate_dead_code()
    model.recompile()
    model.register_forward_hook(lambda *_: None)
    model(X)
    return model


def fitted(model, **options):
    model.compile("adam", "mse", metrics=["mae"], **options)
    history = model.fit(X, Y, validation_data=(X, Y), verbose=0)
    assert history.model is model
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    return model


MAKERS = {
    "drawn": drawn,
    "shared": shared,
    "nested": nested,
    "several": several,
    "sequential": sequential,
    "with_masks": with_masks,
    "written": written,
    "written_and_drawn": WrittenAndDrawn,
    "with_calls_in_no_model": with_calls_in_no_model,
    "looked_at": looked_at,
    "deepcopy": lambda: copy.deepcopy(nested()),
    "pickle": lambda: pickle.loads(pickle.dumps(nested())),
    "clone": lambda: clone_model(nested()),
    "config": lambda: Model.from_config(nested().get_config()),
    "fitted": lambda: fitted(nested()),
    "fitted_sequential": lambda: fitted(sequential()),
    "fitted_written": lambda: fitted(written()),
    "fitted_copy": lambda: copy.deepcopy(fitted(drawn())),
}


@pytest.fixture
def collector_is_off():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def check(make):
    lines = len(linecache.cache)
    model = make()
    parts = [*model.modules(), *model.parameters(), *model.buffers()]
    references = [weakref.ref(part) for part in parts]
    names = [type(part).__name__ for part in parts]
    del model, parts
    assert [name for name, reference in zip(names, references, strict=True) if reference() is not None] == []
    return len(linecache.cache) - lines


@pytest.mark.usefixtures("collector_is_off")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_freed_when_dropped(make):
    make()  # whatever is made once
    assert check(make) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.usefixtures("collector_is_off")
def test_freed_with_its_compiled_steps():
    def make():
        inputs = Input((4,))
        model = fitted(Model(inputs, Dense(2)(Dense(3, activation="relu")(inputs))), jit_compile=True)
        # What torch.compile's own analysis leaves behind.
        gc.collect()
        return model

    make()
    check(make)


def test_what_remains_of_a_dropped_model():
    """A tensor has all that it was made of, a layer has its calls that are in no model."""
    inputs = Input((4,), name="x")
    layer = Dense(3, name="dense")
    output = layer(inputs)
    model = Model(inputs, output)
    assert layer.output is output
    assert model.nodes[-1].outputs is output
    del model, layer
    gc.collect()
    assert output.node.target.output is output
    assert output.node.args[0] is inputs
    again = Model(inputs, Dense(2)(output))
    assert [layer.name for layer in again.layers[:2]] == ["x", "dense"]

    alone = Dense(3)
    alone(Input((4,)))
    gc.collect()
    assert alone.output.shape == (None, 3)
    assert alone.output.node is alone.inbound_nodes[0]


def test_a_layer_forgets_calls_of_dropped_models():
    base = drawn()
    kept = Model(inputs := Input((4,)), base(inputs))
    for _ in range(50):
        inputs = Input((4,))
        Model(inputs, base(inputs))
    assert base.inbound_nodes == [kept.output.node]


def test_history_of_a_dropped_model():
    model = drawn()
    model.compile("sgd", "mse")
    history = model.fit(X, Y, epochs=2, verbose=0)
    assert copy.deepcopy(model).history.history == history.history
    duplicate = copy.deepcopy(model)
    assert duplicate.history is None or duplicate.history.model is duplicate
    del model
    assert history.model is None
    assert len(history.history["loss"]) == 2
    assert pickle.loads(pickle.dumps(history)).history == history.history
