"""What users do wrong in training: the type of the error, the names in its message, and a model that still works."""

import functools
import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import losses, metrics, optimizers
from torchfunc.layers import BatchNormalization, Concatenate, Dense, Input
from torchfunc.models import Model

X = np.zeros((12, 4), "float32")
Y = np.zeros((12, 1), "float32")
KIND = np.arange(12) % 3
TITLES = {"title": X, "tags": X[:, :2]}
LOADER = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=4)


def words(*parts):
    return "(?s)" + "".join(f"(?=.*{re.escape(part)})" for part in parts)


def one(**settings):
    inputs = Input((4,), name="x_in")
    # A batch norm's forward pass changes its buffers: what is found out after it has to put them back.
    model = Model(inputs, Dense(1, name="value")(BatchNormalization()(inputs)))
    model.compile(**{"optimizer": "sgd", "loss": "mse", **settings})
    return model


def classes(loss="sparse_categorical_crossentropy", **settings):
    inputs = Input((4,))
    model = Model(inputs, Dense(3, name="label")(BatchNormalization()(inputs)))
    model.compile(**{"optimizer": "sgd", "loss": loss, **settings})
    return model


def subclassed(**settings):
    class Own(Model):
        def __init__(self):
            super().__init__()
            self.norm, self.dense = BatchNormalization(), Dense(1)

        def call(self, inputs):
            return self.dense(self.norm(inputs))

    model = Own()
    model(X)
    model.compile(**{"optimizer": "sgd", "loss": "mse", **settings})
    return model


def pair():
    title, tags = Input((4,), name="title"), Input((2,), name="tags")
    model = Model([title, tags], Dense(1, name="value")(BatchNormalization()(Concatenate()([title, tags]))))
    model.compile("sgd", "mse")
    return model


def two(kind=list, **settings):
    inputs = Input((4,))
    x = BatchNormalization()(inputs)
    value, label = Dense(1, name="value")(x), Dense(3, activation="softmax", name="label")(x)
    model = Model(inputs, [value, label] if kind is list else {"value": value, "label": label})
    model.compile(**{"optimizer": "sgd", "loss": ["mse", "sparse_categorical_crossentropy"], **settings})
    return model


def uncompiled():
    inputs = Input((4,))
    return Model(inputs, Dense(1)(inputs))


def frozen():
    model = one()
    model.trainable = False
    return model


def unfrozen():
    inputs = Input((4,))
    hidden = Dense(2)
    model = Model(inputs, Dense(1)(hidden(inputs)))
    hidden.trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    hidden.trainable = True
    model.fit(X, Y, verbose=0)


COMPILE = {
    "loss name": (lambda: one(loss="mean_square_error"), ["loss", "'mean_square_error'", "mean_squared_error"]),
    "metric name": (lambda: one(metrics=["acuracy"]), ["metric", "'acuracy'", "accuracy"]),
    "weighted metric name": (lambda: one(weighted_metrics=["nope"]), ["metric", "'nope'"]),
    "optimizer name": (lambda: one(optimizer="adamm"), ["optimizer", "'adamm'", "adam"]),
    "optimizer object": (lambda: one(optimizer=3.0), ["optimizer", "3.0"]),
    "loss for no output": (lambda: two(loss={"value": "mse", "lable": "mse"}), ["loss", "'lable'", "'value', 'label'"]),
    "metrics for no output": (lambda: two(metrics={"valeu": "mae"}), ["metrics", "'valeu'", "'value', 'label'"]),
    "weights for no output": (lambda: two(loss_weights={"val": 1.0}), ["loss_weights", "'val'", "'value', 'label'"]),
    "too few losses": (lambda: two(loss=["mse"]), ["loss", "list of 1", "'value', 'label'"]),
    "too many losses": (lambda: one(loss=["mse", "mae"]), ["loss", "list of 2", "'value'"]),
    "too few metrics": (lambda: two(metrics=["mae"]), ["metrics", "list of 1", "'value', 'label'"]),
    "too many weights": (lambda: two(loss_weights=[1, 2, 3]), ["loss_weights", "list of 3"]),
    "loss of a wrong type": (lambda: one(loss=3), ["3", "loss"]),
    "loss key": (lambda: two(loss={"lable": "mse"}), ["'lable'", "Did you mean 'label'"]),
    "metric key": (
        lambda: two(weighted_metrics={"valu": "mae"}),
        ["weighted_metrics", "'valu'", "Did you mean 'value'"],
    ),
    "metric of a wrong type": (lambda: one(metrics=[3]), ["3", "metric"]),
    "one weight that is no number": (lambda: two(loss_weights={"value": "1"}), ["loss_weights", "'1'", "str"]),
    "weights no numbers": (lambda: two(loss_weights=["a", "b"]), ["loss_weights", "'a'"]),
    "one metric object for two": (
        lambda: two(metrics=metrics.MeanAbsoluteError()),
        ["metrics", "mean_absolute_error", "'value', 'label'"],
    ),
    "steps_per_execution": (lambda: one(steps_per_execution=0), ["steps_per_execution", "0"]),
    "jit_compile": (lambda: one(jit_compile="always"), ["jit_compile", "'payback'", "'always'"]),
    "precision": (lambda: one(precision="8"), ["precision", "'bf16-mixed'", "'8'"]),
    "foreign torch optimizer": (
        lambda: one(optimizer=torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=1.0)),
        ["SGD", "none of the model's 4 trainable weights"],
    ),
    "optimizer with a closure": (
        lambda: one(optimizer=functools.partial(torch.optim.LBFGS, lr=1.0)),
        ["LBFGS", "closure"],
    ),
}

