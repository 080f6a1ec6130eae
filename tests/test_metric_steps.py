"""What every metric's update must be fit for: a step that never waits for the device and is one graph."""

import pytest
import torch
from metric_cases import BATCH, CASES, COUNT_IDS, COUNTS, IDS
from torch.utils._python_dispatch import TorchDispatchMode

from torchfunc import metrics

# These read a value back, or have an output whose size is one.
READING = (
    *("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select", "aten::is_nonzero"),
    *("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "aten::equal"),
    *("aten::repeat_interleave.Tensor", "aten::_assert_async", "aten::histc"),
)


class NoReading(TorchDispatchMode):
    """Fails at an operation that would make an accelerator's host wait; counts all others but views."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        assert name not in READING, f"{name} waits for the device"
        if name.startswith("aten::index"):
            indices = [index for index in args[1] if index is not None] if name == "aten::index" else []
            assert not any(index.dtype in (torch.bool, torch.uint8) for index in indices), "a mask as index waits"
        if not func.is_view:
            self.kernels.append(name)
        return func(*args, **(kwargs or {}))


ALL, ALL_IDS = [*CASES, *COUNTS], [*IDS, *COUNT_IDS]


def batches(make_y, y_shape, make_p, p_shape, count):
    for _ in range(count):
        yield torch.tensor(make_y(*y_shape)), torch.tensor(make_p(*p_shape))


@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), ALL, ids=ALL_IDS)
def test_nothing_waits_for_the_device(name, arguments, make_y, y_shape, make_p, p_shape):
    metric = getattr(metrics, name)(**arguments)
    weight = torch.randint(0, 2, y_shape[:1])
    for y, p in batches(make_y, y_shape, make_p, p_shape, 2):
        with NoReading():
            metric.update_state(y, p)
            metric.update_state(y, p, metric.masked_weight(weight, None))
            metric.result()
            metric.reset_state()


def test_the_mode_notices():
    for read in (torch.Tensor.item, torch.nonzero, bool, lambda x: x[x == 1]):
        with pytest.raises(AssertionError, match="waits"), NoReading():
            read(torch.ones(1))


# One case for each class and each set of its arguments; several to a graph, since tracing has its price.
DISTINCT = list({(case[0], *case[1]): case for case in ALL}.values())
PER_GRAPH = 8


@pytest.mark.parametrize("first", range(0, len(DISTINCT), PER_GRAPH))
def test_one_graph(first):
    cases = DISTINCT[first : first + PER_GRAPH]
    eager, traced = ([getattr(metrics, name)(**arguments) for name, arguments, *_ in cases] for _ in range(2))

    def step(updated, data, weight):
        for metric, (y, p) in zip(updated, data, strict=True):
            metric.update_state(y, p)
            metric.update_state(y, p, weight)
        return [metric.result() for metric in updated]

    torch.compiler.reset()
    compiled = torch.compile(lambda data, weight: step(traced, data, weight), fullgraph=True, backend="eager")
    for _ in range(2):
        data = [next(batches(*makers, 1)) for _, _, *makers in cases]
        for metric, (y, p) in zip(traced, data, strict=True):
            metric.build(y.shape, p.shape)
        weight = torch.randint(0, 3, (BATCH,))
        for mine, reference in zip(compiled(data, weight), step(eager, data, weight), strict=True):
            torch.testing.assert_close(mine, reference, equal_nan=True)
