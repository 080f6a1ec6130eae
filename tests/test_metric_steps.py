"""What every metric's update must be fit for: a step that never waits for the device and is one graph."""

import pytest
import torch
from metric_cases import BATCH, CASES, COUNT_IDS, COUNTS, IDS
from no_reading import NoReading

from torchfunc import metrics

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


# One case for each mean and for each set of arguments of what counts; several to a graph, since tracing has its price.
# The means weigh in one place.
DISTINCT = [(case, index % 6 == 0) for index, case in enumerate({case[0]: case for case in CASES}.values())]
DISTINCT += [(case, True) for case in {(case[0], *case[1]): case for case in COUNTS}.values()]
PER_GRAPH = 8


@pytest.mark.parametrize("first", range(0, len(DISTINCT), PER_GRAPH))
def test_one_graph(first):
    cases, weighted = zip(*DISTINCT[first : first + PER_GRAPH], strict=True)
    eager, traced = ([getattr(metrics, name)(**arguments) for name, arguments, *_ in cases] for _ in range(2))

    def step(updated, data, weight):
        for metric, (y, p), is_weighted in zip(updated, data, weighted, strict=True):
            metric.update_state(y, p)
            if is_weighted:
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


@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), ALL, ids=ALL_IDS)
def test_empty_batches_halves_and_bools(name, arguments, make_y, y_shape, make_p, p_shape):
    metric, reference = (getattr(metrics, name)(**arguments) for _ in range(2))
    y, p = next(batches(make_y, y_shape, make_p, p_shape, 1))
    halved = p.bfloat16() if p.is_floating_point() else p
    bools = y.bool() if set(y.unique().tolist()) <= {0, 1} and make_y.__name__ in ("bits", "one_hot") else y
    metric.update_state(bools, halved)
    metric.update_state(y[:0], p[:0])
    reference.update_state(y, halved.to(p.dtype))
    torch.testing.assert_close(metric.result(), reference.result(), equal_nan=True)


@pytest.mark.cuda
@pytest.mark.parametrize(("name", "arguments", "make_y", "y_shape", "make_p", "p_shape"), ALL, ids=ALL_IDS)
def test_nothing_waits_on_cuda(name, arguments, make_y, y_shape, make_p, p_shape):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    metric, reference = getattr(metrics, name)(**arguments).to("cuda"), getattr(metrics, name)(**arguments)
    y, p = next(batches(make_y, y_shape, make_p, p_shape, 1))
    reference.update_state(y, p, torch.ones(y_shape[:1], dtype=torch.int64))
    on_device = [each.cuda() for each in (y, p, torch.ones(y_shape[:1], dtype=torch.int64))]
    metric.build(y.shape, p.shape)
    metric.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update_state(*on_device)
        result = metric.result()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(result.cpu(), reference.result(), equal_nan=True)
