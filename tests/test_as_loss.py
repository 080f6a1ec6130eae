"""Whatever `compile(loss=...)` may be given: names, functions, torch's own losses, by `losses.as_loss`."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchfunc import losses

BATCH, CLASSES = 6, 5


def weighted_error(y_true, y_pred, power=2):
    return ((y_true - y_pred).abs() ** power).mean(-1)


SHAPES = [
    (("crossentropy", (None,), (None, 1)), "BinaryCrossentropy"),
    (("ce", (None, 1), (None, 1)), "BinaryCrossentropy"),
    (("CE", (32, 1), (32, 10)), "SparseCategoricalCrossentropy"),
    (("ce", (32,), (32, 10)), "SparseCategoricalCrossentropy"),
    (("ce", (32, 10), (32, 10)), "CategoricalCrossentropy"),
]


@pytest.mark.parametrize(("arguments", "expected"), SHAPES)
def test_crossentropy_is_chosen_by_shape(arguments, expected):
    name, y_shape, p_shape = arguments
    loss = losses.as_loss(name, y_true_shape=y_shape, y_pred_shape=p_shape)
    assert (type(loss).__name__, loss.name) == (expected, name)


def test_as_loss_takes_names_functions_and_losses():
    y, p = torch.randn(6, 3), torch.randn(6, 3)
    for identifier, name in [
        ("mse", "mse"),
        ("MSE", "MSE"),
        ("MeanSquaredError", "mean_squared_error"),
        (losses.mean_squared_error, "mean_squared_error"),
        (losses.MeanSquaredError, "mean_squared_error"),
        (losses.MeanSquaredError(name="mine"), "mine"),
        ({"class_name": "MeanSquaredError", "config": {"name": "configured"}}, "configured"),
        (weighted_error, "weighted_error"),
        (functools.partial(weighted_error, power=2), "partial"),
        (lambda y_true, y_pred: (y_true - y_pred).square().mean(), "lambda"),
        (nn.MSELoss(), "mse_loss"),
        (nn.MSELoss, "mse_loss"),
        (nn.MSELoss(reduction="none"), "mse_loss"),
        (F.mse_loss, "mse_loss"),
    ]:
        loss = losses.as_loss(identifier)
        assert loss.name == name
        torch.testing.assert_close(loss(y, p), F.mse_loss(p, y))
    assert losses.as_loss(weighted_error, name="given").name == "given"
    assert isinstance(losses.as_loss("sparse_categorical_crossentropy"), losses.SparseCategoricalCrossentropy)


INDICES = torch.randint(0, CLASSES, (BATCH,))
LOGITS = torch.randn(BATCH, CLASSES)
IMAGES = torch.randn(BATCH, CLASSES, 4, 4)


@pytest.mark.parametrize(
    ("loss", "y", "p", "expected"),
    [
        (nn.CrossEntropyLoss(), INDICES, LOGITS, F.cross_entropy(LOGITS, INDICES)),
        (nn.CrossEntropyLoss(), INDICES[:, None], LOGITS, F.cross_entropy(LOGITS, INDICES)),
        (nn.CrossEntropyLoss(), INDICES.float(), LOGITS, F.cross_entropy(LOGITS, INDICES)),
        (nn.CrossEntropyLoss(), INDICES.int(), LOGITS, F.cross_entropy(LOGITS, INDICES)),
        (nn.CrossEntropyLoss(), F.one_hot(INDICES, CLASSES), LOGITS, F.cross_entropy(LOGITS, INDICES)),
        (nn.CrossEntropyLoss(reduction="none"), INDICES, LOGITS, F.cross_entropy(LOGITS, INDICES)),
        (nn.CrossEntropyLoss(), IMAGES.argmax(1, keepdim=True), IMAGES, F.cross_entropy(IMAGES, IMAGES.argmax(1))),
        (nn.CrossEntropyLoss(), IMAGES.argmax(1)[..., None], IMAGES, F.cross_entropy(IMAGES, IMAGES.argmax(1))),
        (F.cross_entropy, INDICES[:, None], LOGITS, F.cross_entropy(LOGITS, INDICES)),
        (
            functools.partial(F.cross_entropy, label_smoothing=0.1),
            INDICES,
            LOGITS,
            F.cross_entropy(LOGITS, INDICES, label_smoothing=0.1),
        ),
        (nn.NLLLoss(), INDICES, LOGITS.log_softmax(-1), F.cross_entropy(LOGITS, INDICES)),
        (nn.BCEWithLogitsLoss(), (INDICES > 2), LOGITS[:, :1], None),
        (F.binary_cross_entropy_with_logits, (INDICES > 2), LOGITS[:, :1], None),
        (nn.L1Loss(reduction="sum"), INDICES, LOGITS[:, 0], (LOGITS[:, 0] - INDICES).abs().sum()),
    ],
)
def test_torch_losses(loss, y, p, expected):
    if expected is None:
        expected = F.binary_cross_entropy_with_logits(p[:, 0], y.float())
    torch.testing.assert_close(losses.as_loss(loss)(y, p), expected)


def test_torch_losses_with_weights_and_masks():
    w, mask = torch.rand(BATCH), torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    per_sample = F.cross_entropy(LOGITS, INDICES, reduction="none")
    loss = losses.as_loss(nn.CrossEntropyLoss(reduction="none"))
    torch.testing.assert_close(loss(INDICES, LOGITS, w), (per_sample * w).mean())
    torch.testing.assert_close(loss(INDICES, LOGITS, w, mask), (per_sample * w)[mask].sum() / mask.sum())
    elementwise = losses.as_loss(nn.MSELoss(reduction="none"))
    expected = ((LOGITS - 1).square().mean(-1) * w).mean()
    torch.testing.assert_close(elementwise(torch.ones_like(LOGITS), LOGITS, w), expected)


def test_a_torch_module_moves_but_joins_no_model():
    loss = losses.as_loss(nn.CrossEntropyLoss(weight=torch.ones(CLASSES)))
    assert not isinstance(loss, nn.Module)
    assert loss.to("meta") is loss
    assert loss.loss.weight.device.type == "meta"
    assert losses.MeanSquaredError().to("meta").name == "mean_squared_error"


def test_an_own_module_is_called_like_torchs():
    class Focal(nn.Module):
        def forward(self, prediction, target):
            assert target.dtype is torch.int64
            return F.cross_entropy(prediction, target, reduction="none") ** 2

    loss = losses.as_loss(Focal())
    assert loss.name == "focal"
    torch.testing.assert_close(
        loss(INDICES, LOGITS), F.cross_entropy(LOGITS, INDICES, reduction="none").square().mean()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.as_loss("crossentropy"), "such as 'sparse_categorical_crossentropy'"),
        (lambda: losses.as_loss(None), "got None"),
        (lambda: losses.as_loss(3), "^3 is no loss"),
        (
            lambda: losses.as_loss(lambda y, p: (y - p).mean())(torch.zeros(4), torch.zeros(4), torch.ones(4)),
            "lambda returns one number for the whole batch, so sample_weight .* Return one loss per sample",
        ),
        (
            lambda: losses.as_loss(nn.MSELoss())(torch.zeros(4), torch.zeros(4), torch.ones(4)),
            'mse_loss returns one number .* Create it with reduction="none"',
        ),
        (lambda: losses.as_loss(nn.MSELoss())(torch.zeros(4), torch.zeros(4, 2)), "mse_loss: .* element by element"),
        (
            lambda: losses.as_loss(nn.CrossEntropyLoss())(torch.zeros(4, 7), torch.zeros(4, 7, 3)),
            r"y_pred has shape \(4, 7, 3\), y_true \(4, 7\).* on axis 1 .* shape \(4, 3\)",
        ),
        (lambda: losses.serialize(losses.as_loss(nn.MSELoss())), "torch module or function"),
    ],
)
def test_error_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
