"""Shared trainings in which one process fails, for test_failing_processes.py: `failing_training.py FOLDER`.

Nobody watches over the processes: each has to end by itself. How they ended is printed, a line for each failure.
"""

import os
import signal
import sys

import numpy as np
from shared_training import classifier, table
from together import meeting_place
from torch.utils.data import DataLoader

from torchfunc import callbacks

LIMIT = 300
KINDS = ("raises", "is interrupted", "is killed", "leaves", "has another model", "has other rows", "has bad data")


class Failing(callbacks.Callback):
    """Ends the process in the middle of an epoch."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2 and self.kind == "raises":
            raise KeyError("my own error")
        if batch == 2 and self.kind == "is interrupted":
            os.kill(os.getpid(), signal.SIGINT)
        if batch == 2 and self.kind == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if batch == 2 and self.kind == "leaves":
            sys.exit(3)


def work(folder, rank, port, kind):
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{kind}_{rank}.{name}", os.O_CREAT | os.O_WRONLY), stream)
    # Should it hang, it is ended by the kernel, and the test sees it.
    signal.alarm(LIMIT)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    fails = rank == 1
    x, y = table(40 if not fails or kind != "has other rows" else 36)
    model = classifier()
    if fails and kind == "has another model":
        model = classifier(use_bias=False)
    model.compile("adam", "sparse_categorical_crossentropy")
    given = Failing(kind if fails else None)
    if kind == "has bad data":
        rows = [(row, label) for row, label in zip(x, y, strict=True)]
        if fails:
            rows[26] = (np.zeros(3, "float32"), 0)  # of another width, in a batch of this process
        model.fit(DataLoader(rows, 5), callbacks=[given], epochs=50, verbose=0)
    else:
        model.fit(x, y, batch_size=8, epochs=50, callbacks=[given], verbose=0)


def main(folder):
    for kind in KINDS:
        meeting, port = meeting_place()
        children = []
        for rank in range(2):
            child = os.fork()
            if not child:
                work(folder, rank, port, kind)
                sys.exit()
            children.append(child)
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(kind, *ends, sep=",", flush=True)
        os.kill(meeting, signal.SIGKILL)
        os.waitpid(meeting, 0)


if __name__ == "__main__":
    main(sys.argv[1])
