"""Files that are whole whatever happens, and states that come back as they were."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from torchfunc.saving.files import replacing
from torchfunc.saving.states import read_state, write_state
from torchfunc.saving.tensor_files import read_tensors, write_tensors


class TestReplacing:
    def test_a_link_stays_one(self, tmp_path):
        (tmp_path / "disk").mkdir()
        target, link = tmp_path / "disk" / "file", tmp_path / "link"
        target.write_text("old")
        link.symlink_to(target)
        with replacing(link) as file:
            file.write(b"new")
        assert link.is_symlink()
        assert target.read_text() == "new"
        assert sorted(each.name for each in tmp_path.rglob("*")) == ["disk", "file", "link"]

    def test_threads_write_to_one_path(self, tmp_path):
        path = tmp_path / "file"

        def write(text):
            with replacing(path) as file:
                file.write(text.encode())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, ["a" * 1000, "b" * 1000] * 50))
        assert path.read_text() in ("a" * 1000, "b" * 1000)
        assert list(tmp_path.iterdir()) == [path]

    def test_errors_name_the_file(self, tmp_path, monkeypatch):
        with pytest.raises(FileNotFoundError, match=r"nowhere.w.safetensors cannot be written: there is no folder"):
            write_tensors(tmp_path / "nowhere" / "w.safetensors", {"a": torch.zeros(1)})

        def disk_full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match=r"w.safetensors cannot be written: No space left"):
            write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)})
        assert list(tmp_path.iterdir()) == []

    def test_an_error_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")

        def write_half():
            with replacing(path) as file:
                file.write(b"half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_half()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_new_file_appears_when_it_is_whole(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")
        with replacing(path) as file:
            file.write(b"new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_new_file_is_on_the_disk_before_it_takes_the_place(self, tmp_path, monkeypatch):
        path = tmp_path / "state.safetensors"
        write_state(path, 1)
        steps = []
        flush, replace = os.fsync, os.replace

        def noting_replace(source, target):
            steps.append((read_state(target), read_state(source)))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append("flush") or flush(descriptor))
        monkeypatch.setattr(os, "replace", noting_replace)
        write_state(path, 2)
        assert steps[:2] == ["flush", (1, 2)]
        assert read_state(path) == 2


class TestState:
    def test_comes_back_as_it_was(self, tmp_path):
        state = {
            "numbers": [1, 2.5, -0.0, float("inf"), 0.1 + 0.2, 2**70, True, None],
            "text": "ä",
            "tuple": (1, (2, [3])),
            "keys": {0: "a", 1: {"b": ()}},
            "dollar": {"$tensor": "x"},
            "empty": {},
            "number": np.float32(0.1),
        }
        tensors = {
            "int": torch.tensor(2**40),
            "bfloat16": torch.ones(2, 3, dtype=torch.bfloat16),
            "turned": torch.arange(6).view(2, 3).T,
            "none": torch.zeros(0, 2),
        }
        arrays = {"uint32": np.arange(3, dtype="uint32"), "bool": np.array([True, False])}
        path = tmp_path / "state.safetensors"
        write_state(path, {**state, "tensors": tensors, "arrays": arrays})
        found = read_state(path)
        found_tensors, found_arrays = found.pop("tensors"), found.pop("arrays")
        assert repr(found) == repr(state)
        for name, tensor in tensors.items():
            assert torch.equal(found_tensors[name], tensor)
            assert found_tensors[name].dtype == tensor.dtype
        for name, array in arrays.items():
            assert np.array_equal(found_arrays[name], array)
            assert found_arrays[name].dtype == array.dtype

    def test_can_be_read_without_torchfunc(self, tmp_path):
        write_state(tmp_path / "s", {"epoch": 3, "weight": torch.ones(2)})
        _, metadata = read_tensors(tmp_path / "s")
        assert json.loads(metadata["state"]) == {"epoch": 3, "weight": {"$tensor": "state.weight"}}

    @pytest.mark.parametrize("strange", [print, {1.5: 2}, {1, 2}, b"x"])
    def test_what_cannot_be_written(self, strange, tmp_path):
        with pytest.raises(TypeError, match=r"state\.a\.1 is "):
            write_state(tmp_path / "s", {"a": [0, strange]})
        assert list(tmp_path.iterdir()) == []

    def test_a_file_of_tensors_only(self, tmp_path):
        write_tensors(tmp_path / "s", {"a": torch.ones(1)})
        with pytest.raises(ValueError, match="no state"):
            read_state(tmp_path / "s")
