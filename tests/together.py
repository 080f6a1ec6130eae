"""Processes that are told of each other as torchrun does it, forked from one that has imported torch for all."""

import os
import signal
import sys

import torch
from torch import distributed


def together(size, work):
    """Call `work(rank)` in each of so many processes; raises if one of them fails."""
    torch.set_num_threads(1)
    meeting, port = meeting_place()

    def begin(rank):
        where = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        # That is, the store is not this process' own.
        os.environ |= where | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        work(rank)

    children = [os.fork() or sys.exit(begin(rank)) for rank in range(size)]
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    os.kill(meeting, signal.SIGKILL)
    os.waitpid(meeting, 0)
    assert not failed, f"{len(failed)} of {size} processes have failed"


def meeting_place():
    """A process where others meet, as torchrun is one; its number and its port."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(writing, str(store.port).encode())
        signal.pause()
    return process, int(os.read(reading, 10))
