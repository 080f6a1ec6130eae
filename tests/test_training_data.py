"""Data for training: what arrays become, and how they are dealt out batch by batch."""

import itertools
import re

import keras
import numpy as np
import pytest
import torch
from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from torchfunc import config
from torchfunc.training import pack_x_y_sample_weight, unpack_x_y_sample_weight
from torchfunc.training.checks import check_counts
from torchfunc.training.class_weight import ClassWeights
from torchfunc.training.data import sources
from torchfunc.training.data.array_batches import gathered
from torchfunc.training.data.arrays import Arrays, is_array_like
from torchfunc.training.data.conversion import to_tensors

CPU = torch.device("cpu")


def words(*parts):
    return "(?s)" + "".join(f"(?=.*{re.escape(part)})" for part in parts)


def make_batches(x, y=None, sample_weight=None, **settings):
    data = sources.parse_data(x, y, sample_weight, batch_size=settings.get("batch_size"))
    return sources.make_batches(data, device=CPU, **settings)


def batches(*args, **settings):
    return list(make_batches(*args, **settings).epoch())


class TestArraysBecomeTensors:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (np.zeros(3, "float64"), torch.float32),
            (np.zeros(3, "float16"), torch.float32),
            (np.zeros(3, ">f4"), torch.float32),
            (np.zeros(3, "int8"), torch.int8),
            (np.zeros(3, ">i8"), torch.int64),
            (np.zeros(3, "uint8"), torch.uint8),
            (np.zeros(3, "uint16"), torch.int32),
            (np.zeros(3, "uint32"), torch.int64),
            (np.zeros(3, "bool"), torch.bool),
            (np.zeros(3, "complex64"), torch.complex64),
            ([1, 2, 3], torch.int64),
            ([[1.0, 2], [3, 4]], torch.float32),
            (torch.zeros(3, dtype=torch.float64), torch.float64),
        ],
    )
    def test_dtype(self, given, expected):
        assert to_tensors(given, "x").dtype == expected

    def test_default_float_type_decides(self):
        config.set_floatx("float64")
        try:
            assert to_tensors(np.zeros(3, "float32"), "x").dtype == torch.float64
        finally:
            config.set_floatx("float32")

    def test_values_survive_odd_memory(self):
        base = np.arange(6.0)
        readonly = base.copy()
        readonly.flags.writeable = False
        for array in (base[::-1], base.reshape(2, 3).T, readonly, base.astype(">f8")):
            np.testing.assert_array_equal(to_tensors(array, "x").numpy(), np.asarray(array, "float32"))

    def test_memory_is_shared_where_possible(self):
        array = np.zeros(3, "float32")
        tensor = to_tensors(array, "x")
        array[0] = 1
        assert tensor[0] == 1

    def test_structures(self):
        found = to_tensors({"a": np.zeros(2), "b": [np.zeros(2), None], "c": (np.zeros(2),)}, "x")
        assert isinstance(found["a"], torch.Tensor)
        assert isinstance(found["b"], list)
        assert found["b"][1] is None
        assert isinstance(found["c"], tuple)

    @pytest.mark.parametrize(
        ("given", "parts"),
        [
            ({"title": np.array(["a", "b"])}, ["x['title']", "dtype <U1"]),
            ([np.zeros(2), np.array([None, 1])], ["x[1]", "object"]),
            ([[1, 2], [3]], ["x", "different lengths"]),
        ],
    )
    def test_what_no_tensor_can_hold(self, given, parts):
        with pytest.raises(ValueError, match=words(*parts)):
            to_tensors(given, "x")

    def test_what_counts_as_arrays(self):
        assert is_array_like([np.zeros(2), {"a": torch.zeros(2)}, None])
        assert not is_array_like(DataLoader(TensorDataset(torch.zeros(2))))
        assert not is_array_like("text")


