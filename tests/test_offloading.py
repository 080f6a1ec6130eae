"""`compile(offload_optimizer=True)`: state on the host, steps made there, the numbers of steps made on the device."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from torchfunc import Input, Sequential, layers, losses, optimizers
from torchfunc.models import load_model
from torchfunc.optimizers.host_copies import apply_on_host
from torchfunc.utils import set_random_seed

OPTIMIZERS = {
    "all options": lambda: optimizers.AdamW(
        0.1, global_clipnorm=1.0, use_ema=True, ema_overwrite_frequency=3, gradient_accumulation_steps=2
    ),
    "factors": lambda: optimizers.Adafactor(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "matrices": lambda: optimizers.Muon(0.1),
}


SIZES = (4, 3), (3,), (5, 3)


def weights():
    generator = torch.Generator().manual_seed(0)
    found = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in SIZES]
    found[0].constraint = lambda value: value.clamp(min=-0.5)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_on_the_host_are_those_on_the_device(name):
    optimizer, reference = OPTIMIZERS[name](), OPTIMIZERS[name]()
    optimizer.offloads = True
    own, expected = weights(), weights()
    for made, of in ((optimizer, own), (reference, expected)):
        made.exclude_from_weight_decay(of[1:2])
        made.build(of)
    for step in range(6):
        rows = (
            torch.sparse_coo_tensor([[1, 3]], torch.ones(2, 3), (5, 3), check_invariants=True)
            if step % 2
            else torch.ones(5, 3)
        )
        gradients = [torch.randn(4, 3), None if step == 4 else torch.randn(3), rows]
        if step == 3:
            # Whatever else changes a weight is seen.
            own[1].data.add_(1)
            expected[1].data.add_(1)
        apply_on_host(optimizer, gradients, own)
        reference.apply(gradients, expected)
    for one, two in zip([*own, *optimizer.variables], [*expected, *reference.variables], strict=True):
        assert torch.equal(one, two)
    assert [id(weight) for weight in optimizer.trained_weights] == [id(weight) for weight in own]
    optimizer.finalize_variable_values()
    reference.finalize_variable_values()
    assert all(map(torch.equal, own, expected))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_on_the_host(name):
    with FakeTensorMode(), torch.no_grad():
        optimizer = OPTIMIZERS[name]()
        optimizer.offloads = True
        own = [torch.nn.Parameter(torch.empty(size, device="cuda")) for size in SIZES]
        optimizer.apply([torch.empty_like(weight) for weight in own], own)
        assert {variable.device.type for variable in optimizer.variables} == {"cpu"}
        assert {weight.device.type for weight in own} == {"cuda"}


def trained(**settings):
    set_random_seed(0)
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.compile(optimizers.Adam(0.1), losses.MeanSquaredError(), device="cpu", **settings)
    model.fit(np.ones((8, 3)), np.zeros((8, 2)), batch_size=4, verbose=0)
    return model


def test_on_the_cpu_there_is_nothing_to_offload(tmp_path):
    model, reference = trained(offload_optimizer=True), trained()
    assert all(map(torch.equal, model.weights, reference.weights))
    for name in ("model.keras", "model.torchfunc"):
        model.save(tmp_path / name)
        loaded = load_model(tmp_path / name)
        assert loaded.optimizer.offloads
        assert all(map(torch.equal, loaded.optimizer.variables, reference.optimizer.variables))
    reference.save(tmp_path / "without.keras")
    assert not load_model(tmp_path / "without.keras").optimizer.offloads


def test_what_cannot_be_offloaded_is_refused():
    model = Sequential([Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="TorchOptimizer keeps a torch optimizer"):
        model.compile(torch.optim.AdamW, "mse", offload_optimizer=True)
    with pytest.raises(ValueError, match="LossScaleOptimizer, which looks at gradients on the device"):
        model.compile("adam", "mse", precision="16-mixed", offload_optimizer=True)
    with pytest.raises(ValueError, match="is for one device"):
        model.compile("adam", "mse", strategy="fsdp", offload_optimizer=True)
    with pytest.raises(ValueError, match="`offload_optimizer` is True or False, got 'cpu'"):
        model.compile("adam", "mse", offload_optimizer="cpu")
    assert not model.compiled
