"""Tables of many columns: batches are what indexing each column gives, however they are gathered."""

import gc
import itertools
import weakref
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch

from torchfunc import Input, Model, layers
from torchfunc.training.data.array_batches import ArrayBatches
from torchfunc.training.data.arrays import Arrays
from torchfunc.training.data.wide_tables import is_wide

CPU = torch.device("cpu")
ROWS, COLUMNS = 331, 12
RNG = np.random.default_rng(0)
NAMES = [f"c{index}" for index in range(COLUMNS)]
VALUES = RNG.standard_normal((ROWS, COLUMNS)).astype("float32")
TARGET = (VALUES[:, :3].sum(1, keepdims=True) > 0).astype("float32")


def columns():
    return {name: VALUES[:, [index]].copy() for index, name in enumerate(NAMES)}


def ragged():
    """Columns of several types and shapes, some of which are gathered together, and one that is not given."""
    table = columns()
    table |= {f"i{index}": RNG.integers(9, size=ROWS) for index in range(9)}
    table |= {"flag": VALUES[:, 0] > 0, "wide": RNG.standard_normal((ROWS, 40)), "strided": VALUES[:, 3], "none": None}
    return table


def batches_of(table, **options):
    torch.manual_seed(3)
    return list(ArrayBatches(Arrays.parse(table, TARGET), device=CPU, **options))


@pytest.mark.parametrize("shuffle", [False, True, "batch"])
@pytest.mark.parametrize("batch_size", [2, 5, ROWS, ROWS + 1])
def test_batches_are_what_indexing_gives(shuffle, batch_size):
    table = ragged()
    assert is_wide(Arrays.parse(table).x)
    options = {"batch_size": batch_size, "shuffle": shuffle}
    numbers = torch.cat([x for x, _ in batches_of(np.arange(ROWS), **options)])
    found = batches_of(table, **options)
    assert len(found) == -(-ROWS // batch_size)
    for rows, (x, y) in zip(numbers.split(batch_size), found, strict=True):
        assert list(x) == list(table)
        assert torch.equal(y, torch.from_numpy(TARGET)[rows])
        for name, column in Arrays.parse(table).x.items():
            if column is None:
                assert x[name] is None
            else:
                assert torch.equal(x[name], column[rows])
                assert x[name].dtype is column.dtype
                assert x[name].is_contiguous()


@pytest.mark.parametrize("kind", [list, tuple, namedtuple("Table", NAMES)._make])
def test_container_is_kept(kind):
    table = kind(columns().values())
    for x, _ in batches_of(table, batch_size=50, shuffle=True):
        assert type(x) is type(table)
        assert len(x) == COLUMNS


def test_kept_batches_stay_as_they_are():
    # (Blocks of 64 batches: there are six.)
    table = columns()
    kept, copies = [], []
    torch.manual_seed(3)
    for x, _ in ArrayBatches(Arrays.parse(table, TARGET), 1, True, CPU):
        # What one refers to is enough.
        kept.append(x["c5"].view(-1))
        copies.append(x["c5"].clone())
    assert torch.equal(torch.cat(kept), torch.cat(copies)[:, 0])
    assert sorted(torch.cat(kept).tolist()) == sorted(VALUES[:, 5].tolist())


def test_columns_of_a_batch_may_be_written_to():
    table = columns()
    scale = torch.ones((), requires_grad=True)
    for x, _ in batches_of(table, batch_size=7, shuffle=True)[:2]:
        x["c0"].mul_(scale)
        x["c1"].zero_()
        assert x["c0"].requires_grad
        assert x["c2"].abs().sum() > 0
    assert np.array_equal(table["c1"], VALUES[:, [1]])


def test_a_block_is_small_however_many_rows_there_are():
    table = {name: np.broadcast_to(np.float32(1), (300_000, 1)) for name in NAMES}
    batches = ArrayBatches(Arrays.parse(table), 4096, True, CPU)
    (x,) = itertools.islice(batches, 1)
    assert x["c0"].untyped_storage().nbytes() <= 4 * 2**20


def drawn(joined):
    torch.manual_seed(0)
    if joined:
        inputs = x = Input((COLUMNS,))
    else:
        inputs = [Input((1,), name=name) for name in NAMES]
        x = layers.concatenate(inputs)
    hidden = layers.Dense(4, activation="tanh")(x)
    model = Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    return model


FORMS = {
    "dict": columns,
    "frame": lambda: pd.DataFrame(VALUES, columns=NAMES),
    "series": lambda: {name: pd.Series(VALUES[:, index]) for index, name in enumerate(NAMES)},
    "list": lambda: list(columns().values()),
}


@pytest.mark.parametrize("form", FORMS)
def test_training_is_that_on_one_matrix(form):
    weights = np.linspace(0.5, 2, ROWS, dtype="float32")
    options = {"batch_size": 16, "epochs": 2, "validation_split": 0.2, "sample_weight": weights, "verbose": 0}
    results = []
    for joined, x in ((True, VALUES), (False, FORMS[form]())):
        model = drawn(joined)
        torch.manual_seed(1)
        history = model.fit(x, TARGET, **options).history
        predicted = model.predict(x, verbose=0), model.predict_on_batch(x)
        results.append((history, model.evaluate(x, TARGET, verbose=0), *predicted))
    (history, evaluated, *predicted), (own_history, own_evaluated, *own_predicted) = results
    assert history.keys() == own_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(own_history[name], values, rtol=1e-5)
    np.testing.assert_allclose(own_evaluated, evaluated, rtol=1e-5)
    np.testing.assert_allclose(own_predicted, predicted, rtol=1e-5)


def test_data_are_not_kept_after_the_run():
    class Column(np.ndarray):
        pass

    model = drawn(joined=False)
    table = {name: column.view(Column) for name, column in columns().items()}
    references = [weakref.ref(column) for column in table.values()]
    model.fit(table, TARGET, verbose=0)
    model.predict(table, verbose=0)
    del table
    gc.collect()
    assert [reference() for reference in references] == [None] * COLUMNS


def test_missing_and_unknown_columns_of_a_wide_table_are_named():
    model = drawn(joined=False)
    table = columns()
    del table["c4"]
    with pytest.raises(ValueError, match=r"missing.*c4"):
        model.fit(table, TARGET, verbose=0)
    with pytest.warns(UserWarning, match="'extra'.* ignored"):
        model.predict(columns() | {"extra": VALUES}, verbose=0)