def test_packing():
    x, y, w = torch.ones(1), torch.ones(2), torch.ones(3)
    assert unpack_x_y_sample_weight(x) == (x, None, None)
    assert unpack_x_y_sample_weight((x,)) == (x, None, None)
    assert unpack_x_y_sample_weight([x, y]) == (x, y, None)
    assert unpack_x_y_sample_weight((x, y, w)) == (x, y, w)
    assert pack_x_y_sample_weight(x) is x
    assert pack_x_y_sample_weight([x, y]) == ([x, y],)
    assert pack_x_y_sample_weight(x, y) == (x, y)
    assert pack_x_y_sample_weight(x, y, w) == (x, y, w)
    with pytest.raises(ValueError, match="tuple of 4"):
        unpack_x_y_sample_weight((x, x, x, x))


class TestSplit:
    @pytest.mark.parametrize(("rows", "fraction"), [(10, 0.2), (7, 0.5), (1797, 0.2), (3, 0.1), (10, 0.35)])
    def test_same_rows_as_keras(self, rows, fraction):
        x = np.arange(rows)
        train, validation = Arrays.parse(x).split(fraction)
        expected = keras.src.trainers.data_adapters.array_slicing.train_validation_split((x,), fraction)
        np.testing.assert_array_equal(train.x.numpy(), expected[0][0])
        np.testing.assert_array_equal(validation.x.numpy(), expected[1][0])

    @pytest.mark.parametrize(("fraction", "part"), [(1.5, "1.5"), (-0.1, "-0.1"), (0.9, "1 rows")])
    def test_wrong_fractions(self, fraction, part):
        with pytest.raises(ValueError, match=words("validation_split", part)):
            Arrays.parse(torch.zeros(1)).split(fraction)


class TestClassWeights:
    @pytest.mark.parametrize(
        "y",
        [
            np.array([0, 1, 2, 1]),
            np.array([[0], [1], [2], [1]]),
            np.array([[0.0], [1.0], [2.0], [1.0]]),
            np.array([[0.2], [1.4], [1.6], [0.9]]),
            np.eye(3)[[0, 1, 2, 1]],
        ],
    )
    def test_equal_keras(self, y):
        weights = {0: 1.5, 2: 0.25}
        found = Arrays.parse(torch.zeros(4), torch.from_numpy(y)).weighted(ClassWeights(weights).of).sample_weight
        np.testing.assert_array_equal(found.numpy(), class_weight_to_sample_weights(y, weights))

    @pytest.mark.parametrize(
        ("y", "sample_weight", "part"),
        [
            (None, None, "no targets"),
            ([torch.zeros(2), torch.zeros(2)], None, "several outputs"),
            (torch.zeros(2), torch.ones(2), "not both"),
        ],
    )
    def test_wrong_use(self, y, sample_weight, part):
        with pytest.raises(ValueError, match=part):
            Arrays.parse(torch.zeros(2), y, sample_weight).weighted(ClassWeights({0: 2.0}).of)