DATA = {
    "fit before compile": (uncompiled, lambda m: m.fit(X, Y), ["compile()", "fit"]),
    "evaluate before compile": (uncompiled, lambda m: m.evaluate(X, Y), ["compile()", "evaluate"]),
    "train_on_batch before compile": (uncompiled, lambda m: m.train_on_batch(X, Y), ["compile()", "train_on_batch"]),
    "rows": (one, lambda m: m.fit(X, Y[:5]), ["x has 12", "y has 5"]),
    "rows of weights": (one, lambda m: m.fit(X, Y, sample_weight=np.ones(3)), ["sample_weight has 3"]),
    "rows of one target": (two, lambda m: m.fit(X, [Y, KIND[:5]]), ["y[1] has 5", "x has 12"]),
    "rows of a batch": (one, lambda m: m.train_on_batch(X, Y[:5]), ["y has 5"]),
    "target would broadcast": (one, lambda m: m.fit(X, np.zeros((12, 3))), ["(12, 3)", "(12, 1)"]),
    "one-hot for sparse": (two, lambda m: m.fit(X, [Y, np.zeros((12, 3))]), ["(12, 3)", "categorical_crossentropy"]),
    "weights of a wrong shape": (one, lambda m: m.fit(X, Y, sample_weight=np.ones((12, 7))), ["(12, 7)"]),
    "no target": (one, lambda m: m.fit(X), ["y is missing"]),
    "no target for one": (
        lambda: two(dict),
        lambda m: m.fit(X, {"value": Y}),
        ["'label'", "y is missing"],
    ),
    "target of no output": (two, lambda m: m.fit(X, {"value": Y, "kind": KIND}), ["y", "'kind'", "'value', 'label'"]),
    "weights of no output": (
        two,
        lambda m: m.fit(X, [Y, KIND], sample_weight={"kind": np.ones(12)}),
        ["sample_weight", "'kind'", "'value', 'label'"],
    ),
    "one target for two": (two, lambda m: m.fit(X, Y), ["`y` is one array", "'value', 'label'"]),
    "three targets for two": (two, lambda m: m.fit(X, [Y, KIND, Y]), ["y", "list of 3", "'value', 'label'"]),
    "input key": (one, lambda m: m.fit({"x_inn": X}, Y), ["'x_inn'", "'x_in'"]),
    "input of a wrong shape": (one, lambda m: m.fit(X[:, :3], Y), ["(None, 4)"]),
    "text": (one, lambda m: m.fit(np.full((12, 4), "a"), Y), ["x", "<U1"]),
    "no data": (one, lambda m: m.fit(None, Y), ["x is None"]),
    "no rows": (one, lambda m: m.fit(X[:0], Y[:0]), ["no rows"]),
    "batch size": (one, lambda m: m.fit(X, Y, batch_size=0), ["batch_size", "0"]),
    "validation_split": (one, lambda m: m.fit(X, Y, validation_split=1.2), ["validation_split", "1.2"]),
    "split of a loader": (one, lambda m: m.fit(LOADER, validation_split=0.5), ["validation_split", "DataLoader"]),
    "target beside a loader": (one, lambda m: m.fit(LOADER, Y), ["DataLoader", "y"]),
    "class and sample weights": (
        one,
        lambda m: m.fit(X, Y, class_weight={0: 1.0}, sample_weight=np.ones(12)),
        ["class_weight", "sample_weight"],
    ),
    "class weights for two": (two, lambda m: m.fit(X, [Y, KIND], class_weight={0: 1.0}), ["class_weight", "several"]),
    "input key of two": (pair, lambda m: m.fit({"title": X, "tag": X[:, :2]}, Y), ["'tag'", "Did you mean 'tags'"]),
    "input missing": (pair, lambda m: m.fit({"title": X}, Y), ["missing ['tags']"]),
    "one input for two": (pair, lambda m: m.fit(X, Y), ["2 inputs (title, tags)", "given 1"]),
    "three inputs for two": (pair, lambda m: m.fit([X, X[:, :2], X], Y), ["2 inputs (title, tags)", "given 3"]),
    "inputs in a wrong order": (pair, lambda m: m.fit([X[:, :2], X], Y), ["'title'", "(None, 4)", "(12, 2)"]),
    "object for an input": (pair, lambda m: m.fit({**TITLES, "tags": object()}, Y), ["x['tags'] is object"]),
    "set": (one, lambda m: m.fit({1, 2}, Y), ["x is set"]),
    "number": (one, lambda m: m.fit(3, Y), ["x is int"]),
    "target key": (two, lambda m: m.fit(X, {"value": Y, "lable": KIND}), ["'lable'", "Did you mean 'label'"]),
    "text for a target": (one, lambda m: m.fit(X, np.full(12, "a")), ["y is ndarray", "<U1"]),
    "loader for a target": (one, lambda m: m.fit(X, LOADER), ["y is DataLoader"]),
    "weight key": (
        two,
        lambda m: m.fit(X, [Y, KIND], sample_weight={"lable": np.ones(12)}),
        ["'lable'", "Did you mean 'label'"],
    ),
    "three weights for two": (
        two,
        lambda m: m.fit(X, [Y, KIND], sample_weight=[np.ones(12)] * 3),
        ["sample_weight", "list of 3", "'value', 'label'"],
    ),
    "one number for weights": (one, lambda m: m.fit(X, Y, sample_weight=2.0), ["sample_weight", "single number"]),
    "text for weights": (one, lambda m: m.fit(X, Y, sample_weight=np.full(12, "a")), ["sample_weight", "<U1"]),
    "class index too large": (classes, lambda m: m.fit(X, KIND + 1, batch_size=2), ["'label'", "0 to 2", "holds 3"]),
    "negative class": (classes, lambda m: m.fit(X, KIND - 1, batch_size=2), ["'label'", "0 to 2", "holds -1"]),
    "class that is no integer": (classes, lambda m: m.fit(X, KIND + 0.5), ["'label'", "integers", "holds 0.5"]),
    "NaN for a class": (classes, lambda m: m.fit(X, np.where(KIND == 2, np.nan, KIND)), ["integers", "holds nan"]),
    "ignored class of another loss": (
        lambda: classes(losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=7)),
        lambda m: m.fit(X, np.where(KIND == 2, -1, KIND)),
        ["0 to 2", "holds -1"],
    ),
    "class index for 'crossentropy'": (lambda: classes("crossentropy"), lambda m: m.fit(X, KIND + 1), ["holds 3"]),
    "class index for torch": (
        lambda: classes(torch.nn.CrossEntropyLoss()),
        lambda m: m.fit(X, KIND + 1, batch_size=2),
        ["0 to 2", "holds 3"],
    ),
    "class index from a loader": (
        classes,
        lambda m: m.fit(DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(KIND + 1)), 12)),
        ["0 to 2", "holds 3"],
    ),
    "class indices for one-hot": (
        lambda: classes("categorical_crossentropy"),
        lambda m: m.fit(X, KIND),
        ["(12,)", "(12, 3)", "sparse"],
    ),
    "target of a metric": (lambda: classes(metrics=["mse"]), lambda m: m.fit(X, KIND), ["(12,)", "(12, 3)"]),
    "target of a subclassed model": (subclassed, lambda m: m.fit(X, np.zeros((12, 3))), ["(12, 3)", "(12, 1)"]),
    "metric of a subclassed model": (
        lambda: subclassed(loss=lambda y_true, y_pred: (y_pred**2).mean(), metrics=["mse"]),
        lambda m: m.fit(X, np.zeros((12, 3))),
        ["(12, 3)", "(12, 1)"],
    ),
    "class weights in a list": (
        classes,
        lambda m: m.fit(X, KIND, class_weight=[1, 2, 3]),
        ["class_weight", "[1, 2, 3]"],
    ),
    "class weight by name": (classes, lambda m: m.fit(X, KIND, class_weight={"0": 1.0}), ["'0'", "integers 0 to 2"]),
    "class weight of no class": (classes, lambda m: m.fit(X, KIND, class_weight={3: 1.0}), ["key 3", "0 to 2"]),
    "class weight of a negative class": (
        classes,
        lambda m: m.fit(X, KIND, class_weight={-1: 1.0}),
        ["key -1", "0 to 2"],
    ),
    "class weight that is no number": (classes, lambda m: m.fit(X, KIND, class_weight={0: "a"}), ["'a'", "class 0"]),
    "class weights of a batch": (
        classes,
        lambda m: m.train_on_batch(X, KIND, class_weight={3: 1.0}),
        ["key 3", "0 to 2"],
    ),
    "validation input": (pair, lambda m: m.fit(TITLES, Y, validation_data=({"title": X, "tag": X}, Y)), ["'tag'"]),
    "validation target": (
        two,
        lambda m: m.fit(X, [Y, KIND], validation_data=(X, {"value": Y, "lable": KIND})),
        ["'lable'", "Did you mean 'label'"],
    ),
    "validation of a wrong shape": (one, lambda m: m.fit(X, Y, validation_data=(X, X)), ["(12, 4)", "(12, 1)"]),
    "validation class": (classes, lambda m: m.fit(X, KIND, validation_data=(X, KIND + 1)), ["0 to 2", "holds 3"]),
    "validation without targets": (one, lambda m: m.fit(X, Y, validation_data=(X,)), ["y is missing"]),
    "validation of four": (one, lambda m: m.fit(X, Y, validation_data=(X, Y, Y, Y)), ["tuple of 4"]),
    "validation_freq": (one, lambda m: m.fit(X, Y, validation_freq=0), ["validation_freq", "0"]),
    "validation_freq in words": (one, lambda m: m.fit(X, Y, validation_freq="often"), ["validation_freq", "'often'"]),
    "validation_steps": (one, lambda m: m.fit(X, Y, validation_steps=0), ["validation_steps", "0"]),
    "steps_per_epoch": (one, lambda m: m.fit(X, Y, steps_per_epoch=-1), ["steps_per_epoch", "-1"]),
    "epochs": (one, lambda m: m.fit(X, Y, epochs="3"), ["epochs", "'3'"]),
    "initial_epoch": (one, lambda m: m.fit(X, Y, initial_epoch=None), ["initial_epoch", "None"]),
    "shuffle": (one, lambda m: m.fit(X, Y, shuffle="batches"), ["shuffle", "'batch'", "'batches'"]),
    "split that is no number": (one, lambda m: m.fit(X, Y, validation_split="a"), ["validation_split", "'a'"]),
    "batches of four": (one, lambda m: m.fit(iter([(X, Y, Y, Y)])), ["tuple of 4"]),
    "rows of a generated batch": (one, lambda m: m.fit(iter([(X, Y[:3])])), ["x has 12", "y has 3"]),
    "verbose": (one, lambda m: m.fit(X, Y, verbose=3), ["verbose", "3"]),
    "no loss": (lambda: one(loss=None), lambda m: m.fit(X, Y), ["no loss", "compile"]),
    "no optimizer": (lambda: one(optimizer=None), lambda m: m.fit(X, Y), ["optimizer=None"]),
    "loss apart from the weights": (
        lambda: one(loss=lambda y_true, y_pred: (y_true - y_pred.detach()) ** 2),
        lambda m: m.fit(X, Y),
        ["does not depend on any weight"],
    ),
}


