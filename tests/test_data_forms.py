"""The same data in every form that fit takes: the same weights, bit for bit."""

import copy
import itertools
import math

import keras
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from torchfunc import utils
from torchfunc.layers import Concatenate, Dense, Input
from torchfunc.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

RNG = np.random.default_rng(0)
ROWS, SIZE, EPOCHS = 22, 5, 2  # the last batch is short
A, B = RNG.standard_normal((2, ROWS, 1)).astype("float32")
U, V = RNG.standard_normal((2, ROWS, 1)).astype("float32")
W = RNG.random(ROWS).astype("float32")
FLAT = np.concatenate([A, B], axis=1)
KIND = RNG.integers(0, 3, ROWS)


def two_to_two():
    a, b = Input((1,), name="a"), Input((1,), name="b")
    x = Dense(4, activation="tanh")(Concatenate()([a, b]))
    return Model([a, b], [Dense(1, name="u")(x), Dense(1, name="v")(x)])


def one_to_one(classes=1):
    x = Input((2,), name="flat")
    return Model(x, Dense(classes, name="u")(x))


def as_tensors(structure):
    return torch.utils._pytree.tree_map(torch.from_numpy, structure)


def cut(structure, start, stop):
    return torch.utils._pytree.tree_map(lambda array: array[start:stop], structure)


class Samples(Dataset):
    """A map-style Dataset that gives rows of a structure."""

    def __init__(self, *data):
        self.data = as_tensors(data)

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        return torch.utils._pytree.tree_map(lambda tensor: tensor[index], self.data)


class WholeSamples(Samples):
    def __getitem__(self, index):
        raise AssertionError("It has __getitems__.")

    def __getitems__(self, indices):
        return [super(WholeSamples, self).__getitem__(index) for index in indices]


class Stream(IterableDataset):
    def __init__(self, *data):
        self.samples = Samples(*data)

    def __iter__(self):
        return (self.samples[index] for index in range(ROWS))


def batches(*data):
    return [cut(data, start, start + SIZE) for start in range(0, ROWS, SIZE)]


class Sequence:
    """What Keras' users know as a Sequence, without a base class."""

    def __init__(self, *data):
        self.parts = batches(*data)

    def __len__(self):
        return len(self.parts)

    def __getitem__(self, index):
        return self.parts[index]


class Keras(Sequence, keras.utils.PyDataset):
    def __init__(self, *data, **options):
        keras.utils.PyDataset.__init__(self, **options)
        Sequence.__init__(self, *data)


class Ours(Sequence, utils.PyDataset):
    def __init__(self, *data, **options):
        utils.PyDataset.__init__(self, **options)
        Sequence.__init__(self, *data)


def endless(*data):
    yield from itertools.cycle(batches(*data))


STEPS = math.ceil(ROWS / SIZE)
# What to give fit for data given as (x, y) or (x, y, sample_weight).
FORMS = {
    "arrays": lambda *data: (data, {"batch_size": SIZE}),
    "float64": lambda *data: (
        torch.utils._pytree.tree_map(lambda a: a.astype("float64") if a.dtype.kind == "f" else a, data),
        {"batch_size": SIZE},
    ),
    "tensors": lambda *data: (as_tensors(data), {"batch_size": SIZE}),
    "steps": lambda *data: (data, {"steps_per_epoch": STEPS}),
    "Dataset": lambda *data: ((Samples(*data),), {"batch_size": SIZE}),
    "Dataset of batches": lambda *data: ((WholeSamples(*data),), {"batch_size": SIZE}),
    "IterableDataset": lambda *data: ((Stream(*data),), {"batch_size": SIZE}),
    "DataLoader": lambda *data: ((DataLoader(Samples(*data), SIZE),), {}),
    "DataLoader, own collate": lambda *data: (
        (DataLoader(range(ROWS), SIZE, collate_fn=lambda rows: cut(data, rows[0], rows[-1] + 1)),),
        {},
    ),
    "DataLoader of a stream": lambda *data: ((DataLoader(Stream(*data), SIZE),), {}),
    "iterator": lambda *data: ((iter(batches(*data) * EPOCHS),), {"steps_per_epoch": STEPS}),
    "generator": lambda *data: ((endless(*data),), {"steps_per_epoch": STEPS}),
    "Sequence": lambda *data: ((Sequence(*data),), {}),
    "keras.utils.PyDataset": lambda *data: ((Keras(*data),), {}),
    "utils.PyDataset": lambda *data: ((Ours(*data),), {}),
    "utils.PyDataset, threads": lambda *data: ((Ours(*data, workers=3, max_queue_size=2),), {}),
}


