"""Trainings that several processes share, for test_distributed.py: `shared_training.py FOLDER SIZE ...`.

Each scenario trains, evaluates and predicts, and returns what came out. For each SIZE there are so many processes,
which are told of each other as torchrun does it. Each writes its results into FOLDER.
"""

import functools
import re
import sys
import warnings

import numpy as np
import pytest
import torch
import torch._dynamo  # else each process would import it by itself
import torchmetrics
from together import together
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

from torchfunc import callbacks, layers, losses, metrics, optimizers
from torchfunc.models import Model
from torchfunc.training import compiled_step

RANK, SIZE = 0, 1
SILENT = {"verbose": 0}
FOLDER, HOW = ".", {}


def draws():
    return np.random.default_rng(0)


def table(rows, classes=3):
    """Features `(rows, 4)` and class indices."""
    random = draws()
    return random.standard_normal((rows, 4)).astype("float32"), random.integers(0, classes, rows)


def classifier(**first):
    inputs = layers.Input((4,))
    hidden = layers.Dense(8, activation="relu", **first)(inputs)
    return Model(inputs, layers.Dense(3, activation="softmax")(hidden))


def whole(weight):
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def outcome(model, history=None, **more):
    weights = {name: whole(weight).detach().numpy().copy() for name, weight in model.named_parameters()}
    buffers = {name: buffer.numpy().copy() for name, buffer in model.named_buffers()}
    return {"weights": weights, "buffers": buffers, "history": history and history.history, **more}


def mlp():
    """Batches of 11; penalties, constraints, a clipped global norm, moving averages; processes with other weights."""
    torch.manual_seed(RANK)
    model = classifier(kernel_regularizer="l2", kernel_constraint="max_norm", activity_regularizer="l1")
    model.compile(
        optimizers.Adam(0.02, global_clipnorm=0.1, use_ema=True, ema_momentum=0.8),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **HOW,
    )
    torch.manual_seed(0)
    x, y = table(37)
    plateau = callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.5, min_delta=0.5)
    stop = callbacks.EarlyStopping("val_loss", patience=2, min_delta=0.02, restore_best_weights=True)
    history = model.fit(
        x,
        y,
        batch_size=11,
        epochs=6,
        validation_split=0.3,
        callbacks=[plateau, stop],
        validation_batch_size=4,
        **SILENT,
    )
    evaluated = model.evaluate(x, y, batch_size=8, return_dict=True, **SILENT)
    return outcome(model, history, evaluated=evaluated, predicted=model.predict(x, batch_size=9, **SILENT))


def tickets():
    """Dicts of inputs and outputs, with weights."""
    torch.manual_seed(0)
    title, tags = layers.Input((None,), name="title", dtype="int64"), layers.Input((3,), name="tags")
    features = layers.Concatenate()([layers.LSTM(4)(layers.Embedding(20, 6)(title)), tags])
    priority = layers.Dense(1, name="priority")(features)
    department = layers.Dense(4, activation="softmax", name="department")(features)
    model = Model({"title": title, "tags": tags}, {"priority": priority, "department": department})
    model.compile(
        optimizers.RMSprop(0.01),
        {"priority": "mse", "department": "categorical_crossentropy"},
        loss_weights={"priority": 1.0, "department": 0.2},
        metrics={"priority": "mae", "department": ["accuracy", "auc", metrics.F1Score(average="macro")]},
        **HOW,
    )
    random = draws()
    x = {"title": random.integers(1, 20, (23, 5)), "tags": random.random((23, 3)).astype("float32")}
    y = {"priority": random.random((23, 1)), "department": np.eye(4)[random.integers(0, 4, 23)]}
    weight = {"priority": random.random(23), "department": random.random(23)}
    history = model.fit(x, y, batch_size=8, epochs=2, sample_weight=weight, **SILENT)
    return outcome(model, history, predicted=model.predict(x, batch_size=8, **SILENT))


