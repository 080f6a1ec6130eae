"""Settings of the process under Keras' names: what models compute in, and how they report."""

import numpy as np
import pytest
import torch

from torchfunc import Input, Model, backend, config, layers, mixed_precision, optimizers, utils


@pytest.fixture(autouse=True)
def _as_before():
    yield
    config.set_dtype_policy("float32")
    config.enable_interactive_logging()


def compiled(**kwargs):
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", "mse", **kwargs)
    return model


@pytest.mark.parametrize(("policy", "dtype"), [("mixed_bfloat16", torch.bfloat16), ("mixed_float16", torch.float16)])
def test_a_mixed_policy_is_the_default_of_compile(policy, dtype):
    mixed_precision.set_global_policy(policy)
    assert mixed_precision.global_policy() == mixed_precision.Policy(policy)
    assert (config.dtype_policy().compute_dtype, config.dtype_policy().variable_dtype) == (
        str(dtype).removeprefix("torch."),
        "float32",
    )
    model, plain = compiled(), compiled(precision="32")
    seen = []
    model.get_layer("dense").register_forward_hook(lambda layer, args, output: seen.append(output.dtype))
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert seen == [dtype]
    assert model.get_layer("dense").weight.dtype is torch.float32
    # As in Keras, of which a layer with a dtype of its own computes in that.
    made = [layers.Dense(2), layers.RandomFlip(), layers.Dense(2, dtype="float32"), layers.Dense(2, dtype="float64")]
    assert [each.compute_dtype for each in made] == [dtype, dtype, torch.float32, torch.float64]
    assert (
        [each.variable_dtype for each in made] == [each.dtype for each in made] == [torch.float32] * 3 + [torch.float64]
    )
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer) == (dtype is torch.float16)
    assert plain.predict(np.ones((1, 3)), verbose=0).dtype == np.float32
    mixed_precision.set_dtype_policy(mixed_precision.Policy("float32"))
    model = compiled()
    assert (model.get_layer("dense").compute_dtype, made[0].compute_dtype) == (torch.float32, dtype)
    model.get_layer("dense").register_forward_hook(lambda layer, args, output: seen.append(output.dtype))
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert seen == [dtype, torch.float32]


def test_a_plain_policy_is_the_type_of_weights():
    config.set_dtype_policy("float64")
    assert (config.floatx(), config.dtype_policy().name) == ("float64", "float64")
    assert layers.Dense(2).dtype is torch.float64
    with pytest.raises(ValueError, match=r"one of bfloat16, .*mixed_float16, got 'mixed_float8'"):
        config.set_dtype_policy("mixed_float8")
    assert config.floatx() == "float64"


def test_automatic_reports(capsys):
    model = compiled()
    utils.disable_interactive_logging()
    model.fit(np.ones((64, 3)), np.ones((64, 2)))
    assert "━" not in capsys.readouterr().out
    assert not utils.is_interactive_logging_enabled()
    utils.enable_interactive_logging()
    model.fit(np.ones((64, 3)), np.ones((64, 2)))
    assert "━" in capsys.readouterr().out


def test_backend():
    assert backend.backend() == "torch"
    assert backend.epsilon() == config.epsilon()
    assert backend.is_keras_tensor(Input((3,)))
    assert not backend.is_keras_tensor(np.ones(3))
    assert [backend.standardize_dtype(dtype) for dtype in (None, "int32", torch.bool)] == ["float32", "int32", "bool"]
    first = Input((3,))
    x, other = layers.Dense(2)(first), Input((2,))
    assert utils.get_source_inputs(other + x * 2) == [first, other]
    with pytest.raises(TypeError, match="takes a symbolic tensor"):
        utils.get_source_inputs(torch.ones(2))
