"""Embedding(sparse_gradient=True): training looks at the rows of a batch only."""

import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Model, layers, models, optimizers

WORDS, WIDTH, ROWS = 12, 3, 40
RNG = np.random.default_rng(0)
# Some words come several times in a batch, some never.
IDS = RNG.integers(0, WORDS - 3, size=(ROWS, 4))
TARGET = RNG.standard_normal((ROWS, 1)).astype("float32")


def drawn(sparse, optimizer, *, twice=False, tied=False, **settings):
    torch.manual_seed(0)
    ids = Input((4,), dtype="int64")
    table = layers.Embedding(WORDS, WIDTH, sparse_gradient=sparse, name="table")
    x = table(ids)
    if twice:
        x = x + table((ids + 1) % WORDS)
    if tied:
        x = nn.functional.linear(x, table.weight)
    x = layers.Flatten()(x)
    model = Model(ids, layers.Dense(1)(x))
    model.compile(optimizer, "mse", jit_compile=False, **settings)
    return model


def trained(*args, epochs=3, **kwargs):
    model = drawn(*args, **kwargs)
    torch.manual_seed(1)
    history = model.fit(IDS, TARGET, batch_size=7, epochs=epochs, verbose=0).history
    return [*model.get_weights(), np.asarray(history["loss"])]


EXACT = {
    "sgd": lambda: optimizers.SGD(0.1),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    # With what a dense gradient is made for:
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "decay": lambda: optimizers.SGD(0.1, weight_decay=0.1),
    "accumulation": lambda: optimizers.Adam(gradient_accumulation_steps=2),
    "nadam": lambda: optimizers.Nadam(0.01),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1)),
}


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_result_is_the_dense_one(name, twice):
    for sparse, dense in zip(
        trained(True, EXACT[name](), twice=twice), trained(False, EXACT[name](), twice=twice), strict=True
    ):
        np.testing.assert_allclose(sparse, dense, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options", [{"clipnorm": 0.01}, {"clipvalue": 0.001}, {"global_clipnorm": 0.01}, {"use_ema": True}], ids=str
)
def test_clipping_and_averaging_are_as_with_a_dense_gradient(options):
    made = [trained(sparse, optimizers.SGD(0.1, **options), twice=True) for sparse in (True, False)]
    for sparse, dense in zip(*made, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=2e-6, atol=1e-7)


def test_a_weight_that_is_used_otherwise_too_gets_a_dense_gradient():
    made = [trained(sparse, optimizers.Adam(0.01), tied=True) for sparse in (True, False)]
    for sparse, dense in zip(*made, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=2e-5, atol=1e-6)


LAZY = {
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.01),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "centered": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adamax": lambda: optimizers.Adamax(0.01),
    "adadelta": lambda: optimizers.Adadelta(0.5),
    "lion": lambda: optimizers.Lion(0.01),
}