def resnet():
    """A residual block with batch normalization over all processes; the last batch has one row."""
    torch.manual_seed(0)
    inputs = layers.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.Activation("relu")(layers.BatchNormalization(synchronized=True, momentum=0.5)(x))
    y = layers.BatchNormalization(synchronized=True, momentum=0.5)(layers.Conv2D(4, 3, padding="same")(x))
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Add()([x, y])))
    model = Model(inputs, outputs)
    model.compile(optimizers.SGD(0.05, momentum=0.9), nn.CrossEntropyLoss(), **HOW)
    random = draws()
    x, y = random.standard_normal((13, 6, 6, 2)).astype("float32"), random.integers(0, 3, 13)
    history = model.fit(x, y, batch_size=6, epochs=2, validation_data=(x[:5], y[:5]), **SILENT)
    return outcome(model, history)


def sequences():
    """A masked LSTM with a loss a step: what is divided by differs from process to process."""
    torch.manual_seed(0)
    inputs = layers.Input((6,), dtype="int64")
    x = layers.LSTM(5, return_sequences=True)(layers.Embedding(12, 4, mask_zero=True)(inputs))
    model = Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(
        optimizers.Adam(0.02),
        losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        weighted_metrics=["sparse_categorical_crossentropy"],
        **HOW,
    )
    random = draws()
    x = random.integers(1, 12, (17, 6)) * (np.arange(6) < random.integers(1, 7, (17, 1)))
    y, weight = random.integers(0, 3, (17, 6)), random.random((17, 6))
    history = model.fit(x, y, batch_size=7, epochs=2, sample_weight=weight, validation_data=(x, y), **SILENT)
    return outcome(model, history, evaluated=model.evaluate(x, y, weight.shape[0], sample_weight=weight, **SILENT))


def weights_of_samples():
    """Losses that divide by something else than rows: sums of weights, counted labels, nothing at all."""
    found = {}
    x, y = table(19)
    y[::4] = 1
    weight = torch.tensor([1.0, 3.0, 0.5])
    for name, loss in {
        "by weight": losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        "ignored": losses.SparseCategoricalCrossentropy(ignore_class=1),
        "sum": losses.SparseCategoricalCrossentropy(reduction="sum"),
        "torch": nn.NLLLoss(weight=weight, ignore_index=1),
        "torch sum": nn.NLLLoss(reduction="sum"),
        "function": lambda y_true, y_pred: y_pred.square().sum(-1) - y_true,
        "number": lambda y_true, y_pred: (y_pred.gather(1, y_true.view(-1, 1)) - 1).square().mean(),
    }.items():
        torch.manual_seed(0)
        model = classifier()
        model.compile(optimizers.SGD(0.02), loss)
        plain = name not in ("by weight", "ignored", "sum")
        given = {} if plain else {"class_weight": {0: 0.5, 2: 3.0}}
        history = model.fit(x, y, batch_size=7, epochs=2, **given, **SILENT)
        found[name] = outcome(model, history, evaluated=model.evaluate(x, y, batch_size=5, **SILENT))
    return found


def accumulation():
    """Gradients of two batches an update, the last of them smaller."""
    torch.manual_seed(0)
    model = classifier()
    adam = optimizers.Adam(0.02, gradient_accumulation_steps=2, clipnorm=0.5)
    model.compile(adam, "sparse_categorical_crossentropy", **HOW)
    x, y = table(29)
    return outcome(model, model.fit(x, y, batch_size=9, epochs=3, **SILENT))


def few_rows():
    """Fewer rows than processes, in all data and in the last batch."""
    torch.manual_seed(0)
    x, y = table(3)
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], **HOW)
    history = model.fit(x, y, batch_size=2, epochs=2, validation_data=(x[:1], y[:1]), **SILENT)
    evaluated = model.evaluate(x, y, batch_size=2, **SILENT)
    predicted = [model.predict(x[:1], **SILENT), model.predict(x, batch_size=1, **SILENT)]
    return outcome(model, history, evaluated=evaluated, predicted=predicted)


