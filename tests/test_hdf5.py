"""HDF5 without its library: what is written is read back, by h5py too; damaged and hostile files are refused."""

import io
import struct

import h5py
import numpy as np
import pytest

from torchfunc.saving.hdf5_format import CHECKSUM, checksum
from torchfunc.saving.hdf5_reading import read_hdf5

ARRAYS = {
    **{f"kinds/{name}/0": np.arange(6).reshape(3, 2).astype(name) for name in ("f2", "f4", "f8", "i1", "u8", "i8")},
    "kinds/bool/0": np.array([True, False]),
    "empty/0": np.zeros((0, 4), "f4"),
    "scalar/0": np.float32(3.5)[()],
    **{f"many/dense_{index}/vars/0": np.full((2,), index, "f4") for index in range(300)},
}


def content_of(arrays, **text):
    """A file of h5py's, whose arrays have the checksum that torchfunc writes."""

    def write(file):
        for path, array in arrays.items():
            file[path] = array
            file[path].attrs[CHECKSUM] = np.bytes_(checksum(np.asarray(array)))
        file.attrs.update(text)

    return written_by_h5py(write)


def read(content):
    return {path: array.read() for path, array in read_hdf5(io.BytesIO(content), "it").walk()}


def written_by_h5py(write, **options):
    file = io.BytesIO()
    with h5py.File(file, "w", **options) as open_file:
        write(open_file)
    return file.getvalue()


def assert_same(found, expected):
    assert set(found) == set(expected)
    for path, array in expected.items():
        assert found[path].dtype == array.dtype
        np.testing.assert_array_equal(found[path], array)


class TestContent:
    def test_is_what_h5py_wrote(self):
        def write(file):
            for path, array in ARRAYS.items():
                file[path] = array
            file["big_endian"] = np.arange(3, dtype=">f4")
            file.attrs["names"] = [b"a", b"bc"]
            file.attrs["text"] = "ä" * 1000
            file.attrs["number"] = 3

        content = written_by_h5py(write)
        assert_same(read(content), {**ARRAYS, "big_endian": np.arange(3, dtype="f4")})
        assert read_hdf5(io.BytesIO(content), "it").text == {"names": ["a", "bc"], "text": "ä" * 1000}

    def test_a_group_whose_tree_has_several_levels(self):
        arrays = {f"dense_{index}": np.float32(index)[()] for index in range(2000)}
        assert read(written_by_h5py(lambda file: file.update(arrays))) == arrays


def _external_link(file):
    file["a"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft_link(file):
    file["b"] = np.ones(2)
    file["a"] = h5py.SoftLink("/b")


def _two_names(file):
    file["a"] = np.ones(2)
    file["b"] = file["a"]


def _circle(file):
    file.create_group("a/b")
    file["a/b/c"] = file["a"]


HOSTILE = {
    "an external link": _external_link,
    "a soft link": _soft_link,
    "two names": _two_names,
    "a circle": _circle,
    "values in another file": lambda file: file.create_dataset("a", (4,), "f4", external=[("/etc/passwd", 0, 16)]),
    "huge chunks": lambda file: file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 20,)),
    "a compressed array": lambda file: file.create_dataset("a", data=np.ones(100), compression="gzip"),
    "objects": lambda file: file.create_dataset("a", (3,), h5py.ref_dtype),
    "text": lambda file: file.create_dataset("a", data=["x", "y"]),
    "records": lambda file: file.create_dataset("a", (3,), np.dtype([("x", "f4")])),
    "a named type": lambda file: file.__setitem__("a", np.dtype("f4")),
    "deep nesting": lambda file: file.create_group("/".join("a" * 400)),
    "a name that is too long": lambda file: file.create_group("a" * 5000),
    "values never written": lambda file: file.create_dataset("a", (10,), "f4"),
}


class TestRefused:
    @pytest.mark.parametrize("case", HOSTILE)
    def test_what_keras_does_not_write(self, case):
        with pytest.raises(ValueError, match=r"^it cannot be read: it is damaged, or not written by Keras \(.+\)\.$"):
            read(written_by_h5py(HOSTILE[case]))

    def test_a_virtual_array(self, tmp_path):
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "a", (4,))
        with pytest.raises(ValueError, match="cannot be read"):
            read(written_by_h5py(lambda file: file.create_virtual_dataset("a", layout)))

    def test_the_newer_format(self):
        with pytest.raises(ValueError, match="format"):
            read(written_by_h5py(lambda file: file.create_group("a"), libver="latest"))

    def test_arrays_that_share_bytes(self):
        content = written_by_h5py(lambda file: file.update({"a": np.ones(2000), "b": np.zeros(2000)}))
        content = bytearray(content.replace(struct.pack("<Q", 2000), struct.pack("<Q", 3000)))
        # Where it says of each how long it is, and before that, where.
        length = struct.pack("<Q", 16_000)
        places = [content.index(length), content.rindex(length)]
        for place in places:
            content[place - 8 : place + 8] = content[places[0] - 8 : places[0]] + struct.pack("<Q", 24_000)
        with pytest.raises(ValueError, match="parts of it overlap"):
            read(bytes(content))

    @pytest.mark.parametrize(("options", "name"), [({"compression": "gzip"}, "gzip"), ({"shuffle": True}, "shuffle")])
    def test_filters_are_named(self, options, name):
        with pytest.raises(ValueError, match=f"filtered by {name}"):
            read(written_by_h5py(lambda file: file.create_dataset("a", data=np.ones(100), **options)))

    @pytest.mark.parametrize("shape", [(1 << 62,), (0, 1 << 62), (1 << 32, 1 << 32)])
    def test_huge_shapes(self, shape):
        content = bytearray(content_of({"a": np.ones((3, 5), "f4")}))
        place = content.index(struct.pack("<QQ", 3, 5))
        content[place : place + 16] = struct.pack("<QQ", *(shape if len(shape) == 2 else (shape[0], 5)))
        with pytest.raises(ValueError, match="larger than the file"):
            read(bytes(content))

    @pytest.mark.parametrize("seed", range(10))
    def test_damage_is_found_or_harmless(self, seed):
        """Bits are flipped, parts overwritten or cut off: the arrays are right, or there is a ValueError."""
        rng = np.random.default_rng(seed)
        few = {path: array for path, array in ARRAYS.items() if not path.startswith(("many/dense_1", "many/dense_2"))}
        content = content_of(few, name="it")
        outcomes = set()
        for _ in range(40):
            damaged = bytearray(content)
            kind = rng.integers(3)
            place = int(rng.integers(len(content)))
            if kind == 0:
                damaged[place] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                damaged[place : place + 8] = rng.bytes(8)
            else:
                del damaged[place:]
            try:
                found = read(bytes(damaged))
            except ValueError as error:
                outcomes.add(f"refused: {str(error)[:3]}")
            else:
                outcomes.add("read")
                assert all(np.array_equal(few[path], array) for path, array in found.items() if path in few)
        assert outcomes == {"refused: it ", "read"}
