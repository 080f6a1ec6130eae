"""`utils`: the same arrays as Keras' helpers give, and datasets that hold the rows they should."""

import random
import re

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from torchfunc import utils
from torchfunc.layers import Dense, Input
from torchfunc.models import Model

WORDS = [[1], [2, 3], [], [4, 5, 6, 7]]


class TestNumbers:
    @pytest.mark.parametrize("x", [[0, 2, 1], np.array([[1], [0]]), np.array([[0, 1], [2, 2]])])
    @pytest.mark.parametrize("count", [None, 4])
    def test_to_categorical_equals_keras(self, x, count):
        found, expected = utils.to_categorical(x, count), keras.utils.to_categorical(x, count)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
        tensor = torch.tensor(np.array(x))
        assert torch.equal(utils.to_categorical(tensor, 4), keras.utils.to_categorical(tensor, 4))

    @pytest.mark.parametrize(("x", "count"), [([-1, 0], None), ([0, 3], 3)])
    def test_indices_that_are_no_class(self, x, count):
        with pytest.raises(ValueError, match=f"got {x[0]} to {x[1]}"):
            utils.to_categorical(x, count)

    @pytest.mark.parametrize("order", [1, 2, 3, np.inf])
    @pytest.mark.parametrize("axis", [-1, 0, 1])
    def test_normalize_equals_keras(self, axis, order):
        x = np.random.default_rng(0).standard_normal((3, 4))
        x[1] = 0
        # Keras takes the axis 0 of an array for the last one, and fails.
        expected = keras.utils.normalize(x.T, -1, order).T if axis == 0 else keras.utils.normalize(x, axis, order)
        np.testing.assert_allclose(utils.normalize(x, axis, order), expected, rtol=1e-12)
        np.testing.assert_allclose(utils.normalize(torch.from_numpy(x), axis, order).numpy(), expected, rtol=1e-12)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"maxlen": 3},
            {"maxlen": 3, "truncating": "post", "padding": "post"},
            {"padding": "post", "value": -1.5, "dtype": "float32"},
            {"maxlen": 2, "truncating": "post"},
        ],
    )
    def test_pad_sequences_equals_keras(self, options):
        found, expected = utils.pad_sequences(WORDS, **options), keras.utils.pad_sequences(WORDS, **options)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype

    def test_padded_vectors_and_text(self):
        for sequences, options in (
            ([np.ones((2, 3)), np.zeros((1, 3))], {"dtype": "float32", "value": 7}),
            ([["a"], ["bc", "d"]], {"dtype": object, "value": ""}),
        ):
            np.testing.assert_array_equal(
                utils.pad_sequences(sequences, **options), keras.utils.pad_sequences(sequences, **options)
            )

    @pytest.mark.parametrize(
        ("sequences", "options", "part"),
        [
            (3, {}, "got int"),
            ([1, 2], {}, "holds 1"),
            ([[1]], {"padding": "left"}, "`padding` is 'pre' or 'post', got 'left'"),
            ([[1]], {"truncating": "end"}, "`truncating` is 'pre' or 'post', got 'end'"),
            ([[1]], {"value": "x"}, "'x'"),
            ([[[1, 2]], [[1]]], {}, "Sequence 1 holds values of shape (1,)"),
        ],
    )
    def test_what_cannot_be_padded(self, sequences, options, part):
        with pytest.raises(ValueError, match=re.escape(part)):
            utils.pad_sequences(sequences, **options)


class TestSession:
    def test_random_seed(self):
        def draw(seed):
            utils.set_random_seed(seed)
            return random.random(), np.random.random(), torch.rand(1).item()

        for seed in (5, 0, 2**32 - 1):
            generator = torch.Generator().manual_seed(seed)
            expected = (
                random.Random(seed).random(),
                np.random.RandomState(seed).random_sample(),
                torch.rand(1, generator=generator).item(),
            )
            assert draw(seed) == expected
        for seed in (1.5, True, -1, 2**32, None):
            with pytest.raises(ValueError, match=f"got {seed!r}"):
                utils.set_random_seed(seed)

    def test_models_work_after_clear_session(self):
        inputs = Input((3,))
        model = Model(inputs, Dense(1)(inputs))
        before = model.predict(np.ones((2, 3)), verbose=0)
        utils.clear_session()
        np.testing.assert_array_equal(model.predict(np.ones((2, 3)), verbose=0), before)
        assert list(Model(inputs, Dense(1)(inputs)).state_dict()) == list(model.state_dict())