class Rows(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def loaders():
    """A Dataset, of which a batch is shared; a DataLoader, whose batches are taken in turns; each once and in order."""
    found = {}
    x, y = table(22)
    size = 8 // SIZE
    own = [slice(RANK * size, (RANK + 1) * size)] + [slice(8, 10)] * (RANK == 0)
    kinds = {
        "dataset": lambda: (Rows(x, y), {"batch_size": 8}),
        "loader": lambda: (DataLoader(Rows(x, y), size), {}),
        "tensors": lambda: (TensorDataset(torch.tensor(x), torch.tensor(y)), {"batch_size": 8}),
        # Of each process its own: the first has two batches, the others have one.
        "batches": lambda: (iter([(x[rows], y[rows]) for rows in own]), {}),
    }
    for name, make in kinds.items():
        torch.manual_seed(0)
        model = classifier()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        data, given = make()
        history = model.fit(data, epochs=1 if name == "batches" else 2, **given, **SILENT)
        evaluated = model.evaluate(make()[0], **given, **SILENT)
        found[name] = outcome(
            model, history, evaluated=evaluated, predicted=model.predict(make()[0], **given, **SILENT)
        )
    return found


def torch_parts():
    """A torch optimizer and torchmetrics."""
    torch.manual_seed(0)
    x, y = table(19)
    model = classifier()
    model.compile(
        torch.optim.AdamW(model.parameters(), 0.02),
        losses.SparseCategoricalCrossentropy(),
        metrics=[torchmetrics.Accuracy("multiclass", num_classes=3), "accuracy"],
    )
    history = model.fit(x, y, batch_size=6, epochs=2, validation_data=(x, y), **SILENT)
    return outcome(model, history)


class OwnStep(Model):
    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(x, y, self(x, training=True))
        gradients = torch.autograd.grad(loss, list(self.parameters()))
        self.optimizer.apply(gradients, list(self.parameters()))
        return {"loss": loss, "twice": 2 * loss}


def own_steps():
    """A training step of the user's own; one batch after the other by hand."""
    torch.manual_seed(0)
    x, y = table(16)
    inputs = layers.Input((4,))
    model = OwnStep(inputs, layers.Dense(3, activation="softmax")(inputs))
    model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    history = model.fit(x, y, batch_size=8, epochs=2, **SILENT)
    by_hand = classifier()
    by_hand.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rows = slice(RANK * 16 // SIZE, (RANK + 1) * 16 // SIZE)
    logs = [by_hand.train_on_batch(x[rows], y[rows]) for _ in range(3)]
    return {"own": outcome(model, history), "by hand": outcome(by_hand, logs=logs, test=by_hand.test_on_batch(x, y))}


def compiled():
    """Whole steps as graphs, with the sum over all processes in them."""
    whole = compiled_step.compile_whole

    def traced(step, guarded, on_cuda):
        options = {} if guarded else {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        return torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager", options=options)

    compiled_step.compile_whole = traced
    try:
        torch.manual_seed(0)
        model = classifier()
        model.compile(optimizers.Adam(0.02, global_clipnorm=0.5), "sparse_categorical_crossentropy", jit_compile=True)
        x, y = table(28)
        history = model.fit(x, y, batch_size=8, epochs=3, **SILENT)
        graphs = [graph.graphs for graph in model._training_settings.graphs["train_step"].values()]
        # (Of one process, another beside it makes the graph, which may not be there yet.)
        return outcome(model, history, graphs=graphs if SIZE > 1 else [1])
    finally:
        compiled_step.compile_whole = whole


class StopAt(callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if RANK == SIZE - 1 and int(self.model.optimizer.iterations) == 5:
            self.model.stop_training = True


def stopped():
    """One process says that it is enough."""
    torch.manual_seed(0)
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = table(24)
    history = model.fit(x, y, batch_size=8, epochs=9, callbacks=[StopAt()], **SILENT)
    return outcome(model, history, steps=int(model.optimizer.iterations))


def sharded():
    """The same with sharded weights; their files; a torch optimizer; modules of the user's choice."""
    HOW["strategy"] = "fsdp"
    found = {scenario.__name__: scenario() for scenario in (mlp, tickets, resnet, sequences, accumulation, few_rows)}
    x, y = table(20)
    for name, chosen, make in (
        ("ours", None, lambda: optimizers.Adam(0.05)),
        ("torch's", ["dense"], lambda: functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)),
    ):
        torch.manual_seed(0)
        model = classifier()
        model.compile(make(), "sparse_categorical_crossentropy", shard_modules=chosen, **HOW)
        backup = callbacks.BackupAndRestore(f"{FOLDER}/backup_{SIZE}", delete_checkpoint=False)
        history = model.fit(x, y, batch_size=8, callbacks=[backup] if name == "ours" else [], **SILENT)
        found[name] = outcome(model, history)
        local = [getattr(weight, "_local_tensor", weight).numel() for weight in model.parameters()]
        assert SIZE == 1 or sum(local) <= 0.6 * sum(weight.numel() for weight in model.parameters())
        if name == "ours":
            model.save(f"{FOLDER}/model_{SIZE}.torchfunc")
            model.save(f"{FOLDER}/model_{SIZE}.keras")
        model.save_weights(f"{FOLDER}/{name}_{SIZE}.safetensors")
    HOW.clear()
    return found


def transformer():
    """Attention by heads, an embedding, dense layers in pairs and one with a gate, all split; masks."""
    torch.manual_seed(0)
    inputs = layers.Input((6,), dtype="int64")
    x = layers.Embedding(12, 8, mask_zero=True)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 2, use_gate=True)(x, x, use_causal_mask=True))
    hidden = layers.EinsumDense("abc,cd->abd", (None, 16), activation="gelu", bias_axes="d")(x)
    x = x + layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d")(layers.Dropout(0.0)(hidden))
    x = layers.LayerNormalization()(x + layers.GroupQueryAttention(4, 4, 2)(x, x))
    x = x + layers.Dense(8)(layers.Dense(12, activation="silu")(x) * layers.Dense(12)(x))
    model = Model(inputs, layers.Dense(5, activation="softmax")(x))
    model.compile(
        optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1, clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **HOW,
    )
    random = draws()
    x = random.integers(1, 12, (11, 6)) * (np.arange(6) < random.integers(1, 7, (11, 1)))
    history = model.fit(x, random.integers(0, 5, (11, 6)), batch_size=6, **SILENT)
    if SIZE > 1:
        assert model.parallelize_plan == {
            "embedding": "colwise",
            "multi_head_attention": "heads",
            "einsum_dense": "colwise",
            "einsum_dense_1": "rowwise",
            "grouped_query_attention": "heads",
            "dense": "colwise",
            "dense_1": "colwise",
            "dense_2": "rowwise",
        }
        assert model.layers[1].weight.to_local().shape[1] == 4
    return outcome(model, history, predicted=model.predict(x, batch_size=7, **SILENT))


class Undrawn(Model):
    """A vocabulary of 10, and layers each of which is split by itself."""

    def __init__(self):
        super().__init__()
        self.words = layers.Embedding(10, 6)
        self.first, self.last = layers.Dense(8, activation="softmax"), layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return self.last(self.first(self.words(inputs).mean(1)))


def by_hand():
    """Each way to split a layer, with data that differ where they must not count; the weights in files and back."""
    torch.manual_seed(0)
    model = Undrawn()
    plan = {"words": "rowwise", "first": "colwise", "last": "rowwise"}
    counts = torchmetrics.ConfusionMatrix("multiclass", num_classes=3)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[counts], parallelize_plan=plan, **HOW)
    random = draws()
    x, y = random.integers(0, 10, (18, 5)), random.integers(0, 3, 18)
    # Of two processes with the same rows, those of the first count.
    own = x if RANK % 2 == 0 else x[::-1].copy()
    history = model.fit(Rows(own, y), batch_size=7, epochs=2, **SILENT)
    assert SIZE == 1 or model.parallelize_plan == plan
    path = f"{FOLDER}/by_hand_{SIZE}"
    model.save_weights(f"{path}.safetensors")
    model.save_weights(f"{path}.weights.h5")
    weights = model.get_weights()
    if SIZE > 1:
        distributed.barrier()
    for restore in (
        lambda: model.load_weights(f"{path}.safetensors"),
        lambda: model.load_weights(f"{path}.weights.h5"),
        lambda: model.set_weights(weights),
    ):
        model.set_weights([0 * weight for weight in weights])
        restore()
        assert all(map(np.array_equal, model.get_weights(), weights))
    return outcome(model, history, in_keras_layout=weights)


