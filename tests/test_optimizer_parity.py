"""Every optimizer against Keras': steps, state as it is saved, config, over its arguments and the shared options."""

import inspect

import keras
import numpy as np
import pytest
import torch

from torchfunc import optimizers

# Keras' own variables are not ready for NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SHAPES = [(3, 4), (4,), (2, 2, 2), (5, 2)]
NAMES = ["Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam"]
NAMES += ["RMSprop", "SGD"]

CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "learning_rate": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"rho": 0.8, "momentum": 0.5, "learning_rate": 0.01}),
    ("RMSprop", {"centered": True, "epsilon": 0.1}),
    ("RMSprop", {"epsilon": 0.5}),
    ("Adam", {}),
    ("Adam", {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.1, "learning_rate": 0.01}),
    ("Adam", {"amsgrad": True, "learning_rate": 0.05}),
    ("AdamW", {"learning_rate": 0.01}),
    ("AdamW", {"weight_decay": 0.5, "amsgrad": True}),
    ("Adamax", {"learning_rate": 0.1}),
    ("Adamax", {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1}),
    ("Nadam", {"learning_rate": 0.1}),
    ("Nadam", {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1}),
    ("Adagrad", {"learning_rate": 0.1}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.0, "epsilon": 0.2}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.5, "epsilon": 0.1}),
    ("Adafactor", {"learning_rate": 0.5}),
    ("Adafactor", {"beta_2_decay": -0.5, "epsilon_1": 0.1, "epsilon_2": 0.9, "clip_threshold": 0.5}),
    ("Adafactor", {"learning_rate": 0.5, "relative_step": False}),
    ("Ftrl", {"learning_rate": 0.1}),
    ("Ftrl", {"learning_rate": 0.1, "learning_rate_power": -0.3, "initial_accumulator_value": 0.5, "beta": 0.2}),
    (
        "Ftrl",
        {
            "learning_rate": 0.1,
            "l1_regularization_strength": 0.3,
            "l2_regularization_strength": 0.2,
            "l2_shrinkage_regularization_strength": 0.1,
        },
    ),
    ("Lion", {"learning_rate": 0.01}),
    ("Lion", {"beta_1": 0.5, "beta_2": 0.7}),
    ("Lamb", {"learning_rate": 0.1}),
    ("Lamb", {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1}),
    ("Muon", {"learning_rate": 0.1}),
    ("Muon", {"nesterov": False, "rms_rate": None, "ns_steps": 3, "momentum": 0.5, "adam_lr_ratio": 0.5}),
    ("Muon", {"weight_decay": None, "adam_weight_decay": 0.1, "adam_beta_1": 0.5, "adam_beta_2": 0.7, "epsilon": 0.1}),
    ("Muon", {"muon_a": 3.0, "muon_b": -3.2, "muon_c": 1.2, "weight_decay": 0.2, "adam_weight_decay": None}),
]
SHARED = [
    {"weight_decay": 0.1},
    {"clipnorm": 0.7},
    {"clipnorm": 100.0},
    {"clipvalue": 0.3},
    {"global_clipnorm": 1.5},
    {"global_clipnorm": 100.0},
    {"use_ema": True, "ema_momentum": 0.8},
    {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 3},
    {"loss_scale_factor": 8.0},
    {"gradient_accumulation_steps": 3},
    {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 2},
]
CASES += [("SGD", {"momentum": 0.5, **options}) for options in SHARED]
CASES += [("Adam", options) for options in (SHARED[1], SHARED[-1])]
# Options that meet state in other ways: a schedule, a counter, state of other shapes.
EVERYWHERE = {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "clipnorm": 0.7, "use_ema": True}
CASES += [(name, EVERYWHERE) for name in NAMES if name not in ("SGD", "Adam", "AdamW")]


def gradients(steps):
    rng = np.random.default_rng(0)
    return [[torch.from_numpy(rng.standard_normal(shape)) for shape in SHAPES] for _ in range(steps)]