@pytest.mark.parametrize("name", LAZY)
def test_rows_that_are_met_are_updated_as_if_there_were_no_others(name):
    # All words in each batch, so that there are no others: then all is as with a dense gradient.
    ids = np.stack([RNG.permutation(WORDS) for _ in range(8)])
    target = RNG.standard_normal((8, 1)).astype("float32")
    results = []
    for sparse in (True, False):
        torch.manual_seed(0)
        inputs = Input((WORDS,), dtype="int64")
        x = layers.Embedding(WORDS, WIDTH, sparse_gradient=sparse)(inputs)
        model = Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
        model.compile(LAZY[name](), "mse")
        model.fit(ids, target, batch_size=2, epochs=3, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for sparse, dense in zip(*results, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LAZY)
def test_rows_that_are_not_met_stay_as_they_are(name):
    model = drawn(True, LAZY[name]())
    optimizer = model.optimizer
    before = model.get_layer("table").weight.detach().clone()
    model.fit(IDS, TARGET, batch_size=7, verbose=0)
    after = model.get_layer("table").weight.detach()
    assert torch.equal(after[WORDS - 3 :], before[WORDS - 3 :])
    assert (after[: WORDS - 3] != before[: WORDS - 3]).any(1).all()
    for variable, weight in zip(optimizer.variables, optimizer.served_weights(), strict=True):
        if weight is model.get_layer("table").weight:
            assert torch.equal(variable[WORDS - 3 :], variable[WORDS - 3 : WORDS - 2].expand(3, -1))


def test_adam_is_torchs_sparse_adam():
    # With an epsilon of next to nothing, since torch adds it elsewhere.
    model = drawn(True, optimizers.Adam(0.01, epsilon=1e-30), twice=True)
    table, head = nn.Embedding(WORDS, WIDTH, sparse=True), nn.Linear(4 * WIDTH, 1)
    with torch.no_grad():
        table.weight.copy_(model.get_layer("table").weight)
        head.load_state_dict(model.layers[-1].state_dict())
    steps = [
        torch.optim.SparseAdam(table.parameters(), lr=0.01, eps=1e-30),
        torch.optim.Adam(head.parameters(), lr=0.01, eps=1e-30),
    ]
    model.fit(IDS, TARGET, batch_size=7, epochs=2, shuffle=False, verbose=0)
    for _ in range(2):
        for ids, target in zip(torch.from_numpy(IDS).split(7), torch.from_numpy(TARGET).split(7), strict=True):
            loss = nn.functional.mse_loss(head((table(ids) + table((ids + 1) % WORDS)).flatten(1)), target)
            for step in steps:
                step.zero_grad()
            loss.backward()
            for step in steps:
                step.step()
    torch.testing.assert_close(model.get_layer("table").weight, table.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.layers[-1].weight, head.weight, rtol=1e-4, atol=1e-6)


def test_empty_batches_and_frozen_tables():
    table = layers.Embedding(WORDS, WIDTH, sparse_gradient=True)
    optimizer = optimizers.Adam(0.1)
    out = table(torch.empty(0, dtype=torch.int64)).sum() + 0 * table(torch.tensor([1])).sum()
    gradient = torch.autograd.grad(out, [table.weight])
    before = table.weight.detach().clone()
    optimizer.apply(gradient, [table.weight])
    nothing = torch.empty(1, 0, dtype=torch.int64), torch.empty(0, WIDTH)
    # (torch 2.11 warns of what has not been decided by itself.)
    with torch.sparse.check_sparse_tensor_invariants():
        optimizer.apply([torch.sparse_coo_tensor(*nothing, (WORDS, WIDTH))])
    assert torch.equal(table.weight, before)
    assert optimizer.iterations == 2
    model = drawn(True, optimizers.Adam())
    model.get_layer("table").trainable = False
    model.compile("adam", "mse")
    model.fit(IDS, TARGET, verbose=0)


def test_config_files_and_torch_modules_keep_the_argument(tmp_path):
    model = drawn(True, optimizers.Adam(0.01))
    assert model.get_layer("table").get_config()["sparse_gradient"] is True
    assert "sparse_gradient" not in drawn(False, "adam").get_layer("table").get_config()
    assert models.clone_model(model).get_layer("table").sparse_gradient
    model.save(tmp_path / "model.keras")
    loaded = models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("table").sparse_gradient
    torch.manual_seed(0)
    losses = [each.fit(IDS, TARGET, shuffle=False, verbose=0).history["loss"] for each in (model, loaded)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    (embedding,) = [each for each in model.to_torch().modules() if isinstance(each, nn.Embedding)]
    assert embedding.sparse


def test_what_needs_all_rows_is_refused():
    for argument in ({"embeddings_regularizer": "l2"}, {"embeddings_constraint": "non_neg"}):
        with pytest.raises(ValueError, match=r"sparse_gradient=True.*activity_regularizer"):
            layers.Embedding(WORDS, WIDTH, sparse_gradient=True, **argument)


def test_a_compiled_step_is_refused_and_auto_runs_on():
    model = drawn(True, optimizers.Adam())
    model.compile("adam", "mse", jit_compile=True)
    with pytest.raises(ValueError, match=r"layer 'table' has sparse_gradient=True.* jit_compile=False"):
        model.fit(IDS, TARGET, batch_size=10, verbose=0)