def unalike_where_split():
    """Where a layer is split, other numbers are dropped in each part; elsewhere the same."""
    if SIZE == 1:
        return
    torch.manual_seed(RANK)
    inputs = layers.Input((4,))
    split = layers.Dropout(0.5)(layers.Dense(64)(layers.Dropout(0.5)(inputs)))
    model = Model(inputs, layers.Dropout(0.5)(layers.Dense(6)(split)))
    model.compile("sgd", "mse", **HOW)
    x = np.ones((16, 4), "float32")
    model.fit(x, np.ones((16, 6)), batch_size=16, **SILENT)
    assert len(model.parallelize_plan) == 2
    # (Hooks on a layer would keep it from being split.)
    dropped = {}
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.register_forward_hook(lambda layer, _, output: dropped.update({layer.name: (output == 0).tolist()}))
    model.fit(x, np.ones((16, 6)), batch_size=16, **SILENT)
    found = [None] * SIZE
    distributed.all_gather_object(found, dropped)
    assert found[0]["dropout_1"] != found[1]["dropout_1"]
    assert all(found[0][name] == found[1][name] for name in ("dropout", "dropout_2"))


def refused():
    """What cannot be, in words; the model is as it was."""
    mesh = HOW["strategy"]
    x, y = table(8)
    model = classifier()

    def train(**given):
        model.compile("sgd", "sparse_categorical_crossentropy", **given)
        model.fit(x, y, **SILENT)

    for words, given in (
        ("has the axes 'data' and 'model'", {"strategy": init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))}),
        ("along 'data' and 'model', {'data': 4", {"strategy": {"data": 2, "tensor": 2}}),
        ("has 6 processes, data=3 x model=2, but 4", {"strategy": {"model": 2, "data": 3}}),
        ("has 2 processes, model=2, but 4 train together", {"strategy": mesh["model"]}),
        ("a mesh or None, got 'tp'", {"strategy": "tp"}),
        ("'model' of a mesh, and `strategy` is 'ddp'", {"strategy": "ddp", "parallelize_plan": {}}),
        ("a dict of layers", {"strategy": mesh, "parallelize_plan": ["dense"]}),
        ("no layer of the model. Did you mean 'dense'", {"strategy": mesh, "parallelize_plan": {"dens": None}}),
        ("by 'heads', or not at all", {"strategy": mesh, "parallelize_plan": {"dense": "column"}}),
        ("layer 'dense' (Dense) 'heads'", {"strategy": mesh, "parallelize_plan": {"dense": "heads"}}),
        ("3 columns cannot be shared", {"strategy": mesh, "parallelize_plan": {"dense_1": "colwise"}}),
        ("leave out jit_compile=True", {"strategy": mesh, "jit_compile": True}),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            train(**given)
    train(strategy=mesh, parallelize_plan={layers.Dense: None})
    assert model.parallelize_plan == {}
    with pytest.raises(ValueError, match="cannot become 'auto'"):
        train()
    rows = Rows(x, y)
    with pytest.raises(ValueError, match="over 4 processes, but there are 2"):
        model.fit(DataLoader(rows, 2, sampler=DistributedSampler(rows)), **SILENT)


