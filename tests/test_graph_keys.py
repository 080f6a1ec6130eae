"""What compiled steps take for constants: `graph_key` of layers, optimizers, losses and metrics."""

import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Model, layers, losses, metrics, optimizers, schedules
from torchfunc.graph_keys import graph_key_of, settings_key


def own(*arguments):
    return arguments[0]


class OwnLayer(layers.Layer):
    def call(self, inputs):
        return inputs


class OwnSchedule(schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1


class OwnLoss(losses.MeanSquaredError):
    pass


class OwnMetric(metrics.Mean):
    pass


class OwnOptimizer(optimizers.SGD):
    pass


def changed(owner, name, value):
    """Whether a setting is part of the key."""
    before = owner.graph_key()
    hash(before)
    assert before == owner.graph_key()
    setattr(owner, name, value)
    return owner.graph_key() != before


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (layers.Dropout(0.5), "rate", 0.25),
        (layers.Dropout(0.5), "training", False),
        (layers.BatchNormalization(), "momentum", 0.5),
        (optimizers.SGD(0.1, momentum=0.9), "momentum", 0.5),
        (optimizers.SGD(0.1), "clipnorm", 1.0),
        (optimizers.LossScaleOptimizer(optimizers.SGD(0.1)), "dynamic_growth_steps", 5),
        (losses.MeanSquaredError(), "reduction", "sum"),
        (metrics.TopKCategoricalAccuracy(3), "k", 4),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (str, float)) else str(value),
)
def test_settings_are_in_the_key(owner, name, value):
    assert changed(owner, name, value)


def test_the_settings_of_an_inner_optimizer_are_in_the_key():
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(0.1, momentum=0.9))
    before = optimizer.graph_key()
    optimizer.inner_optimizer.momentum = 0.5
    assert optimizer.graph_key() != before


def test_what_steps_change_is_not_in_the_key():
    optimizer = optimizers.Adam(0.1)
    weight = torch.ones(3)
    optimizer.build([weight])
    metric = metrics.F1Score()
    before = optimizer.graph_key(), metric.graph_key()
    optimizer.apply([torch.ones(3)], [weight])
    optimizer.learning_rate = 0.2
    metric.update_state(torch.eye(3), torch.eye(3))
    assert (optimizer.graph_key(), metric.graph_key()) == before


def test_what_the_loop_changes_is_not_in_the_key():
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.zeros((4, 3)), np.zeros((4, 1)), verbose=0)
    before = model.graph_key()
    assert before is not None
    model.stop_training = True
    model.fit(np.zeros((4, 3)), np.zeros((4, 1)), verbose=0)
    assert model.graph_key() == before


@pytest.mark.parametrize(
    "owner",
    [
        OwnLayer(),
        layers.Dense(1, activation=own),
        OwnLoss(),
        losses.LossFunctionWrapper(own),
        losses.as_loss(own),
        OwnMetric(),
        metrics.MeanMetricWrapper(own),
        OwnOptimizer(0.1),
        optimizers.SGD(OwnSchedule()),
        optimizers.SGD(lambda: 0.1),
        optimizers.LossScaleOptimizer(optimizers.SGD(OwnSchedule())),
        optimizers.get(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)),
    ],
    ids=lambda owner: type(owner).__name__,
)
def test_the_users_code_has_no_key(owner):
    assert owner.graph_key() is None


def test_a_schedule_that_is_set_later_counts():
    optimizer = optimizers.SGD(0.1)
    assert optimizer.graph_key() is not None
    optimizer.learning_rate = OwnSchedule()
    assert optimizer.graph_key() is None
    optimizer.learning_rate = schedules.ExponentialDecay(0.1, 10, 0.9)
    assert optimizer.graph_key() is not None


def test_modules_of_torch():
    module = nn.BatchNorm1d(3)
    before = graph_key_of(module)
    module.momentum = 0.5
    assert before is not None
    assert graph_key_of(module) != before
    dropout = layers.Dropout(0.5)
    assert graph_key_of(dropout) == dropout.graph_key()
    assert graph_key_of(OwnLayer()) is None


def test_what_is_left_out():
    metric = metrics.F1Score()
    metric.update_state(torch.eye(3), torch.eye(3))
    assert settings_key(metric) != settings_key(metric, public_only=True) == metric.graph_key()
    assert settings_key(metric, ignored=("beta",)) != settings_key(metric)


def test_a_step_in_a_graph_leaves_the_key_as_it_is():
    # The inner optimizer's steps are recorded even in an eager step.
    weight = torch.ones(3)
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(0.1))
    optimizer.build([weight])
    before = optimizer.graph_key()
    optimizer.apply([torch.ones(3)], [weight])
    assert optimizer.graph_key() == before