class TestArrayBatches:
    def test_in_order_without_shuffling(self):
        found = batches(np.arange(10), np.arange(10) * 2, batch_size=4)
        assert [b[0].tolist() for b in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert all((y == 2 * x).all() for x, y in found)

    def test_shuffled_rows_stay_together_and_each_comes_once(self):
        x = {"a": np.arange(101), "b": [np.arange(101.0)]}
        stream = make_batches(x, np.arange(101), np.arange(101.0), batch_size=8, shuffle=True)
        epochs = []
        for _ in range(2):
            rows = []
            for batch_x, y, w in stream.epoch():
                assert torch.equal(batch_x["a"], y)
                assert torch.equal(batch_x["b"][0], w)
                rows += y.tolist()
            assert sorted(rows) == list(range(101))
            epochs.append(rows)
        assert epochs[0] != epochs[1]
        assert stream.num_batches == 13

    def test_manual_seed_repeats_the_order(self):
        def order(seed):
            torch.manual_seed(seed)
            return torch.cat(batches(np.arange(20), batch_size=6, shuffle=True)).tolist()

        assert order(3) == order(3)
        assert sorted(order(3)) == list(range(20)) != order(3) != order(4)

    def test_shuffle_within_batches(self):
        torch.manual_seed(0)
        found = batches(np.arange(12), batch_size=6, shuffle="batch")
        assert [sorted(b.tolist()) for b in found] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
        assert found[0].tolist() != [0, 1, 2, 3, 4, 5]

    def test_one_gather_a_batch(self):
        class Counting(TorchDispatchMode):
            calls = []

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.calls.append(func.overloadpacket)
                return func(*args, **(kwargs or {}))

        with Counting():
            batches(torch.arange(64), batch_size=16, shuffle=True)
        assert Counting.calls.count(torch.ops.aten.index_select) == 4
        assert Counting.calls.count(torch.ops.aten.randperm) == 1
        assert torch.ops.aten.index not in Counting.calls

    def test_memory_is_used_again_unless_somebody_holds_it(self):
        x = torch.arange(64)
        stream = make_batches(x, x, batch_size=8, shuffle=True)
        addresses = [(a.data_ptr(), b.data_ptr()) for a, b in stream.epoch()]
        assert addresses[0] == addresses[2]
        assert len({address for pair in addresses for address in pair}) == 4
        held, views = [], []
        for a, b in stream.epoch():
            held.append(a)
            views.append(b.unsqueeze(-1))
        assert sorted(torch.cat(held).tolist()) == list(range(64))
        assert torch.equal(torch.cat(held), torch.cat(views).squeeze(-1))

    def test_what_a_graph_of_several_steps_gathers_itself(self):
        stream = make_batches({"a": np.arange(10)}, np.arange(10.0), batch_size=4, shuffle=True)
        torch.manual_seed(5)
        found = [(x["a"].tolist(), y.tolist()) for x, y in stream.epoch()]
        torch.manual_seed(5)
        stream.defer_gathering()
        deferred = list(stream.epoch())
        assert [batch.rows.shape[0] for batch in deferred] == [4, 4, 2]
        assert found == [(x["a"].tolist(), y.tolist()) for x, y in map(gathered, deferred)]
        in_order = make_batches(np.arange(10), batch_size=4)
        in_order.defer_gathering()
        assert [gathered(batch).tolist() for batch in in_order.epoch()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]

    def test_batch_size(self):
        assert len(batches(np.arange(65))) == 3
        assert len(batches(np.arange(65), steps=5)) == 5

    def test_steps_go_on_in_the_next_epoch(self):
        stream = make_batches(np.arange(10), batch_size=2, steps=3, continues=True)
        assert [[b.tolist() for b in stream.epoch()] for _ in range(1)] == [[[0, 1], [2, 3], [4, 5]]]
        with pytest.warns(UserWarning, match="ran out after 2 of 3 steps"):
            assert [b.tolist() for b in stream.epoch()] == [[6, 7], [8, 9]]
        assert next(stream.epoch()).tolist() == [0, 1]
        stream = make_batches(np.arange(10), batch_size=2, steps=3)
        for _ in range(2):
            assert [b.tolist() for b in stream.epoch()] == [[0, 1], [2, 3], [4, 5]]

    def test_peeking_loses_nothing(self):
        torch.manual_seed(0)
        plain = batches(np.arange(10), batch_size=3, shuffle=True)
        torch.manual_seed(0)
        stream = make_batches(np.arange(10), batch_size=3, shuffle=True)
        peeked = stream.peek()
        found = list(stream.epoch())
        assert torch.equal(peeked, found[0])
        assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))

    @pytest.mark.parametrize(
        ("x", "y", "parts"),
        [
            (np.zeros(3), np.zeros(4), ["x has 3", "y has 4"]),
            ({"a": np.zeros(3), "b": np.zeros(5)}, np.zeros(3), ["x['a'] has 3", "x['b'] has 5"]),
            ([np.zeros(3), np.zeros(2)], None, ["x[0] has 3", "x[1] has 2"]),
            (np.zeros(3), {"u": np.zeros(3), "v": np.zeros(1)}, ["y['v'] has 1"]),
            (np.zeros((0, 3)), None, ["no rows"]),
            (np.float32(3), None, ["x", "single number"]),
            (None, None, ["x is None"]),
            ("text", None, ["x is str"]),
            ([], None, ["no rows"]),
            ([object()], None, ["x[0] is object"]),
        ],
    )
    def test_wrong_data(self, x, y, parts):
        with pytest.raises(ValueError, match=words(*parts)):
            batches(x, y)

    @pytest.mark.parametrize("size", [0, -1, 2.5, True])
    def test_wrong_batch_size(self, size):
        with pytest.raises(ValueError, match=words("batch_size", repr(size))):
            check_counts(batch_size=size)

    def test_sample_weights_are_counted_too(self):
        with pytest.raises(ValueError, match=words("sample_weight has 2", "x has 3")):
            batches(np.zeros(3), np.zeros(3), np.zeros(2))


