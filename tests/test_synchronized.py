"""BatchNormalization(synchronized=True) in two processes equals one process with both halves of the batch."""

import os

import pytest
import torch
from torch import distributed, multiprocessing

from torchfunc.layers import BatchNormalization

KWARGS = [{}, {"axis": 1}, {"renorm": True}]


def data():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 3, 3, generator=generator) * 2 + 1 for _ in KWARGS], torch.arange(18).view(6, 3) % 4 > 0


def results(rows):
    """What layers make of some rows: outputs, gradients of the inputs, moving averages."""
    found = []
    inputs, mask = data()
    for kwargs, x in zip(KWARGS, inputs, strict=True):
        for extra in ({}, {"mask": mask[rows]}):
            layer = BatchNormalization(synchronized=True, momentum=0.5, **kwargs)
            part = x[rows].clone().requires_grad_()
            output = layer(part, **extra)
            # A loss in which every value has its own weight, whichever process it is in.
            (output.square() * torch.arange(54.0).view(6, 3, 3)[rows]).sum().backward()
            found.append((output.detach(), part.grad, *layer.buffers()))
    return found


def work(rank, path):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{path}/meeting", rank=rank, world_size=2)
    torch.save(results(slice(0, 2) if rank == 0 else slice(2, 6)), f"{path}/{rank}.pt")
    # Who leaves while the other is still at it may be aborted by gloo.
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available(), reason="this torch has no distributed package")
def test_two_processes_equal_one(tmp_path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for whole, first, second in zip(results(slice(0, 6)), *halves, strict=True):
        for index in (0, 1):
            torch.testing.assert_close(torch.cat([first[index], second[index]]), whole[index], rtol=1e-4, atol=1e-4)
        for expected, *averages in zip(whole[2:], first[2:], second[2:], strict=True):
            for average in averages:
                torch.testing.assert_close(average, expected)