def meshes():
    """Layers that are split: over both of two processes; of four, over two that have the same rows."""
    # (One process alone has nothing to split.)
    HOW["strategy"] = {"data": 2, "model": 2} if SIZE == 1 else {"model": 2}
    if SIZE == 4:
        HOW["strategy"] = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    found = {scenario.__name__: scenario() for scenario in (mlp, transformer, by_hand, unalike_where_split)}
    if SIZE == 4:
        refused()
    HOW.clear()
    return found


SCENARIOS = (
    *(mlp, tickets, resnet, sequences, weights_of_samples, accumulation, few_rows, loaders, torch_parts, own_steps),
    *(compiled, stopped, sharded, meshes),
)
SCENARIOS_OF_MANY = (
    *(mlp, tickets, resnet, sequences, weights_of_samples, accumulation, few_rows, loaders, sharded, meshes),
)


def work(folder, size, rank):
    """One process: all scenarios, or if there are many processes, those in which their number matters."""
    global FOLDER, RANK, SIZE
    FOLDER, RANK, SIZE = folder, rank, size
    warnings.simplefilter("error")
    found = {scenario.__name__: scenario() for scenario in (SCENARIOS if size <= 2 else SCENARIOS_OF_MANY)}
    torch.save(found, f"{folder}/{size}_{rank}.pt")


if __name__ == "__main__":
    for number in sys.argv[2:]:
        together(int(number), functools.partial(work, sys.argv[1], int(number)))
