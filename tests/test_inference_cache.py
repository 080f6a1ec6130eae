"""Fake runs of torch's own modules are remembered, and never taken for one that is not alike."""

import pytest
import torch
from torch import nn

from torchfunc import Input
from torchfunc.graph import inference


@pytest.fixture
def runs(monkeypatch):
    """The labels of the fake runs that are made."""
    seen, original = [], inference.infer

    def infer(prepare, args, kwargs, label, owner):
        seen.append(label)
        return original(prepare, args, kwargs, label, owner)

    monkeypatch.setattr(inference, "infer", infer)
    monkeypatch.setattr(inference, "_inferred", {})
    return seen


def test_equal_calls_are_run_once(runs):
    x = Input((3,))
    assert [nn.Linear(3, 5)(x).shape for _ in range(3)] == [(None, 5)] * 3
    image = Input((3, 8, 8))
    assert [nn.Conv2d(3, 4, 3, stride=2)(image).shape for _ in range(2)] == [(None, 4, 3, 3)] * 2
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [
        (nn.Linear(3, 5), nn.Linear(3, 6), (None, 6)),
        (nn.Flatten(1), nn.Flatten(0, 1), (None, 4)),
        (nn.Conv1d(3, 2, 3), nn.Conv1d(3, 2, 3, padding=1), (None, 2, 4)),
        (nn.AvgPool1d(2), nn.MaxPool1d(2, return_indices=True), (None, 3, 2)),
    ],
)
def test_other_settings_are_run_again(runs, first, second, shape):
    x = Input((3, 4)) if not isinstance(first, nn.Linear) else Input((3,))
    first(x)
    found = second(x)
    assert len(runs) == 2
    assert (found[0] if isinstance(found, tuple) else found).shape == shape


def test_other_arguments_are_run_again(runs):
    linear = nn.Linear(3, 5)
    assert [linear(Input(shape)).shape for shape in ((3,), (2, 3), (None, 3))] == [
        (None, 5),
        (None, 2, 5),
        (None, None, 5),
    ]
    assert linear.double()(Input((3,), dtype="float64")).dtype == torch.float64
    assert len(runs) == 4


def test_changed_modules_are_run_again(runs):
    x, pool = Input((3, 8)), nn.AvgPool1d(2)
    pool(x)
    pool.stride = (4,)
    assert pool(x).shape == (None, 3, 2)
    pool.register_forward_pre_hook(lambda module, args: args[0][:, :2])
    assert pool(x).shape == (None, 2, 2)
    assert len(runs) == 3


def test_under_a_hook_on_all_modules_every_call_is_run(runs):
    x, linear = Input((3,)), nn.Linear(3, 5)
    assert linear(x).shape == (None, 5)
    with nn.modules.module.register_module_forward_hook(lambda module, args, output: output[:, :2]):
        assert [linear(x).shape for _ in range(2)] == [(None, 2)] * 2
    with nn.modules.module.register_module_forward_pre_hook(lambda module, args: (torch.cat(args * 2),)):
        assert nn.Flatten(0)(x).shape == (None,)
    assert linear(x).shape == (None, 5)
    assert len(runs) == 4


def test_what_is_no_module_of_torch_is_run_every_time(runs):
    class Doubling(nn.Linear):
        def forward(self, x):
            return torch.cat([super().forward(x)] * 2, -1)

    x = Input((3,))
    assert [nn.Linear(3, 2)(x).shape, Doubling(3, 2)(x).shape, Doubling(3, 2)(x).shape] == [
        (None, 2),
        (None, 4),
        (None, 4),
    ]
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    assert [parametrized(x).shape for _ in range(2)] == [(None, 2)] * 2
    nn.Sequential(nn.Linear(3, 2))(x)
    assert len(runs) == 6


def test_autocast_is_seen(runs):
    x, linear = Input((3,)), nn.Linear(3, 5)
    assert linear(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16
    assert linear(x).dtype == torch.float32
    assert len(runs) == 2


def test_equal_numbers_of_different_types_are_not_alike(runs):
    x = Input((3,))
    assert nn.Softmax(1)(x).shape == (None, 3)
    for dim in (1.0, True):
        with pytest.raises(ValueError, match="cannot be called"):
            nn.Softmax(dim)(x)
    nn.AdaptiveAvgPool2d((1, 1))(Input((3, 8, 8)))
    with pytest.raises(ValueError, match="cannot be called"):
        nn.AdaptiveAvgPool2d((1.0, 1))(Input((3, 8, 8)))
    assert len(runs) == 5


def test_a_replaced_forward_is_seen(runs, monkeypatch):
    x = Input((3,))
    assert nn.ReLU()(x).shape == (None, 3)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x[:, :1])
    assert nn.ReLU()(x).shape == (None, 1)
    monkeypatch.undo()


def test_hooks_on_all_modules_are_seen(runs):
    x = Input((3,))
    assert nn.ReLU()(x).shape == (None, 3)
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, args: (args[0][:, :1],))
    try:
        assert nn.ReLU()(x).shape == (None, 1)
    finally:
        handle.remove()
    assert nn.ReLU()(x).shape == (None, 3)
    assert len(runs) == 2


def test_arguments_by_name_and_in_tuples_are_told_apart(runs):
    pooled, indices = nn.MaxPool1d(2, return_indices=True)(Input((3, 8)))
    unpool = nn.MaxUnpool1d(2)
    runs.clear()
    assert unpool(pooled, indices).shape == (None, 3, 8)
    assert unpool(pooled, indices, output_size=(9,)).shape == (None, 3, 9)
    assert unpool(pooled, indices, output_size=[9]).shape == (None, 3, 9)
    assert unpool(pooled, indices, (7,)).shape == (None, 3, 7)
    assert unpool(pooled, indices, output_size=(9,)).shape == (None, 3, 9)
    assert len(runs) == 4


def test_only_so_many_results_are_stored(runs, monkeypatch):
    monkeypatch.setattr(inference, "_CACHE_SIZE", 2)
    x = Input((3,))
    for size in (1, 2, 3, 4):
        assert nn.Linear(3, size)(x).shape == (None, size)
        assert len(inference._inferred) <= 2
    assert len(runs) == 4
