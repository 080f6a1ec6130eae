"""Whole training steps where nothing can be read back: on "meta" tensors, and on fake ones that say they are on CUDA.

Reading a value raises there, as it would stop the host on a card. On "meta" the gradients are autograd's. Its engine
asks a driver for the device "cuda", so without a card something else stands in for them; and torch that is built
without CUDA cannot even record on such tensors, so these are skipped there.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, moved
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torchfunc import Input, Model, layers, losses, optimizers
from torchfunc.training import run_modes, step
from torchfunc.training.step_functions import make_step

ROWS = 4
META = torch.device("meta")
BUILT = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built without CUDA")


def labels_of(classes):
    return np.arange(ROWS) % classes


def dense():
    inputs = Input((8,))
    x = layers.LayerNormalization()(layers.Dense(16, activation="gelu")(inputs))
    outputs = layers.Dense(5, activation="softmax")(layers.Dropout(0.5)(x))
    return Model(inputs, outputs), np.zeros((ROWS, 8)), labels_of(5), "sparse_categorical_crossentropy"


def images():
    inputs = Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", strides=2, activation="relu")(inputs)
    x = layers.MaxPooling2D()(layers.BatchNormalization()(x))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    return Model(inputs, layers.Dense(5)(layers.Flatten()(x))), np.zeros((ROWS, 16, 16, 3)), labels_of(5), loss


def lstm():
    inputs = Input((7, 3))
    return Model(inputs, layers.Dense(2)(layers.LSTM(5)(inputs))), np.zeros((ROWS, 7, 3)), np.zeros((ROWS, 2)), "mse"


def tickets():
    """Two texts and tags in, two outputs by name."""
    title, body = (Input((None,), dtype="int64", name=name) for name in ("title", "body"))
    tags = Input((12,), name="tags")
    words = layers.Embedding(50, 8, mask_zero=True)(title)
    x = layers.concatenate([layers.LSTM(8)(words), layers.LSTM(4)(layers.Embedding(50, 8)(body)), tags])
    heads = {"priority": layers.Dense(1, activation="sigmoid")(x), "department": layers.Dense(4)(x)}
    x = {"title": np.ones((ROWS, 6), int), "body": np.ones((ROWS, 9), int), "tags": np.zeros((ROWS, 12))}
    y = {"priority": np.zeros((ROWS, 1)), "department": np.zeros((ROWS, 4))}
    loss = {"priority": "binary_crossentropy", "department": losses.CategoricalCrossentropy(from_logits=True)}
    return Model({"title": title, "body": body, "tags": tags}, heads), x, y, loss


MODELS = (dense, images, lstm, tickets)
# A step's precision, the dtype of the weights, and the optimizer.
PRECISIONS = {
    "single": ("32", torch.float32, "adam"),
    "bf16-mixed": ("bf16-mixed", torch.float32, "rmsprop"),
    "16-mixed": ("16-mixed", torch.float32, optimizers.AdamW(global_clipnorm=1.0)),
    "bfloat16": ("32", torch.bfloat16, optimizers.SGD(0.1, momentum=0.9)),
}


def trained(make, device, precision, always_in_graph=False):
    """Two steps of a model on a device; what is known of it after them."""
    precision, dtype, optimizer = PRECISIONS[precision]
    model, x, y, loss = make()
    model = moved(model, dtype) if device is CUDA else model.to(device, dtype)

    def there(value):
        kind = torch.int64 if value.dtype.kind == "i" else torch.float32
        return torch.zeros(value.shape, dtype=kind, device=device)

    batch = torch.utils._pytree.tree_map_only(np.ndarray, there, (x, y))
    if not isinstance(optimizer, str):
        optimizer = type(optimizer).from_config(optimizer.get_config())
    with device:
        model.compile(optimizer, loss, precision=precision, jit_compile=False)
    settings = model._training_settings
    settings.optimizer._always_in_graph |= always_in_graph
    computed = set()
    for layer in model.layers:
        if isinstance(layer, (layers.Dense, layers.Conv2D, layers.LSTM)):
            layer.register_forward_hook(lambda module, given, outputs: computed.add(outputs.dtype))
    with run_modes.training(model, settings, device) as run:
        take = make_step(model, run, "train_step", device)
        # What metrics are made with for the first batch cannot be moved there. The second one shows what is amiss.
        with device:
            take(batch)
        take(batch)
    state = [*settings.optimizer.variables, *(each for metric in settings.metrics for each in metric.variables)]
    return SimpleNamespace(model=model, optimizer=settings.optimizer, state=state, computed=computed)


def check(found, device, precision):
    name, dtype, _ = PRECISIONS[precision]
    weights, state = list(found.model.parameters()), found.state
    assert {each.device for each in (*weights, *found.model.buffers())} == {device}
    assert {each.device for each in state if each.numel() > 1} == {device}
    assert {weight.dtype for weight in weights} == {dtype}
    if name == "32":
        assert found.computed == {dtype}
    else:
        # (Of a softmax autocast makes single precision.)
        half = torch.bfloat16 if name == "bf16-mixed" else torch.float16
        assert half in found.computed <= {half, torch.float32}


@pytest.mark.parametrize("precision", ["single", "bfloat16"])
@pytest.mark.parametrize("make", MODELS)
def test_steps_that_can_read_nothing(make, precision, monkeypatch):
    # (A training of weights without values is refused otherwise.)
    monkeypatch.setattr(run_modes, "require_values", lambda model: None)
    check(trained(make, META, precision), META, precision)


@BUILT
@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("make", MODELS)
def test_steps_on_cuda(make, precision, in_graph, monkeypatch):
    if not torch.cuda.is_available():
        monkeypatch.setattr(step.torch.autograd, "grad", stand_in)
        monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with FakeTensorMode():
        found = trained(make, CUDA, precision, in_graph)
        assert all(isinstance(each, FakeTensor) for each in found.state)
    check(found, CUDA, precision)


def stand_in(loss, weights, allow_unused):
    assert loss.device == CUDA
    assert loss.requires_grad
    return [torch.empty_like(weight) for weight in weights]