@pytest.mark.parametrize("case", COMPILE)
def test_compile(case):
    make, parts = COMPILE[case]
    with pytest.raises(ValueError, match=words(*parts)):
        make()


@pytest.mark.parametrize("case", DATA)
def test_data(case):
    make, use, parts = DATA[case]
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with pytest.raises(ValueError, match=words(*parts)):
        use(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    # The model is none the worse for it.
    model.trainable = True
    model.compile("sgd", "mse")
    x = TITLES if make is pair else X
    targets = {"value": Y, "label": np.zeros((12, 3))}
    y = {name: targets.get(name, Y) for name in model.output_names or ["value"]}
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][0])


def test_what_is_allowed():
    labels = np.where(KIND == 2, -1, KIND).astype("float32")
    ignoring = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    assert np.isfinite(classes(ignoring).fit(X, labels, verbose=0).history["loss"][0])
    torchs = torch.nn.CrossEntropyLoss(ignore_index=-1, weight=torch.ones(3))
    assert np.isfinite(classes(torchs).fit(X, labels.astype("int64"), verbose=0).history["loss"][0])
    assert np.isnan(one().fit(np.where(X == 0, np.nan, X), Y, verbose=0).history["loss"][0])
    assert np.isnan(one().fit(X, np.full_like(Y, np.nan), verbose=0).history["loss"][0])
    calls = []

    def own(y_true, y_pred):
        calls.append(y_true.numpy())  # which tensors without values would not have
        return ((y_true - y_pred) ** 2).mean(-1)

    one(loss=own).fit(X, Y, batch_size=4, validation_data=(X, Y), verbose=0)
    assert [len(values) for values in calls] == [4, 4, 4, 4, 4, 4]