def weights():
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape) for shape in SHAPES]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_twenty_steps_equal_keras(name, options):
    ours, theirs = getattr(optimizers, name)(**options), getattr(keras.optimizers, name)(**options)
    params = [torch.nn.Parameter(torch.from_numpy(w)) for w in weights()]
    variables = [keras.Variable(w, dtype="float64", name=f"w{index}") for index, w in enumerate(weights())]
    for grads in gradients(20):
        ours.apply(grads, params)
        theirs.apply(grads, variables)
    for param, variable in zip(params, variables, strict=True):
        assert_close(param.detach(), variable.value.detach())
    assert int(ours.iterations) == int(theirs.iterations)
    # Either library can read the state that the other wrote.
    written, expected = {}, {str(index): v.value.detach().numpy() for index, v in enumerate(theirs.variables)}
    ours.save_own_variables(written)
    assert list(written) == list(expected)
    for key, value in expected.items():
        assert_close(written[key], value)
    again = getattr(optimizers, name)(**options)
    again.build(params)
    again.load_own_variables(expected)
    for mine, other in zip(again.variables, ours.variables, strict=True):
        assert_close(mine, other)
    ours.finalize_variable_values(params)
    theirs.finalize_variable_values(variables)
    for param, variable in zip(params, variables, strict=True):
        assert_close(param.detach(), variable.value.detach())


@pytest.mark.parametrize("name", [*NAMES, "LossScaleOptimizer"])
def test_config_and_arguments_equal_keras(name):
    arguments = {"LossScaleOptimizer": [1]}.get(name, [])
    ours = getattr(optimizers, name)(*[optimizers.SGD(name="inner") for _ in arguments])
    theirs = getattr(keras.optimizers, name)(*[keras.optimizers.SGD(name="inner") for _ in arguments], name=None)
    config, expected = ours.get_config(), theirs.get_config()
    for each in (config, expected):
        # Keras names the private module of its backend.
        each.get("inner_optimizer", {}).update(module="", registered_name="")
    # Keras numbers names per process; a name here is always that of the first.
    assert expected.pop("name").startswith(config.pop("name"))
    assert config == expected
    assert list(config) == list(expected)
    restored = optimizers.deserialize(optimizers.serialize(ours))
    assert type(restored) is type(ours)
    assert restored.get_config() == ours.get_config()
    from_keras = optimizers.deserialize(keras.optimizers.serialize(theirs))
    assert type(from_keras) is type(ours)
    assert optimizers.get(name.lower() if arguments == [] else ours).__class__ is type(ours)
    names = list(inspect.signature(getattr(keras.optimizers, name)).parameters)
    mine = list(inspect.signature(getattr(optimizers, name)).parameters)
    own = [key for key in names if key not in OPTIONS]
    assert [key for key in mine if key not in OPTIONS] == own


OPTIONS = {
    *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum"),
    *("ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps", "name", "kwargs", "options"),
}


def test_muon_leaves_embeddings_and_named_layers_to_adam():
    rng = np.random.default_rng(1)
    names = ["embedding", "hidden", "output"]
    values = [rng.standard_normal((3, 2)) for _ in names]
    ours, theirs = optimizers.Muon(exclude_layers=["out"]), keras.optimizers.Muon(exclude_layers=["out"])
    params = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in values]
    variables = []
    for name, value in zip(names, values, strict=True):
        with keras.name_scope(name):
            variables.append(keras.Variable(value, dtype="float64", name="kernel"))
    ours.name_weights(zip(names, params, strict=True))
    for _ in range(3):
        grads = [torch.from_numpy(rng.standard_normal((3, 2))) for _ in names]
        ours.apply(grads, params)
        theirs.apply(grads, variables)
    assert len(ours.variables) == len(theirs.variables) == 2 + 3 + 2
    for param, variable in zip(params, variables, strict=True):
        assert_close(param.detach(), variable.value.detach())


BAD = [np.inf, np.nan, -np.inf]


