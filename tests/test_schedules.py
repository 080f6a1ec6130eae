"""Learning rate schedules: their values and configs against Keras', as numbers and as tensors, and in optimizers."""

import keras
import numpy as np
import pytest
import torch

from torchfunc import optimizers
from torchfunc.optimizers import schedules

CASES = [
    ("ExponentialDecay", {"decay_steps": 7, "decay_rate": 0.6}),
    ("ExponentialDecay", {"decay_steps": 7, "decay_rate": 0.6, "staircase": True}),
    ("InverseTimeDecay", {"decay_steps": 7, "decay_rate": 0.6}),
    ("InverseTimeDecay", {"decay_steps": 7, "decay_rate": 0.6, "staircase": True, "name": "mine"}),
    ("PolynomialDecay", {"decay_steps": 10}),
    ("PolynomialDecay", {"decay_steps": 10, "end_learning_rate": 0.03, "power": 0.5}),
    ("PolynomialDecay", {"decay_steps": 10, "power": 2.0, "cycle": True}),
    ("CosineDecay", {"decay_steps": 20}),
    ("CosineDecay", {"decay_steps": 20, "alpha": 0.2, "warmup_target": 0.5, "warmup_steps": 10}),
    ("CosineDecay", {"decay_steps": 20, "warmup_target": 0.5}),
    ("CosineDecayRestarts", {"first_decay_steps": 6}),
    ("CosineDecayRestarts", {"first_decay_steps": 6, "t_mul": 1.0, "m_mul": 0.8, "alpha": 0.1}),
    ("CosineDecayRestarts", {"first_decay_steps": 6, "t_mul": 1.5, "m_mul": 0.5}),
]
CASES = [(name, {"initial_learning_rate": 0.25, **options}) for name, options in CASES]
CASES += [
    ("PiecewiseConstantDecay", {"boundaries": [5, 12], "values": [0.5, 0.25, 0.125]}),
    ("PiecewiseConstantDecay", {"boundaries": [9], "values": [1.0, 0.5], "name": "mine"}),
]
STEPS = [0, 1, 5, 6, 7, 9, 10, 11, 12, 13, 20, 29, 31, 50]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_values_and_config_equal_keras(name, options):
    ours, theirs = getattr(schedules, name)(**options), getattr(keras.optimizers.schedules, name)(**options)
    expected = [float(theirs(step)) for step in STEPS]
    numbers = [ours(step) for step in STEPS]
    assert all(isinstance(number, float) for number in numbers)
    np.testing.assert_allclose(numbers, expected, rtol=1e-5, atol=1e-7)
    single, double = ours(torch.tensor(STEPS)), ours(torch.tensor(STEPS, dtype=torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(double, numbers, rtol=1e-12)
    assert ours.get_config() == theirs.get_config()
    assert list(ours.get_config()) == list(theirs.get_config())
    assert schedules.serialize(ours) == keras.optimizers.schedules.serialize(theirs)
    again = schedules.deserialize(keras.optimizers.schedules.serialize(theirs))
    assert type(again) is type(ours)
    assert again.get_config() == ours.get_config()


@pytest.mark.parametrize(("name", "options"), CASES[:1] + CASES[7:8] + CASES[-1:], ids=str)
def test_an_optimizer_follows_it_as_in_keras(name, options):
    ours = optimizers.SGD(getattr(schedules, name)(**options), momentum=0.5)
    theirs = keras.optimizers.SGD(getattr(keras.optimizers.schedules, name)(**options), momentum=0.5)
    param, variable = torch.ones(3, requires_grad=True), keras.Variable(np.ones(3, "float32"))
    for _ in range(15):
        ours.apply([torch.ones(3)], [param])
        theirs.apply([torch.ones(3)], [variable])
    np.testing.assert_allclose(param.detach(), variable.value.detach(), rtol=1e-6)
    assert abs(float(ours.learning_rate) - float(theirs.learning_rate)) < 1e-7
    again = optimizers.deserialize(keras.optimizers.serialize(theirs))
    assert again.get_config()["learning_rate"] == ours.get_config()["learning_rate"]
    assert len(ours.variables) == len(theirs.variables) == 2
    with pytest.raises(TypeError, match="schedule"):
        ours.learning_rate = 0.1


class Halving(schedules.LearningRateSchedule):
    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start * torch.exp2(-step.float())

    def get_config(self):
        return {"start": self.start}


def test_a_schedule_of_ones_own_gets_a_tensor():
    optimizer = optimizers.SGD(Halving(1.0))
    param = torch.zeros(1, requires_grad=True)
    for _ in range(3):
        optimizer.apply([torch.ones(1)], [param])
    assert param.item() == -1.75
    config = optimizers.serialize(optimizer)
    again = optimizers.deserialize(config, {"Halving": Halving})
    assert float(again.learning_rate) == 1.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), "decay_steps.*above 0.*0"),
        (lambda: schedules.CosineDecayRestarts(0.1, -1), "first_decay_steps.*-1"),
        (lambda: schedules.PiecewiseConstantDecay([1], [1.0]), "1 boundaries.*1 values"),
        (lambda: schedules.deserialize({"class_name": "CosineDecai", "config": {}}), "CosineDecai"),
    ],
)
def test_wrong_use(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_base_schedule_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="__call__"):
        schedules.LearningRateSchedule()(0)
    with pytest.raises(NotImplementedError, match="get_config"):
        schedules.LearningRateSchedule().get_config()