NOT_ALIKE = ("Loss", "LossFunctionWrapper", "TorchLoss", "CTC")
OF_ARRAYS = [name for name, cls in vars(losses).items() if isinstance(cls, type) and name not in NOT_ALIKE]


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_no_loss_refuses_what_it_can_take(name):
    """The check runs losses on tensors without values, which none of them may ask for."""
    sparse = name in ("SparseCategoricalCrossentropy", "CategoricalGeneralizedCrossEntropy", "Circle")
    model = classes(getattr(losses, name)())
    assert len(model.fit(X, KIND if sparse else np.eye(3)[KIND], verbose=0).history["loss"]) == 1


def test_a_refused_compile_leaves_the_old_settings():
    model = one(metrics=["mae"])
    with pytest.raises(ValueError, match="nope"):
        model.compile("adam", "nope")
    assert isinstance(model.optimizer, optimizers.SGD)
    assert list(model.evaluate(X, Y, verbose=0, return_dict=True)) == ["loss", "mae"]


def test_weights_unfrozen_after_compile():
    with pytest.raises(ValueError, match=words("Adam", "call `compile` again")):
        unfrozen()


def test_an_optimizer_for_two_models():
    shared = optimizers.Adam()
    one(optimizer=shared).fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=words("built for 4 other weights", "compile")):
        one(optimizer=shared).fit(X, Y, verbose=0)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
