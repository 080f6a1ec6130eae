"""What people do wrong, one function each: its docstring says what, its code how.

`python tests/wrong_uses.py` writes their messages to `golden_errors.txt`; the tests compare them with that.
"""

from __future__ import annotations

import inspect
import pathlib
import re
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchfunc
from torchfunc import (
    Input,
    Model,
    Sequential,
    callbacks,
    config,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    random,
    regularizers,
    utils,
)

GOLDEN = pathlib.Path(__file__).with_name("golden_errors.txt")
CHAPTERS: dict[str, list[Callable[[], Any]]] = {}
ROWS = np.linspace(-1, 1, 32, dtype="float32").reshape(8, 4)
TARGETS = np.ones((8, 1), "float32")
FOLDER = pathlib.Path(tempfile.gettempdir())


def chapter(title: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def add(function: Callable[[], Any]) -> Callable[[], Any]:
        CHAPTERS.setdefault(title, []).append(function)
        return function

    return add


drawing = chapter("Drawing")
shapes = chapter("Shapes")
names = chapter("Names and graphs")
data = chapter("Data")
labels = chapter("Labels and values")
settings = chapter("Losses, metrics and optimizers")
runs = chapter("Runs and callbacks")
files = chapter("Saving, loading and configs")
own = chapter("Layers and models of one's own")
modules = chapter("Torch modules and functions")
rest = chapter("Ops, random numbers and augmentation")


# Models that several of them use


def small(**compiled: Any) -> Model:
    inputs = Input((4,), name="features")
    model = Model(inputs, layers.Dense(1, name="price")(layers.Dense(3, name="hidden")(inputs)), name="small")
    if compiled:
        model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


def classifier(loss: Any = "sparse_categorical_crossentropy") -> Model:
    inputs = Input((4,), name="features")
    model = Model(inputs, layers.Dense(3, activation="softmax", name="kind")(inputs), name="classifier")
    model.compile("sgd", loss)
    return model


def two_heads(**compiled: Any) -> Model:
    title, tags = Input((4,), name="title"), Input((2,), name="tags")
    x = layers.Concatenate()([title, tags])
    price, kind = layers.Dense(1, name="price")(x), layers.Dense(3, activation="softmax", name="kind")(x)
    model = Model({"title": title, "tags": tags}, {"price": price, "kind": kind}, name="shop")
    model.compile(
        **{"optimizer": "sgd", "loss": {"price": "mse", "kind": "sparse_categorical_crossentropy"}, **compiled}
    )
    return model


def words(layer: Any = None) -> Model:
    tokens = Input((3,), dtype="int32", name="tokens")
    x = (layer or layers.Embedding(10, 2, name="embedding"))(tokens)
    model = Model(tokens, layers.Dense(1)(layers.Flatten()(x)), name="reader")
    model.compile("sgd", "mse")
    return model


TOKENS = np.arange(24).reshape(8, 3) % 10


# Drawing


@drawing
def if_on_a_symbolic_tensor():
    """`if` on a value that there is only when the model runs."""
    x = Input((4,))
    if x.sum() > 0:
        return x


@drawing
def numpy_on_a_symbolic_tensor():
    """A function of NumPy on a symbolic tensor."""
    return np.sin(Input((4,)))


@drawing
def in_place():
    """An operation in place."""
    x = layers.Dense(3)(Input((4,)))
    return x.add_(1.0)


@drawing
def assigning_to_a_part():
    """Assigning to a part of a symbolic tensor."""
    x = Input((4,))
    x[:, 0] = 0.0


@drawing
def misspelt_attribute_of_a_tensor():
    """An attribute of a symbolic tensor, misspelt."""
    return Input((4,)).shpae


@drawing
def device_of_a_symbolic_tensor():
    """Asking a symbolic tensor where it is."""
    x = Input((4,))
    return torch.zeros(3, device=x.device)


@drawing
def backward_on_a_symbolic_tensor():
    """`backward()` on a symbolic tensor."""
    x = Input((4,))
    layers.Dense(1)(x).sum().backward()


@drawing
def shape_with_the_batch():
    """A misspelt dtype of an input."""
    return Input((4,), dtype="flaot32")


@drawing
def shape_of_a_string():
    """An input's shape that is none."""
    return Input(("4",))


@drawing
def loop_over_an_unknown_size():
    """A loop over an axis of unknown size."""
    return [row * 2 for row in Input((4,))]


@drawing
def misspelt_layer():
    """A layer's name, misspelt."""
    return layers.Desne(3)


@drawing
def misspelt_argument():
    """An argument's name, misspelt."""
    return layers.Dense(3, activtion="relu")


@drawing
def unknown_activation():
    """An activation that there is not."""
    return layers.Dense(3, activation="rleu")


@drawing
def no_units():
    """Units that are no number."""
    return layers.Dense("64")


# Shapes


@shapes
def too_few_axes():
    """A convolution of images without channels."""
    return layers.Conv2D(8, 3, name="conv")(Input((28, 28)))


@shapes
def kernel_larger_than_the_image():
    """A kernel larger than what is left of the image."""
    x = layers.MaxPooling2D(4)(Input((8, 8, 3)))
    return layers.Conv2D(8, 3, name="conv")(x)


@shapes
def sizes_that_do_not_add():
    """Adding what has different shapes."""
    x = Input((4,))
    return layers.Add(name="residual")([layers.Dense(3)(x), layers.Dense(5)(x)])


@shapes
def sizes_that_do_not_concatenate():
    """Concatenating along the wrong axis."""
    return layers.Concatenate(axis=1, name="join")([Input((4, 3)), Input((5, 2))])


@shapes
def unknown_features():
    """A Dense layer on features of unknown number."""
    return layers.Dense(3, name="dense")(Input((None,)))


@shapes
def reshape():
    """A Reshape to another number of values."""
    return layers.Reshape((3, 5), name="reshape")(Input((16,)))


@shapes
def another_number_of_features():
    """A layer on another number of features than it was built for."""
    shared = layers.Dense(3, name="shared")
    shared(Input((4,)))
    return shared(Input((5,)))


@shapes
def matmul():
    """A product of matrices that do not fit."""
    return Input((4, 3)) @ Input((4, 3))


@shapes
def recurrent_on_rows():
    """An LSTM on rows without a time axis."""
    return layers.LSTM(8, name="lstm")(Input((16,)))


@shapes
def attention_heads():
    """Queries and values of different widths."""
    return layers.Attention(name="attention")([Input((5, 4)), Input((6, 3))])


@shapes
def a_mask_of_another_length():
    """A mask of another length than the sequence."""
    steps = Input((7, 4))
    return layers.LSTM(2, name="lstm")(steps, mask=Input((6,), dtype="bool"))


@shapes
def data_of_another_shape():
    """Data of another shape than the model's input."""
    return small(loss="mse").predict(np.ones((8, 5), "float32"))


# Names and graphs


@names
def a_name_twice():
    """Two layers of one name."""
    x = Input((4,))
    return Model(x, layers.Dense(1, name="dense")(layers.Dense(3, name="dense")(x)))


@names
def disconnected():
    """A model that lacks one of its inputs."""
    a, b = Input((4,), name="a"), Input((4,), name="b")
    return Model(a, layers.Add()([a, b]))


@names
def a_layer_as_output():
    """A layer in place of its output."""
    x = Input((4,))
    return Model(x, layers.Dense(3))


@names
def output_of_a_layer_called_twice():
    """`.output` of a layer that was called twice."""
    shared = layers.Dense(3, name="shared")
    a, b = shared(Input((4,))), shared(Input((4,)))
    return shared.output, a, b


@names
def unknown_layer():
    """A layer's name that there is not."""
    return small().get_layer("hiden")


@names
def misspelt_method():
    """A method of a model, misspelt."""
    return small().sumary()


@names
def misspelt_setting_of_a_layer():
    """An attribute of a layer, misspelt."""
    return layers.Dense(3, name="hidden").unit


@names
def slash_in_a_name():
    """A slash in a name."""
    return layers.Dense(3, name="block/dense")


@names
def module_that_sequential_lacks():
    """A function in a Sequential model."""
    return Sequential([layers.Dense(3), torch.relu])


@names
def sequential_with_several_outputs():
    """A layer with several outputs in a Sequential model."""
    return Sequential([Input((5, 4)), layers.LSTM(3, return_state=True), layers.Dense(1)])


@names
def input_in_the_middle():
    """An Input in the middle of a Sequential model."""
    return Sequential([layers.Dense(3), Input((4,))])


@names
def sequential_before_it_is_built():
    """The weights of a Sequential model that knows no input yet."""
    Sequential([layers.Dense(3)], name="stack").save_weights(FOLDER / "stack.weights.h5")


# Data


@data
def rows_of_different_number():
    """More inputs than targets."""
    small(loss="mse").fit(ROWS, TARGETS[:5], verbose=0)


@data
def symbolic_data():
    """A symbolic tensor in place of data."""
    return small(loss="mse").predict(Input((4,)))


@data
def symbolic_targets():
    """A symbolic tensor among the training data."""
    small(loss="mse").fit(ROWS, Input((1,)), verbose=0)


@data
def words_as_data():
    """Words as data of a model of numbers."""
    small(loss="mse").predict(np.array([["a", "b", "c", "d"]]))


@data
def a_misspelt_key():
    """A key of a dict of inputs, misspelt."""
    two_heads().predict({"title": ROWS, "tag": ROWS[:, :2]}, verbose=0)


@data
def too_many_inputs():
    """Two arrays for one input."""
    small(loss="mse").predict([ROWS, ROWS])


@data
def no_target_for_an_output():
    """No target for one of two outputs."""
    two_heads().fit({"title": ROWS, "tags": ROWS[:, :2]}, {"price": TARGETS}, verbose=0)


@data
def fit_before_compile():
    """`fit` before `compile`."""
    small().fit(ROWS, TARGETS)


@data
def empty_data():
    """No rows at all."""
    small(loss="mse").fit(ROWS[:0], TARGETS[:0], verbose=0)


@data
def a_loader_with_targets():
    """Targets beside a DataLoader."""
    loader = DataLoader(TensorDataset(torch.from_numpy(ROWS), torch.from_numpy(TARGETS)), batch_size=4)
    small(loss="mse").fit(loader, TARGETS, verbose=0)


@data
def a_split_of_a_loader():
    """A validation split of a DataLoader."""
    loader = DataLoader(TensorDataset(torch.from_numpy(ROWS), torch.from_numpy(TARGETS)), batch_size=4)
    small(loss="mse").fit(loader, validation_split=0.2, verbose=0)


@data
def complex_data():
    """Complex numbers for an input of floats."""
    small(loss="mse").predict(ROWS.astype("complex64"), verbose=0)


@data
def ragged_lists():
    """Lists of different lengths."""
    words().predict([[1, 2, 3], [4, 5]], verbose=0)


# Labels and values


@labels
def index_outside_an_embedding():
    """An index that the vocabulary does not have, in the third batch."""
    tokens = TOKENS.copy()
    tokens[5, 1] = 10
    words().fit(tokens, TARGETS, batch_size=2, shuffle=False, verbose=0)


@labels
def index_outside_a_torch_embedding():
    """The same with torch's own module."""
    tokens = TOKENS.copy()
    tokens[5, 1] = 10
    words(nn.Embedding(10, 2)).evaluate(tokens, TARGETS, batch_size=2, verbose=0)


@labels
def label_outside_the_classes():
    """Classes that are counted from 1."""
    classifier().fit(ROWS, np.arange(8) % 3 + 1, verbose=0)


@labels
def label_outside_the_classes_from_a_loader():
    """The same from a DataLoader."""
    dataset = TensorDataset(torch.from_numpy(ROWS), torch.arange(8) // 2)
    classifier().fit(DataLoader(dataset, batch_size=2), verbose=0)


@labels
def one_hot_for_sparse():
    """One-hot targets for a loss of class indices."""
    classifier().fit(ROWS, np.eye(3)[np.arange(8) % 3], verbose=0)


@labels
def indices_for_one_hot():
    """Class indices for a loss of one-hot targets."""
    classifier("categorical_crossentropy").fit(ROWS, np.arange(8) % 3, verbose=0)


@labels
def targets_of_another_shape():
    """Targets of another shape than the output."""
    two_heads().fit(
        {"title": ROWS, "tags": ROWS[:, :2]}, {"price": np.ones((8, 3)), "kind": np.zeros(8, int)}, verbose=0
    )


@labels
def binary_labels():
    """Labels -1 and 1 for a crossentropy."""
    small(loss="binary_crossentropy").fit(ROWS, TARGETS * -1, verbose=0)


@labels
def nan_in_the_data():
    """The first NaN, looked for with `check_nan`."""
    rows = ROWS.copy()
    rows[6, 2] = np.nan
    small(loss="mse", check_nan=True).fit(rows, TARGETS, batch_size=2, shuffle=False, verbose=0)


@labels
def nan_from_a_layer():
    """A NaN that a layer makes of numbers."""
    inputs = Input((4,), name="features")
    model = Model(inputs, layers.Dense(1)(torch.log(inputs)))
    model.compile("sgd", "mse", check_nan=True)
    model.fit(ROWS, TARGETS, shuffle=False, verbose=0)


@labels
def class_weight_for_no_class():
    """A weight for a class that there is not."""
    classifier().fit(ROWS, np.arange(8) % 3, class_weight={0: 1.0, 3: 2.0}, verbose=0)


@labels
def sample_weights_of_another_length():
    """Too few sample weights."""
    small(loss="mse").fit(ROWS, TARGETS, sample_weight=np.ones(5), verbose=0)


# Losses, metrics and optimizers


@settings
def unknown_loss():
    """A loss that there is not."""
    small(loss="mean_square_error")


@settings
def unknown_metric():
    """A metric that there is not."""
    small(metrics=["acuracy"])


@settings
def unknown_optimizer():
    """An optimizer that there is not."""
    small(optimizer="adamm")


@settings
def optimizer_of_another_model():
    """A torch optimizer of another model's weights."""
    small(optimizer=torch.optim.Adam(nn.Linear(4, 1).parameters()))


@settings
def loss_for_no_output():
    """A loss for an output that there is not."""
    two_heads(loss={"prise": "mse", "kind": "sparse_categorical_crossentropy"})


@settings
def too_few_losses():
    """One loss in a list for two outputs."""
    two_heads(loss=["mse"])


@settings
def learning_rate_as_a_word():
    """A learning rate that is no number."""
    return optimizers.Adam(learning_rate="fast")


@settings
def misspelt_optimizer_argument():
    """An argument of an optimizer, misspelt."""
    return optimizers.Adam(learning_rat=0.1)


@settings
def misspelt_optimizer_attribute():
    """An attribute of an optimizer, misspelt."""
    return optimizers.Adam(0.1).learing_rate


@settings
def unknown_reduction():
    """A reduction that there is not."""
    return losses.MeanSquaredError(reduction="avg")


@settings
def unknown_initializer():
    """An initializer that there is not."""
    return layers.Dense(3, kernel_initializer="glorot")


@settings
def unknown_regularizer():
    """A regularizer that there is not."""
    return regularizers.get("l3")


# Runs and callbacks


@runs
def no_such_monitor():
    """A callback that watches what is not logged."""
    stop = callbacks.EarlyStopping(monitor="val_los")
    small(loss="mse").fit(ROWS, TARGETS, validation_split=0.5, callbacks=[stop], verbose=0)


@runs
def a_class_of_callbacks():
    """A callback's class in place of a callback."""
    small(loss="mse").fit(ROWS, TARGETS, callbacks=[callbacks.EarlyStopping], verbose=0)


@runs
def epochs_as_a_word():
    """Epochs that are no number."""
    small(loss="mse").fit(ROWS, TARGETS, epochs="3")


@runs
def checkpoint_name():
    """A checkpoint of weights under a name that tells no format."""
    return callbacks.ModelCheckpoint(FOLDER / "best.ckpt", save_weights_only=True)


@runs
def misspelt_history():
    """An attribute of a history, misspelt."""
    return small(loss="mse").fit(ROWS, TARGETS, verbose=0).hsitory


@runs
def out_of_memory():
    """A batch that does not fit into the memory."""

    class Vast(layers.Layer):
        def compute_output_shape(self, input_shape):
            return input_shape

        def call(self, inputs):
            if len(inputs) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return inputs

    inputs = Input((4,))
    model = Model(inputs, layers.Dense(1)(Vast(name="vast")(inputs)))
    model.compile("sgd", "mse")
    model.fit(ROWS, TARGETS, batch_size=8, verbose=0)


# Saving, loading and configs


@files
def no_such_file():
    """A file that is not there."""
    return models.load_model(FOLDER / "missing-model.keras")


@files
def format_of_a_file():
    """A whole model under a name that tells no format."""
    small().save(FOLDER / "model.pt")


@files
def weights_of_another_model():
    """The weights of another model."""
    small().save_weights(FOLDER / "small.weights.h5")
    inputs = Input((4,))
    Model(inputs, layers.Dense(7, name="hidden")(inputs)).load_weights(FOLDER / "small.weights.h5")


@files
def a_class_that_is_not_known():
    """A file with a layer of one's own that nobody registered."""
    config = small().get_config()
    config["layers"][1]["class_name"] = "Attention2"
    config["layers"][1]["module"] = None
    return Model.from_config(config)


@files
def config_of_a_function():
    """A lambda in a config."""
    inputs = Input((4,))
    return Model(inputs, layers.Lambda(lambda x: x + 1, name="plus_one")(inputs)).to_json()


@files
def torch_module_in_a_keras_file():
    """A torch module in Keras' format."""
    inputs = Input((4,))
    Model(inputs, nn.Linear(4, 3)(inputs)).save(FOLDER / "model.keras")


@files
def export_format():
    """A format that there is not."""
    small().export(FOLDER / "model", format="onx")


@files
def unknown_dtype():
    """A float type that there is not."""
    config.set_floatx("float8")


# Layers and models of one's own


@own
def forgotten_super():
    """A layer without `super().__init__()`."""

    class Scale(layers.Layer):
        def __init__(self, factor):
            self.factor = nn.Parameter(torch.tensor(factor))

    return Scale(2.0)(Input((4,)))


@own
def a_failing_layer():
    """An error in a layer's own code, met when it is drawn."""

    class Split(layers.Layer):
        def call(self, inputs):
            parts = {"left": inputs[:, :2]}
            return parts["right"]

    return Split(name="split")(Input((4,)))


@own
def a_failing_layer_in_fit():
    """An error in a layer's own code, met in training."""

    class Picky(layers.Layer):
        def compute_output_shape(self, input_shape):
            return input_shape

        def call(self, inputs):
            if bool((inputs > 0.9).any()):
                raise ArithmeticError("too large for me")
            return inputs

    inputs = Input((4,), name="features")
    model = Model(inputs, layers.Dense(1)(Picky(name="picky")(inputs)))
    model.compile("sgd", "mse")
    model.fit(ROWS, TARGETS, batch_size=2, shuffle=False, verbose=0)


@own
def a_layer_made_in_call():
    """A layer that is made anew in each call."""

    class Late(layers.Layer):
        def call(self, inputs):
            self.inner = layers.Dense(2)
            return self.inner(inputs)

    return Late(name="late")(Input((4,)))


@own
def values_decide():
    """A layer whose result's size depends on values."""

    class Positive(layers.Layer):
        def call(self, inputs):
            return inputs[inputs[:, 0] > 0]

    return Positive(name="positive")(Input((4,)))


@own
def nothing_returned():
    """A layer without a `return`."""

    class Silent(layers.Layer):
        def call(self, inputs):
            self.doubled = inputs * 2

    return Silent(name="silent")(Input((4,)))


@own
def no_call():
    """A model without `call`."""

    class Empty(Model):
        pass

    return Empty()(torch.ones(2, 4))


@own
def a_failing_subclassed_model():
    """A subclassed model whose layers do not fit, in training."""

    class Net(Model):
        def __init__(self):
            super().__init__(name="net")
            self.first, self.second = nn.Linear(4, 3), nn.Linear(5, 1)

        def call(self, inputs):
            return self.second(self.first(inputs))

    model = Net()
    model.compile("sgd", "mse")
    model.fit(ROWS, TARGETS, verbose=0)


# Torch modules and functions


@modules
def features_of_a_linear():
    """A `nn.Linear` on another number of features."""
    return nn.Linear(8, 3)(Input((4,)))


@modules
def lazy_module():
    """A lazy module of torch."""
    return nn.LazyLinear(3)(Input((4,)))


@modules
def channels_of_a_convolution():
    """Images with the channels last, for a torch convolution."""
    return nn.Conv2d(3, 8, 3)(Input((32, 32, 3)))


@modules
def computed_from_a_parameter():
    """A tensor that is computed from a parameter."""
    linear = nn.Linear(4, 3)
    return Input((4,)) @ linear.weight.mT


@modules
def values_of_a_function():
    """A function whose result depends on values."""
    return torch.nonzero(Input((4,)))


@modules
def views_of_unknown_sizes():
    """None among sizes, where it stands for nothing."""
    return Input((4, 3)).reshape(-1, None)


@modules
def rewiring():
    """Replacing a layer that there is not."""
    return small().rewire({"hiden": None})


# Ops, random numbers and augmentation


@rest
def absent_op():
    """An operation that is not here."""
    return ops.ctc_decode


@rest
def misspelt_op():
    """An operation, misspelt."""
    return ops.sofmax


@rest
def misspelt_module():
    """A module of the package, misspelt."""
    return torchfunc.optimisers


@rest
def random_shape():
    """A seed that is none."""
    return random.normal((2, 3), seed="lucky")


@rest
def factor_of_an_augmentation():
    """A factor out of range."""
    return layers.RandomRotation(factor="half")


@rest
def augmentation_of_rows():
    """An augmentation of rows."""
    return layers.RandomFlip(name="flip")(Input((16,)))


@rest
def classes_to_one_hot():
    """One-hot vectors of a class that there is not."""
    return utils.to_categorical([0, 1, 4], num_classes=3)


@rest
def metric_of_its_own():
    """A metric of predictions of another shape."""
    return metrics.MeanSquaredError()(np.ones((4, 2)), np.ones((3, 2)))


# The file


def message_of(function: Callable[[], Any]) -> str:
    """What the function raises, without what differs from one machine to the next: lines, folders, addresses."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            function()
        except Exception as error:  # noqa: BLE001
            kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ != "torchfunc.errors")
            text = "\n".join([f"{kind}: {error}", *getattr(error, "__notes__", [])])
        else:
            raise AssertionError(f"{function.__name__} is no mistake any more")
    text = re.sub(r"(\w+\.py):\d+", r"\1", text.replace(f"{FOLDER}/", ""))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def section(function: Callable[[], Any]) -> str:
    """One wrong use: what it is, the code, and the message in lines that can be read."""
    code = inspect.getsource(function).split('"""', 2)[2]
    lines = message_of(function).splitlines()
    wrapped = [textwrap.fill(line, 110, break_long_words=False, break_on_hyphens=False) for line in lines]
    title = str(inspect.getdoc(function))
    shown = textwrap.indent(textwrap.dedent(code.strip("\n")), "    ").rstrip()
    return "\n\n".join([title, shown, "\n".join(wrapped)])


def document() -> str:
    """All of them, by chapter."""
    parts = [f"What torchfunc answers to {sum(map(len, CHAPTERS.values()))} wrong uses (torch {TORCH})"]
    for title, functions in CHAPTERS.items():
        parts.append(f"{title}\n{'=' * len(title)}")
        parts.extend(map(section, functions))
    return "\n\n\n".join(parts) + "\n"


# Some messages end in what torch says.
TORCH = ".".join(torch.__version__.split(".")[:2])

if __name__ == "__main__":
    GOLDEN.write_text(document(), encoding="utf-8")
