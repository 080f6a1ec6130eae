"""Run by itself, where torchfunc cannot be imported: loads each source in a folder and compares it with what it was.

`python plain_runner.py FOLDER` prints, as JSON, what went wrong by the name of the file.
"""

import importlib.util
import json
import pathlib
import sys
import traceback

import torch


class Absent:
    """Finds torchfunc nowhere."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchfunc":
            raise ImportError(f"{name} is not there")


def check(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    file = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = file
    spec.loader.exec_module(file)
    module = getattr(file, file.__all__[0])()
    case = torch.load(path.with_suffix(".pt"))
    for training, (outputs, after) in case["expected"].items():
        module.load_state_dict(case["state"])
        module.train(training)
        torch.manual_seed(1)
        torch.testing.assert_close(module(*case["inputs"]), outputs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(dict(module.state_dict()), after, rtol=1e-4, atol=1e-5)


def main(folder):
    sys.meta_path.insert(0, Absent())
    failures = {}
    for path in sorted(pathlib.Path(folder).glob("*.py")):
        try:
            check(path)
        except Exception:  # noqa: BLE001
            failures[path.name] = traceback.format_exc()
    print(json.dumps(failures))


if __name__ == "__main__":
    main(sys.argv[1])