@pytest.mark.parametrize(("label", "words"), [(1.5, "1.5"), (3.0, "holds 3"), (-1.0, "holds -1")])
def test_labels_of_one_batch(method, label, words):
    inputs = Input((4,))
    model = Model(inputs, Dense(3, activation="softmax")(BatchNormalization()(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = [weight.copy() for weight in model.get_weights()]
    x, y = np.ones((8, 4), "float32"), np.zeros(8, "float32")
    y[3] = label
    with pytest.raises(ValueError, match=f"Class indices of the output 'dense' are integers from 0 to 2.*{words}"):
        getattr(model, method)(x, y)
    assert all(map(np.array_equal, before, model.get_weights()))
    assert np.isfinite(getattr(model, method)(x, np.zeros(8)))


def test_columns_that_no_input_asks_for_are_ignored():
    model = pair()
    with pytest.warns(UserWarning, match=r"'title', 'tags'.*'body'.* ignored") as caught:
        model.fit({**TITLES, "body": X}, Y, batch_size=4, verbose=0)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"\['body'\].* ignored"):
        found = model({**{name: torch.tensor(x) for name, x in TITLES.items()}, "body": torch.tensor(X)})
    expected = model({name: torch.tensor(x) for name, x in TITLES.items()})
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"unknown \['body'\]"):
        model(**{name: torch.tensor(x) for name, x in TITLES.items()}, body=torch.tensor(X))