@pytest.mark.parametrize("inner", [("SGD", {"momentum": 0.9}), ("Adam", {}), ("RMSprop", {"use_ema": True})], ids=str)
def test_loss_scale_equals_keras(inner):
    name, options = inner
    ours = optimizers.LossScaleOptimizer(getattr(optimizers, name)(**options), 64.0, dynamic_growth_steps=3)
    theirs = keras.optimizers.LossScaleOptimizer(getattr(keras.optimizers, name)(**options), 64.0, 3)
    params = [torch.nn.Parameter(torch.from_numpy(w)) for w in weights()]
    variables = [keras.Variable(w, dtype="float64") for w in weights()]
    assert float(ours.scale_loss(torch.tensor(2.0))) == float(theirs.scale_loss(torch.tensor(2.0))) == 128
    for index, grads in enumerate(gradients(20)):
        if index % 6 == 0:
            grads[index % 4].view(-1)[0] = BAD[index % 3]
        grads = [grad * 64 for grad in grads]
        ours.apply(grads, params)
        theirs.apply(grads, variables)
        assert float(ours.dynamic_scale) == float(theirs.dynamic_scale)
    for param, variable in zip(params, variables, strict=True):
        assert_close(param.detach(), variable.value.detach())
    written = {}
    ours.save_own_variables(written)
    assert len(written) == len(theirs.variables)
    for key, variable in zip(written, theirs.variables, strict=True):
        assert_close(written[key], variable.value.detach())
    assert int(ours.iterations) == int(theirs.iterations) == 16


def test_loss_scale_of_a_torch_optimizer_equals_torchs_scaler():
    params = [torch.nn.Parameter(torch.from_numpy(w)) for w in weights()]
    expected = [torch.nn.Parameter(torch.from_numpy(w)) for w in weights()]
    ours = optimizers.LossScaleOptimizer(optimizers.get(torch.optim.Adam(params, 0.1)), 64.0, 3)
    reference = torch.optim.Adam(expected, 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    scaler.scale(torch.ones(()))
    for index, grads in enumerate(gradients(10)):
        if index % 4 == 3:
            grads[1][0] = np.inf
        ours.apply(grads, params)
        for param, grad in zip(expected, grads, strict=True):
            param.grad = grad.clone()
        scaler.step(reference)
        scaler.update()
        assert float(ours.dynamic_scale) == scaler.get_scale()
    for param, other in zip(params, expected, strict=True):
        assert_close(param.detach(), other.detach())


def test_schedule_free_adam():
    """Against the formulas of the paper. (Keras on torch overwrites the old iterate; the last numbers are from jax.)"""
    gradients = [np.random.default_rng(step).normal(size=3) for step in range(20)]
    rate, beta_1, beta_2, epsilon, warmup, decay = 0.1, 0.5, 0.7, 0.1, 4, 0.1
    y = z = x = np.ones(3)
    v = np.zeros(3)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = optimizers.ScheduleFreeAdamW(rate, beta_1, beta_2, epsilon, warmup, weight_decay=decay)
    for step, gradient in enumerate(gradients, 1):
        # Decay moves the weights, and so the mean behind them.
        y = y * (1 - rate * decay)
        x = (y - (1 - beta_1) * z) / beta_1
        v = beta_2 * v + (1 - beta_2) * gradient**2
        z = z - rate * min(step / warmup, 1) * gradient / (np.sqrt(v / (1 - beta_2**step)) + epsilon)
        x = (1 - 1 / step) * x + z / step
        y = (1 - beta_1) * z + beta_1 * x
        optimizer.apply([torch.tensor(gradient, dtype=torch.float32)], [weight])
        np.testing.assert_allclose(weight.detach(), y, rtol=1e-5)
    np.testing.assert_allclose(y, [0.89826965, 1.1272823, 0.8807076], rtol=1e-5)
    ours, theirs = optimizer.get_config(), keras.optimizers.ScheduleFreeAdamW().get_config()
    assert ours.keys() == theirs.keys()
    assert optimizers.ScheduleFreeAdamW().get_config()["learning_rate"] == pytest.approx(theirs["learning_rate"])
