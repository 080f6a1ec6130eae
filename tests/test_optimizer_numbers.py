"""The numbers of an optimizer: counters that Python knows without asking the device, and corrections for them."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch

from torchfunc import optimizers
from torchfunc.optimizers.foreach import bias_correction
from torchfunc.optimizers.host_number import HostNumber


def by_pickle(value):
    return pickle.loads(pickle.dumps(value))


class TestHostNumber:
    def number(self, changes=0):
        number = HostNumber(torch.zeros((), dtype=torch.int64), 0)
        for _ in range(changes):
            number.add(10)
        return number

    def test_it_is_what_the_tensor_holds(self):
        number = self.number()
        assert number.get() == 0
        number.add(2)
        assert (number.get(), int(number.tensor)) == (2, 2)
        number.tensor.add_(5)
        assert number.get() == 7
        number.add(1)
        assert (number.get(), int(number.tensor)) == (8, 8)
        assert HostNumber(torch.tensor(3)).get() == 3

    def test_a_number_that_is_set_is_rounded_as_its_tensor_is(self):
        for dtype in (torch.float32, torch.float64):
            number = HostNumber(torch.zeros((), dtype=dtype))
            number.set(0.1)
            assert number.get() == number.tensor.item() == torch.tensor(0.1, dtype=dtype).item()

    def test_the_tensor_is_not_read_while_nobody_else_changes_it(self, monkeypatch):
        number = self.number(3)
        monkeypatch.setattr(torch.Tensor, "item", lambda tensor: pytest.fail("The device was asked."))
        number.add(1)
        assert number.get() == 31

    @pytest.mark.parametrize("copier", [copy.deepcopy, by_pickle])
    @pytest.mark.parametrize("changes_before", range(4))
    def test_a_copy_goes_its_own_way(self, copier, changes_before):
        # Whatever count of changes the original had seen, a copy's own changes may reach the same count.
        for changes_after in range(6):
            number = self.number(changes_before)
            twin = copier(number)
            for _ in range(changes_after):
                twin.tensor.add_(1)
            assert twin.get() == int(twin.tensor) == 10 * changes_before + changes_after
            assert number.get() == int(number.tensor) == 10 * changes_before
            number.tensor.add_(100)
            number.add(1)
            assert twin.get() == 10 * changes_before + changes_after
            assert number.get() == 10 * changes_before + 101

    def test_a_shallow_copy_sees_the_same_tensor(self):
        number = self.number(2)
        twin = copy.copy(number)
        assert twin.tensor is number.tensor
        number.add(1)
        twin.tensor.add_(3)
        assert number.get() == twin.get() == 24


@pytest.mark.parametrize("copier", [copy.deepcopy, by_pickle])
def test_a_copied_optimizer_counts_its_own_steps(copier):
    for steps in range(1, 4):
        param = torch.nn.Parameter(torch.ones(2))
        optimizer = optimizers.Adam(0.1)
        for _ in range(steps):
            optimizer.apply([torch.ones(2)], [param])
        twin = copier(optimizer)
        for _ in range(steps):
            twin.iterations.add_(1)
        optimizer.apply([torch.ones(2)])
        assert twin.step_number() == int(twin.iterations) + 1 == 2 * steps + 1
        assert optimizer.step_number() == int(optimizer.iterations) + 1 == steps + 2


# Betas of which `1 - beta` has lost digits in float32 already.
BETAS = [0.9, 0.999, 0.9999, 0.999999]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("step", [1, 2, 10, 1000, 10**6])
def test_the_correction_of_the_bias_loses_no_digits(beta, step):
    expected = -torch.expm1(torch.tensor(step, dtype=torch.float64) * torch.tensor(beta, dtype=torch.float64).log())
    found = bias_correction(beta, torch.tensor(float(step)))
    assert found.dtype == torch.float32
    assert abs(found.item() / expected.item() - 1) < 5e-7
    assert abs(bias_correction(beta, step) / expected.item() - 1) < 1e-9


def test_no_beta_needs_no_correction():
    assert bias_correction(0, 3) == 1
    assert float(bias_correction(0.0, torch.tensor(3.0))) == 1


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    ("cls", "beta_name"), [("Adam", "beta_2"), ("AdamW", "beta_2"), ("Adamax", "beta_1"), ("Lamb", "beta_2")]
)
def test_first_steps_in_a_graph_follow_the_closed_form(cls, beta_name, beta):
    # For a gradient that stays the same, means and squares without their bias are the gradient and its square.
    param, gradient = torch.nn.Parameter(torch.ones(3)), torch.tensor([2.0, -0.5, 3.0])
    options = {"weight_decay": None} if cls == "Adam" else {"weight_decay": 0.0} if cls == "AdamW" else {}
    optimizer = getattr(optimizers, cls)(0.25, **{beta_name: beta}, epsilon=1e-12, **options)
    recorded = optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)  # makes its steps as a graph would
    expected = torch.ones(3, dtype=torch.float64)
    for _ in range(3):
        if cls == "Lamb":
            # The step is as long as the weights.
            expected -= 0.25 * expected.norm() * gradient.sign() / 3**0.5
        else:
            expected -= 0.25 * gradient.sign()
        recorded.apply([gradient], [param])
        torch.testing.assert_close(param.detach().double(), expected, rtol=0, atol=3e-6)


def test_a_step_of_adam_is_few_calls():
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    gradients = [torch.ones(3) for _ in params]
    optimizer = optimizers.Adam()
    for _ in range(2):
        optimizer.apply(gradients, params)
    calls = []

    def count(frame, event, arg):
        if event == "call":
            calls.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        optimizer.apply(gradients, params)
    finally:
        sys.setprofile(None)
    # None of them for each weight.
    assert len(calls) <= 30, calls