def trained(start, given, **options):
    model = copy.deepcopy(start)
    model.compile("adam", "sparse_categorical_crossentropy" if model.output_shape[-1] == 3 else "mse")
    data, more = given
    arguments = dict(zip(("x", "y", "sample_weight"), data, strict=False))
    history = model.fit(**arguments, epochs=EPOCHS, verbose=0, **{"shuffle": False, **more, **options})
    assert history.params["steps"] == STEPS
    return {**model.state_dict(), "loss": torch.tensor(history.history["loss"])}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.fixture(scope="module")
def start():
    return two_to_two()


@pytest.fixture(scope="module")
def by_hand(start):
    """The weights after a training loop by hand."""
    model = copy.deepcopy(start)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    for _ in range(EPOCHS):
        for x, y, w in batches(*as_tensors(([A, B], [U, V], W))):
            optimizer.zero_grad()
            errors = [(target - output).squeeze(-1) ** 2 for target, output in zip(y, model(*x), strict=True)]
            (sum(errors) * w).mean().backward()
            optimizer.step()
    return model.state_dict()


class TestSameWeights:
    @pytest.mark.parametrize("form", FORMS)
    def test_lists(self, start, by_hand, form):
        found = trained(start, FORMS[form]([A, B], [U, V], W))
        for name, tensor in by_hand.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
        assert_same(found, trained(start, FORMS["arrays"]([A, B], [U, V], W)))

    @pytest.mark.parametrize("form", FORMS)
    def test_dicts(self, start, form):
        data = {"a": A, "b": B}, {"v": V, "u": U}, {"u": W, "v": W}
        assert_same(trained(start, FORMS[form](*data)), trained(start, FORMS["arrays"]([A, B], [U, V], W)))

    @pytest.mark.parametrize("form", FORMS)
    def test_arrays_without_weights(self, form):
        start = one_to_one()
        assert_same(trained(start, FORMS[form](FLAT, U)), trained(start, FORMS["arrays"]([FLAT], [U])))

    @pytest.mark.parametrize("form", FORMS)
    def test_class_weights(self, form):
        start = one_to_one(3)
        weights = {0: 2.0, 2: 0.5}
        found = trained(start, FORMS[form](FLAT, KIND), class_weight=weights)
        assert_same(found, trained(start, FORMS["arrays"](FLAT, KIND, np.array([2.0, 1.0, 0.5], "float32")[KIND])))

    def test_class_weights_of_a_named_target(self):
        start = one_to_one(3)
        found = trained(start, FORMS["generator"]({"flat": FLAT}, {"u": KIND}), class_weight={1: 3.0})
        assert_same(found, trained(start, FORMS["arrays"](FLAT, KIND), class_weight={1: 3.0}))

    def test_lists_of_numbers(self):
        start = one_to_one()
        found = trained(start, ((FLAT.tolist(), U.tolist(), W.tolist()), {"batch_size": SIZE}))
        assert_same(found, trained(start, FORMS["arrays"](FLAT, U, W)))

    def test_tuples_and_tensor_datasets(self, start):
        expected = trained(start, FORMS["arrays"]([A, B], [U, V]))
        assert_same(trained(start, (((A, B), (U, V)), {"batch_size": SIZE})), expected)
        start = one_to_one()
        expected = trained(start, FORMS["arrays"](FLAT, U, W))
        dataset = TensorDataset(*as_tensors((FLAT, U, W)))
        assert_same(trained(start, ((dataset,), {"batch_size": SIZE})), expected)

    def test_loader_with_workers(self, start):
        loader = DataLoader(Samples([A, B], [U, V]), SIZE, num_workers=1)
        assert_same(trained(start, ((loader,), {})), trained(start, FORMS["arrays"]([A, B], [U, V])))

    def test_processes_of_a_py_dataset(self, start):
        data = Ours([A, B], [U, V], workers=1, use_multiprocessing=True)
        assert_same(trained(start, ((data,), {})), trained(start, FORMS["arrays"]([A, B], [U, V])))


