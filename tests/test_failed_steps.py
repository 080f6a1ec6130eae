"""What is said of a step that fails on real data: the layer, the batch and the values; the error stays what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Input, Model, layers

ROWS = np.linspace(-1, 1, 32, dtype="float32").reshape(8, 4)
TARGETS = np.ones((8, 1), "float32")
TOKENS = np.arange(24).reshape(8, 3) % 10
TOKENS[5, 1] = 12


def notes(action, error):
    with pytest.raises(error) as caught:
        action()
    return "\n".join(getattr(caught.value, "__notes__", []))


def reader(embedding):
    tokens, other = Input((3,), dtype="int32", name="tokens"), Input((4,), name="other")
    inner_in = Input((3,), dtype="int32")
    inner = Model(inner_in, layers.Flatten()(embedding(inner_in)), name="inner")
    model = Model([other, tokens], layers.Dense(1)(layers.Concatenate()([inner(tokens), other])), name="reader")
    model.compile("sgd", "mse")
    return model


X = [ROWS, TOKENS]
RUNS = {
    "fit": (lambda m: m.fit(X, TARGETS, batch_size=2, shuffle=False, verbose=0), "batch 2 of the training", 1),
    "validation": (
        lambda m: m.fit([ROWS, TOKENS * 0], TARGETS, validation_data=(X, TARGETS), batch_size=2, verbose=0),
        "batch 2 of the evaluation", 1,
    ),
    "evaluate": (lambda m: m.evaluate(X, TARGETS, batch_size=3, verbose=0), "batch 1 of the evaluation", 2),
    "predict": (lambda m: m.predict(X, batch_size=4, verbose=0), "batch 1 of the prediction", 1),
    "train_on_batch": (lambda m: m.train_on_batch(X, TARGETS), "the batch of the training", 5),
    "test_on_batch": (lambda m: m.test_on_batch(X, TARGETS), "the batch of the evaluation", 5),
    "predict_on_batch": (lambda m: m.predict_on_batch(X), "the batch of the prediction", 5),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_an_index_outside_an_embedding(name):
    run, which, row = RUNS[name]
    for embedding, error in ((layers.Embedding(10, 2, name="words"), ValueError), (nn.Embedding(10, 2), IndexError)):
        model = reader(embedding)
        said = notes(lambda model=model: run(model), error)
        assert f"This was in {which}, in Embedding " in said
        assert "called on (" in said
        assert "drawn at test_failed_steps.py" in said
        assert f"Input 'tokens' holds 12 at [{row}, 1], but its vectors are numbered 0 to 9." in said
        assert np.isfinite(model.predict([ROWS, TOKENS * 0], verbose=0)).all()


# (From torch's own compiler, which takes a few seconds.)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_compiled_steps_tell_the_same():
    model = reader(layers.Embedding(10, 2, name="words"))
    model.compile("sgd", "mse", jit_compile=True, check_nan=True)
    x, y = [np.concatenate([each] * 2) for each in X], np.ones((16, 1))
    x[1][5, 1] = 3
    said = notes(lambda: model.fit(x, y, batch_size=2, shuffle=False, verbose=0), RuntimeError)
    assert "This was in batch 6 of the training, in Embedding 'inner.words', called on (2, 3)" in said
    assert "Input 'tokens' holds 12 at [1, 1]" in said
    x[1][13, 1], y[9] = 4, np.nan
    done = int(model.optimizer.iterations)
    with pytest.raises(ValueError, match=r"loss is nan. y holds nan at \[1, 0\]. The model is as it was") as caught:
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    assert caught.value.__notes__[0].startswith("This was in batch 4 of the training")
    assert int(model.optimizer.iterations) == done + 4
    assert np.isfinite(model.predict(x, verbose=0)).all()


class Subclassed(Model):
    def __init__(self, outputs=3):
        super().__init__(name="net")
        self.blocks = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, outputs))

    def call(self, inputs):
        return self.blocks(inputs)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", nn.CrossEntropyLoss()])
def test_labels_outside_the_classes_of_a_model_that_is_not_drawn(loss):
    model = Subclassed()
    model.compile("sgd", loss)
    labels = np.array([0, 1, 2, 0, 1, 2, 3, 0])
    for run in (
        lambda: model.fit(ROWS, labels, batch_size=2, shuffle=False, verbose=0),
        lambda: model.train_on_batch(ROWS[6:], labels[6:]),
        lambda: model.test_on_batch(ROWS[6:], labels[6:]),
    ):
        said = notes(run, Exception)
        assert "in the loss" in said
        assert "for targets (2,) int64 and predictions (2, 3) float32" in said
        assert "integers from 0 to 2, since it has 3 values a sample, but y holds 3 at [0]" in said


def test_labels_from_a_loader_are_told_with_their_batch():
    inputs = Input((4,))
    model = Model(inputs, layers.Dense(3, activation="softmax", name="kind")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    loader = DataLoader(TensorDataset(torch.from_numpy(ROWS), torch.arange(8) // 2), batch_size=2)
    with pytest.raises(ValueError, match=r"output 'kind' .*y holds 3 at \[0\], 3 at \[1\]") as caught:
        model.fit(loader, verbose=0)
    assert caught.value.__notes__[0] == "This was in batch 3 of the DataLoader"


def test_shapes_of_losses_name_the_output():
    inputs = Input((4,))
    heads = {"price": layers.Dense(1)(inputs), "kind": layers.Dense(2)(inputs)}
    model = Model(inputs, heads)
    model.compile("sgd", "mse")
    y = {"price": TARGETS, "kind": np.ones((8, 3))}
    with pytest.raises(ValueError, match=r"^Output 'kind': mean_squared_error: .*\(8, 3\).*\(8, 2\)"):
        model.fit(ROWS, y, verbose=0)
    said = notes(lambda: model.train_on_batch(ROWS, y), ValueError)
    assert "in the loss of the output 'kind' (mse), for targets (8, 3) float32 and predictions (8, 2)" in said


def test_dtypes_that_do_not_fit():
    model = Subclassed(1)
    model(ROWS)
    model.compile("sgd", "mse")
    model.blocks[2].double()
    said = notes(lambda: model.fit(ROWS, TARGETS, verbose=0), RuntimeError)
    assert "batch 0 of the training, in Linear 'blocks.2', called on (8, 3) float32" in said


class Picky(layers.Layer):
    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        if bool((inputs > 0.9).any()):
            raise LookupError("too large for me")
        return inputs


def test_errors_of_a_users_layer_keep_their_type():
    inputs = Input((4,))
    model = Model(inputs, layers.Dense(1)(Picky(name="picky")(inputs)))
    model.compile("sgd", "mse")
    said = notes(lambda: model.fit(ROWS, TARGETS, batch_size=2, shuffle=False, verbose=0), LookupError)
    assert "batch 3 of the training, in Picky 'picky', called on (2, 4) float32, drawn at test_failed" in said
    assert said.count("\n") == 0


def test_errors_of_a_function_name_its_call():
    inputs = Input((2, 2), name="matrix")
    model = Model(inputs, torch.linalg.inv(inputs), name="inverse")
    said = notes(lambda: model.predict(np.ones((3, 2, 2)), verbose=0), RuntimeError)
    assert "in the call `linalg_inv = torch._C._linalg.linalg_inv(matrix)`" in said.replace("inv_1", "inv")
    assert "torch.linalg.inv(inputs)" in said


def test_errors_of_callbacks_and_data_are_theirs():
    inputs = Input((4,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")

    def batches():
        yield ROWS, TARGETS
        raise KeyError("mine")

    assert notes(lambda: model.fit(batches(), verbose=0), KeyError) == ""


class Vast(layers.Layer):
    """A layer that takes the memory of four rows, in which only three fit."""

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        if len(inputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return inputs * 1.0


@pytest.mark.parametrize("run", ["fit", "evaluate", "predict", "train_on_batch"])
def test_a_batch_size_that_fits(run):
    inputs = Input((4,))
    x = layers.BatchNormalization(name="norm")(inputs)
    model = Model(inputs, layers.Dense(1)(Vast(name="vast")(x)))
    model.compile("sgd", "mse")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {} if run == "train_on_batch" else {"batch_size": 8, "verbose": 0}
    arguments = [ROWS] if run == "predict" else [ROWS, TARGETS]
    said = notes(lambda: getattr(model, run)(*arguments, **options), torch.OutOfMemoryError)
    assert "in Vast 'vast', called on (8, 4) float32" in said
    assert "A batch of 8 rows does not fit into the memory, but 2 do: try batch_size=2." in said
    if run != "train_on_batch":
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        getattr(model, run)(*arguments, **{**options, "batch_size": 2})


def test_no_batch_size_fits():
    class Vaster(Vast):
        def call(self, inputs):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    inputs = Input((4,))
    model = Model(inputs, Vaster()(inputs))
    assert "Not even a batch of one row" in notes(lambda: model.predict(ROWS, verbose=0), torch.OutOfMemoryError)