class Squares(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor(index), torch.tensor(index**2)


class TestSplit:
    @pytest.mark.parametrize(
        ("left", "right"), [(0.7, None), (None, 0.3), (4, None), (None, 4), (0.5, 0.2), (3, 3), (np.int64(4), None)]
    )
    def test_sizes_equal_keras(self, left, right):
        x = np.arange(10)
        parts = utils.split_dataset(x, left, right)
        # Keras' torch backend refuses parts that do not add up, and NumPy's integers.
        if None in (left, right) and not isinstance(left, np.int64):
            assert [len(part) for part in parts] == [len(part) for part in keras.utils.split_dataset(x, left, right)]
        rows = [part.tensors[0].tolist() for part in parts]
        assert rows[0] == list(range(len(rows[0])))
        assert rows[1] == list(range(10 - len(rows[1]), 10))

    @pytest.mark.parametrize("data", [Squares(), [np.arange(10), np.arange(10) ** 2]])
    def test_rows_stay_together(self, data):
        first = utils.split_dataset(data, 0.6, shuffle=True, seed=3)
        rows = [[tuple(map(int, row)) for row in part] for part in first]
        assert sorted(rows[0] + rows[1]) == [(i, i * i) for i in range(10)]
        assert rows[0] != [(i, i * i) for i in range(6)]
        again = utils.split_dataset(data, 0.6, shuffle=True, seed=3)
        assert [[tuple(map(int, row)) for row in part] for part in again] == rows

    def test_unshuffled_arrays_are_not_copied(self):
        x = torch.arange(10)
        left, right = utils.split_dataset(x, 4)
        assert left.tensors[0].data_ptr() == x.data_ptr()
        assert right.tensors[0].data_ptr() == x[4:].data_ptr()

    @pytest.mark.parametrize(
        ("sizes", "error", "part"),
        [
            ((None, None), ValueError, "both are None"),
            ((1.5, None), ValueError, "left_size"),
            ((None, 10), ValueError, "right_size"),
            ((6, 5), ValueError, "6 + 5 of 10"),
            (("a", None), TypeError, "'a'"),
            ((0.01, None), ValueError, "0 + 10 of 10"),
        ],
    )
    def test_sizes_that_do_not_fit(self, sizes, error, part):
        with pytest.raises(error, match=re.escape(part)):
            utils.split_dataset(np.arange(10), *sizes)
        with pytest.raises(error):
            keras.utils.split_dataset(np.arange(10), *sizes)

    def test_what_cannot_be_split(self):
        with pytest.raises(TypeError, match="int"):
            utils.split_dataset(3, 0.5)


class TestWindows:
    def test_example_of_keras_documentation(self):
        loader = utils.timeseries_dataset_from_array(
            np.arange(99), None, sequence_length=10, sampling_rate=2, sequence_stride=3
        )
        (windows,) = loader
        assert windows[0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
        assert windows[2].tolist() == [6, 8, 10, 12, 14, 16, 18, 20, 22, 24]
        assert windows[-1].tolist() == [78, 80, 82, 84, 86, 88, 90, 92, 94, 96]

    @pytest.mark.parametrize("bounds", [(None, None), (4, None), (None, 30), (5, 31)])
    def test_targets_batches_and_bounds(self, bounds):
        data, targets = np.random.default_rng(0).random((40, 2)), np.arange(40)
        loader = utils.timeseries_dataset_from_array(
            data, targets, 4, sequence_stride=2, batch_size=5, start_index=bounds[0], end_index=bounds[1]
        )
        first, last = bounds[0] or 0, bounds[1] or 40
        starts = list(range(first, last - 3, 2))
        assert isinstance(loader, DataLoader)
        assert len(loader) == -(-len(starts) // 5)
        windows, wanted = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert wanted.tolist() == starts
        expected = np.stack([data[start : start + 4] for start in starts]).astype("float32")
        np.testing.assert_array_equal(windows.numpy(), expected)

    def test_shuffled_by_a_seed(self):
        def order(seed, **options):
            data = utils.timeseries_dataset_from_array(
                np.arange(30), np.arange(30), 3, shuffle=True, seed=seed, **options
            )
            return [int(y) for _, y in data] if options else torch.cat([y for _, y in data]).tolist()

        assert order(1) == order(1) != order(2)
        assert sorted(order(1)) == list(range(28))
        assert sorted(order(1, batch_size=None)) == list(range(28))

    def test_single_windows_and_fit(self):
        data = utils.timeseries_dataset_from_array(np.arange(20.0), np.arange(20.0), 5, batch_size=None)
        assert len(data) == 16
        assert data[3][0].tolist() == [3, 4, 5, 6, 7]
        inputs = Input((5,))
        model = Model(inputs, Dense(1)(inputs))
        model.compile("sgd", "mse")
        assert model.fit(data, batch_size=4, verbose=0).params["steps"] == 4
        loader = utils.timeseries_dataset_from_array(np.arange(20.0), np.arange(20.0), 5, batch_size=8)
        assert model.fit(loader, verbose=0).params["steps"] == 2

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"start_index": 20}, "start_index"),
            ({"start_index": 5, "end_index": 5}, "end_index"),
            ({"end_index": 20}, "end_index"),
            ({"sampling_rate": 0}, "sampling_rate"),
            ({"sequence_stride": 20}, "sequence_stride"),
        ],
    )
    def test_what_keras_refuses(self, options, part):
        for library in (utils, keras.utils):
            with pytest.raises(ValueError, match=part):
                library.timeseries_dataset_from_array(np.arange(20), None, 3, **options)

    def test_no_window(self):
        with pytest.raises(ValueError, match="No window of 30"):
            utils.timeseries_dataset_from_array(np.arange(20), None, 30)


def test_tensor_datasets_are_tensors():
    left, _ = utils.split_dataset([np.zeros((4, 2)), np.arange(4)], 0.5)
    assert isinstance(left, TensorDataset)
    assert [tensor.dtype for tensor in left.tensors] == [torch.float32, torch.int64]
