"""`config.set_num_threads("probe")`: which number of threads training goes on with."""

import itertools

import numpy as np
import pytest
import torch

from torchfunc import Input, Model, callbacks, config, layers
from torchfunc.training.process_settings import ThreadProbe


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    config.set_num_threads(before)


class Machine:
    """A clock, and steps that take as long as they do with so many threads."""

    def __init__(self, seconds):
        self.now, self.seconds, self.used = 0.0, seconds, []

    def __call__(self):
        return self.now

    def step(self, data):
        self.used.append(torch.get_num_threads())
        self.now += self.seconds[self.used[-1]]
        return data


def alternations(used):
    """How often the number of threads changes."""
    return sum(a != b for a, b in itertools.pairwise(used))


@pytest.mark.parametrize("faster", [1, 2])
def test_the_faster_number_stays(faster):
    machine = Machine({faster: 1.0, 3 - faster: 1.5})
    probe = ThreadProbe(machine)
    assert [probe.run(machine.step, number) for number in range(100)] == list(range(100))
    # Both are tried in several turns, for as many steps, and then one stays.
    assert alternations(machine.used) >= 4
    assert set(machine.used[-30:]) == {faster}
    probed = machine.used[: len(machine.used) - 30]
    assert {1, 2} <= set(probed)


@pytest.mark.parametrize("faster", [1, 2])
def test_a_slow_turn_does_not_decide(faster):
    """Something else that the machine does for a few steps, and a slow start, change nothing."""
    machine = Machine({faster: 1.0, 3 - faster: 1.2})
    probe = ThreadProbe(machine)
    used = []
    for number in range(100):
        slow = number < 3 or len([each for each in used if each == faster]) in (12, 13)

        def step(data, slow=slow):
            machine.step(data)
            machine.now += 20.0 if slow else 0.0

        probe.run(step, number)
        used.append(machine.used[-1])
    assert set(used[-30:]) == {faster}


def fit(rows=80, **settings):
    seen = []

    class Looks(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(torch.get_num_threads())

    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse", **settings)
    model.fit(np.zeros((rows, 3)), np.zeros((rows, 1)), batch_size=2, verbose=0, callbacks=[Looks()])
    return seen


def test_fit_probes_and_puts_the_setting_back():
    config.set_num_threads("probe")
    seen = fit(rows=200)
    assert alternations(seen) >= 4
    assert len(set(seen[-20:])) == 1
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("traced")
def test_compiled_steps_have_their_threads_settled():
    config.set_num_threads("probe")
    assert set(fit(jit_compile=True)) == {2}


def test_a_number_is_torchs_own_setting():
    config.set_num_threads("probe")
    config.set_num_threads(1)
    assert set(fit()) == {1}
    assert torch.get_num_threads() == 1


def test_an_error_puts_the_setting_back():
    config.set_num_threads("probe")

    class Stops(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if torch.get_num_threads() == 1:
                raise KeyboardInterrupt

    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.zeros((80, 3)), np.zeros((80, 1)), batch_size=2, verbose=0, callbacks=[Stops()])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [0, True, "all", 1.5])
def test_wrong_numbers(threads):
    with pytest.raises(ValueError, match=r"set_num_threads\(\) takes a number of at least 1 or 'probe'"):
        config.set_num_threads(threads)
