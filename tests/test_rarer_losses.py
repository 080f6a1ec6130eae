"""What is particular to focal, overlap, circle, CTC and generalized losses (their values are in test_losses.py)."""

import keras
import numpy as np
import pytest
import torch
from loss_cases import (
    BATCH,
    CLASSES,
    TIME,
    bits,
    classes,
    directions,
    numbers,
    one_hot,
    positive,
    probabilities,
    unit,
)

from torchfunc import losses

ALPHA = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("name", "y", "p", "arguments"),
    [
        ("hinge", bits(BATCH, 3), numbers(BATCH, 3), {}),
        ("squared_hinge", bits(BATCH, 3), numbers(BATCH, 3), {}),
        ("categorical_hinge", one_hot(BATCH), numbers(BATCH, CLASSES), {}),
        ("binary_focal_crossentropy", bits(BATCH, 3), unit(BATCH, 3), {"gamma": 3.0}),
        (
            "categorical_focal_crossentropy",
            one_hot(BATCH),
            positive(BATCH, CLASSES),
            {"alpha": ALPHA},
        ),
        ("categorical_generalized_cross_entropy", classes(BATCH), probabilities(BATCH, CLASSES), {"q": 0.3}),
        ("dice", bits(BATCH, 3), unit(BATCH, 3), {}),
        ("dice", bits(BATCH, 3), unit(BATCH, 3), {"axis": -1}),
        ("tversky", bits(BATCH, 3), unit(BATCH, 3), {"alpha": 0.4, "beta": 0.4}),
        ("ctc", 1 + classes(BATCH, 3) % 4, numbers(BATCH, 7, CLASSES), {}),
        ("circle", classes(BATCH), directions(BATCH, 3), {"gamma": 4, "margin": 0.2}),
        (
            "circle",
            classes(BATCH),
            directions(BATCH, 3),
            {"ref_labels": classes(4), "ref_embeddings": directions(4, 3), "remove_diagonal": False, "gamma": 4},
        ),
    ],
)
def test_rarer_functions(name, y, p, arguments):
    tensors = {key: torch.tensor(value) if isinstance(value, np.ndarray) else value for key, value in arguments.items()}
    expected = getattr(keras.losses, name)(torch.tensor(y), torch.tensor(p), **tensors)
    torch.testing.assert_close(getattr(losses, name)(y, p, **arguments), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "reduction"), [("Dice", "mean"), ("Tversky", "sum"), ("Dice", None)])
def test_overlap_of_a_whole_batch_is_one_number(name, reduction):
    y, p = bits(BATCH, TIME, 3), unit(BATCH, TIME, 3)
    y, p = torch.tensor(y), torch.tensor(p)
    ours, theirs = getattr(losses, name)(reduction=reduction), getattr(keras.losses, name)(reduction=reduction)
    torch.testing.assert_close(ours(y, p), theirs(y, p))
    # Keras multiplies the one number with each weight.
    with pytest.raises(ValueError, match=r"one number for the whole batch.* Give `axis` all axes but the first"):
        ours(y, p, torch.rand(BATCH))


def test_generalized_crossentropy_of_a_column_of_classes():
    # Keras compares every target with every prediction.
    y, p = torch.randint(0, CLASSES, (BATCH, 1)), torch.rand(BATCH, CLASSES)
    expected = ((1 - p.gather(1, y)[:, 0] ** 0.5) / 0.5).mean()
    torch.testing.assert_close(losses.CategoricalGeneralizedCrossEntropy()(y, p), expected)


def test_circle_without_pairs_counts_nothing():
    embeddings = torch.tensor(directions(3, 2), requires_grad=True)
    value = losses.Circle()(torch.tensor([0, 1, 2]), embeddings)
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert value.item() == 0.0
    assert not gradient.any()


def test_class_weights_of_a_focal_loss_follow_to_the_device():
    loss = losses.CategoricalFocalCrossentropy(alpha=ALPHA)
    y, p = torch.tensor(one_hot(BATCH)), torch.tensor(positive(BATCH, CLASSES))
    before = loss(y, p)
    assert loss.to("cpu") is loss
    torch.testing.assert_close(loss(y, p), before)
    assert loss.get_config()["alpha"] == ALPHA
    assert loss.to("meta")._fn_kwargs["alpha"].device.type == "meta"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.CategoricalGeneralizedCrossEntropy(q=1.0),
            "CategoricalGeneralizedCrossEntropy: q lies between 0 and 1, both excluded, got 1.0",
        ),
        (
            lambda: losses.CTC()(torch.ones(4), torch.ones(4, 5, 3)),
            r"ctc: y_true has shape \(4,\) .* \(batch, labels\)",
        ),
        (lambda: losses.CTC()(torch.ones(4, 2), torch.ones(4, 3)), r"the logits \(batch, time, classes\)"),
        (
            lambda: losses.Circle()(torch.ones(3), torch.ones(4, 3)),
            r"circle: y_true has shape \(3,\) .* one class index",
        ),
        (
            lambda: losses.circle(torch.ones(4), torch.ones(4, 3), torch.ones(2), torch.ones(3, 3)),
            r"circle: ref_labels has shape \(2,\)",
        ),
        (
            lambda: losses.CategoricalFocalCrossentropy()(torch.ones(4, 1), torch.ones(4, 1)),
            "categorical_focal_crossentropy: .* use 'binary_crossentropy'",
        ),
    ],
)
def test_error_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