class TestShuffling:
    @pytest.mark.parametrize("shuffle", [True, "batch"])
    @pytest.mark.parametrize("form", ["tensors", "Dataset", "TensorDataset"])
    def test_one_seed_gives_one_order_in_all_forms(self, form, shuffle):
        start = one_to_one()

        def run(given):
            torch.manual_seed(7)
            return trained(start, given, shuffle=shuffle)

        dataset = TensorDataset(*as_tensors((FLAT, U)))
        given = ((dataset,), {"batch_size": SIZE}) if form == "TensorDataset" else FORMS[form](FLAT, U)
        expected = run(FORMS["arrays"](FLAT, U))
        assert_same(run(given), expected)
        if shuffle is True:  # the same rows in other batches
            assert not torch.equal(expected["loss"], trained(start, FORMS["arrays"](FLAT, U))["loss"])

    def test_batches_of_a_sequence_are_mixed(self):
        seen = []

        class Watched(Sequence):
            def __getitem__(self, index):
                seen.append(index)
                return super().__getitem__(index)

        model = one_to_one()
        model.compile("sgd", "mse")
        model.fit(Watched(FLAT, U), epochs=2, verbose=0)
        assert sorted(seen[:STEPS]) == sorted(seen[STEPS:]) == list(range(STEPS))
        assert seen[:STEPS] != list(range(STEPS))
        seen.clear()
        model.evaluate(Watched(FLAT, U), verbose=0)
        assert seen == list(range(STEPS))


class TestSequences:
    class Told(Ours):
        def __init__(self, *data):
            super().__init__(*data)
            self.told = []

        def __getitem__(self, index):
            self.told.append(index)
            return super().__getitem__(index)

        def on_epoch_begin(self):
            self.told.append("begin")

        def on_epoch_end(self):
            self.told.append("end")

    @pytest.mark.parametrize("steps", [None, 2])
    def test_told_of_epochs(self, steps):
        data, validation = self.Told(FLAT, U), self.Told(FLAT, U)
        model = one_to_one()
        model.compile("sgd", "mse")
        model.fit(
            data,
            epochs=2,
            steps_per_epoch=steps,
            validation_steps=steps,
            validation_data=validation,
            shuffle=False,
            verbose=0,
        )
        if steps is None:
            assert data.told == validation.told == ["begin", *range(STEPS), "end"] * 2
        else:
            assert data.told == ["begin", 0, 1, "end", "begin", 2, 3, "end"]
            assert validation.told == ["begin", 0, 1, "end"] * 2

    def test_without_end(self):
        class Endless(utils.PyDataset):
            num_batches = None

            def __getitem__(self, index):
                return FLAT, U * index

        model = one_to_one()
        model.compile("sgd", "mse")
        assert model.fit(Endless(), steps_per_epoch=4, epochs=2, verbose=0).params["steps"] == 4
        with pytest.raises(ValueError, match="no end to these batches"):
            model.fit(Endless(), verbose=0)

    @pytest.mark.parametrize("workers", [1, 3])
    def test_an_error_in_a_batch(self, workers):
        class Broken(Ours):
            def __getitem__(self, index):
                if index == 2:
                    raise KeyError("no such file")
                return super().__getitem__(index)

        model = one_to_one()
        model.compile("sgd", "mse")
        with pytest.raises(KeyError, match="no such file"):
            model.fit(Broken(FLAT, U, workers=workers), verbose=0, shuffle=False)

    def test_what_a_subclass_has_to_define(self):
        with pytest.raises(NotImplementedError, match="__getitem__"):
            utils.PyDataset()[0]
        with pytest.raises(NotImplementedError, match="__len__"):
            _ = utils.PyDataset().num_batches
        assert [x.shape for x, _ in Ours(FLAT, U)] == [(5, 2)] * 4 + [(2, 2)]
        assert utils.Sequence is utils.PyDataset