class TestIterables:
    def test_data_loader(self):
        loader = DataLoader(TensorDataset(torch.arange(10), torch.arange(10) * 2.0), batch_size=4)
        stream = make_batches(loader)
        assert stream.num_batches == 3
        for _ in range(2):
            found = list(stream.epoch())
            assert [len(b) for b in found] == [2, 2, 2]
            assert torch.cat([b[0] for b in found]).tolist() == list(range(10))

    def test_data_set_is_wrapped(self):
        dataset = TensorDataset(torch.arange(10), torch.arange(10))
        assert [b[0].tolist() for b in batches(dataset, batch_size=6)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
        torch.manual_seed(0)
        assert batches(dataset, batch_size=10, shuffle=True)[0][0].tolist() != list(range(10))

    def test_iterable_data_set_has_no_length(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter(torch.arange(10.0))

        stream = make_batches(Stream(), batch_size=4, shuffle=True)
        assert stream.num_batches is None
        assert [len(b) for b in stream.epoch()] == [4, 4, 2]

    def test_numpy_batches_are_converted_and_class_weights_added(self):
        source = [(np.zeros((2, 3)), np.array([0, 1]))]
        ((x, y, weight),) = batches(iter(source), class_weight=ClassWeights({1: 5.0}).of)
        assert x.dtype == torch.float32
        assert y.tolist() == [0, 1]
        assert weight.tolist() == [1.0, 5.0]

    def test_endless_generator_with_steps(self):
        stream = make_batches((torch.tensor([i]) for i in itertools.count()), steps=3)
        assert [b.item() for b in stream.epoch()] == [0, 1, 2]
        assert [b.item() for b in stream.epoch()] == [3, 4, 5]
        assert stream.num_batches == 3

    def test_used_up_generator(self):
        stream = make_batches(torch.tensor([i]) for i in range(2))
        assert len(list(stream.epoch())) == 2
        with pytest.raises(ValueError, match="gone through only once"):
            next(stream.epoch())

    @pytest.mark.parametrize("name", ["y", "sample_weight"])
    def test_nothing_beside_a_loader(self, name):
        loader = DataLoader(TensorDataset(torch.zeros(3)))
        with pytest.raises(ValueError, match=words("DataLoader", name)):
            batches(loader, **{name: np.zeros(3)})

    def test_a_loader_has_its_own_batch_size(self):
        loader = DataLoader(TensorDataset(torch.zeros(6)), batch_size=3)
        with pytest.warns(UserWarning, match="DataLoader.*`batch_size` is ignored") as caught:
            found = batches(loader, batch_size=2)
        assert len(found) == 2
        assert len(caught) == 1


def test_the_first_rows_of_arrays():
    arrays = Arrays.parse({"a": np.arange(3)}, np.arange(3.0))
    assert arrays.first(2).rows == 2
    assert arrays.first(2).x["a"].tolist() == [0, 1]
    assert arrays.first(10).rows == 3
    assert arrays.first(10).y.tolist() == [0, 1, 2]