class TestFrames:
    FRAME = pd.DataFrame({"a": A[:, 0], "b": B[:, 0].astype("float64"), "other": 1})

    def test_a_frame_is_an_array(self):
        start = one_to_one()
        frame = self.FRAME[["a", "b"]]
        expected = trained(start, FORMS["arrays"](FLAT, U))
        for target in (pd.Series(U[:, 0]), pd.DataFrame({"u": U[:, 0]})):
            assert_same(trained(start, ((frame, target), {"batch_size": SIZE})), expected)
        np.testing.assert_array_equal(start.predict(frame, verbose=0), start.predict(FLAT, verbose=0))

    def test_columns_go_to_the_inputs_and_outputs_of_their_names(self):
        start = two_to_two()
        targets = pd.DataFrame({"v": V[:, 0], "u": U[:, 0]})
        found = trained(start, ((self.FRAME, targets, pd.Series(W)), {"batch_size": SIZE}))
        assert_same(found, trained(start, FORMS["arrays"]([A, B], [U, V], W)))
        start.compile("sgd", "mse")
        expected = start.evaluate([A, B], [U, V], verbose=0)
        assert start.evaluate(self.FRAME, targets, verbose=0) == expected
        assert start.test_on_batch(self.FRAME, targets) == pytest.approx(expected)
        validation = {"validation_data": (self.FRAME, targets), "epochs": 1, "verbose": 0}
        logs = start.fit([A, B], [U, V], **validation).history
        assert logs["val_loss"][0] == pytest.approx(start.evaluate([A, B], [U, V], verbose=0)[0])
        with pytest.raises(ValueError, match=r"no column 'b'\. Did you mean 'bb'\?"):
            start.predict(self.FRAME.rename(columns={"b": "bb"}), verbose=0)

    def test_split(self):
        model = one_to_one()
        model.compile("sgd", "mse")
        frame = self.FRAME[["a", "b"]]
        found = model.fit(frame, pd.Series(U[:, 0]), validation_split=0.5, verbose=0).history["val_loss"][0]
        assert found == pytest.approx(model.evaluate(FLAT[11:], U[11:], verbose=0))

    @pytest.mark.parametrize(
        ("column", "expected"),
        [
            (pd.array([1, None, 3], "Int64"), [1, np.nan, 3]),
            (pd.array([1, 2, 3], "Int64"), [1, 2, 3]),
            (pd.array([True, None, False], "boolean"), [1, np.nan, 0]),
            (pd.array([0.5, None, 2], "Float32"), [0.5, np.nan, 2]),
            (np.array([True, False, True]), [1, 0, 1]),
            (pd.Categorical([3, 4, 3]), [3, 4, 3]),
            (pd.arrays.SparseArray([0.0, 0, 1]), [0, 0, 1]),
        ],
    )
    def test_types_that_hold_numbers(self, column, expected):
        from torchfunc.training.data.conversion import to_tensors

        np.testing.assert_array_equal(to_tensors(pd.Series(column), "x").numpy(), np.array(expected))
        both = to_tensors(pd.DataFrame({"a": column, "b": [0.5, 1.5, 2.5]}), "x")
        np.testing.assert_array_equal(both.numpy(), np.array([expected, [0.5, 1.5, 2.5]], "float32").T)

    @pytest.mark.parametrize(
        ("column", "parts"),
        [
            (pd.Categorical(["x", "y", "x"]), ["category", "get_dummies"]),
            (["x", "y", "z"], ["str", "get_dummies"]),
            (pd.to_datetime(["2020-01-01"] * 3), ["datetime64", "Turn it into numbers"]),
            ([None, "x", 3], ["object", "get_dummies"]),
        ],
    )
    def test_types_that_do_not(self, column, parts):
        model = one_to_one()
        with pytest.raises(ValueError, match="(?s)" + ".*".join(["column", *parts])) as raised:
            model.predict(pd.DataFrame({"good": [1.0, 2, 3], "bad": column}), verbose=0)
        assert "x['bad']" in str(raised.value)
