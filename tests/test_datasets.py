"""datasets: what Keras reads of the same files in the same cache."""

import gzip
import hashlib
import json
import os
import pickle
import pickletools
import tarfile

import keras
import numpy as np
import pytest

from torchfunc import config, datasets
from torchfunc.datasets import files

RNG = np.random.default_rng(0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of made-up files, which are right for Keras and for us whatever their hashes."""
    (tmp_path / "datasets" / "fashion-mnist").mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setattr(keras.src.utils.file_utils, "validate_file", lambda *args, **kwargs: True)
    monkeypatch.setattr(files, "FILES", {key: file._replace(hash=None) for key, file in files.FILES.items()})
    return tmp_path / "datasets"


def _same(ours, theirs):
    assert [type(part) for part in ours] == [tuple, tuple]
    for mine, reference in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        assert (mine.dtype, mine.shape) == (reference.dtype, reference.shape)
        assert mine.tolist() == reference.tolist()


def _images(count, *shape):
    return RNG.integers(0, 256, size=(count, *shape), dtype=np.uint8)


def test_mnist(cache):
    arrays = {"x_train": _images(7, 28, 28), "y_train": _images(7), "x_test": _images(3, 28, 28), "y_test": _images(3)}
    np.savez(cache / "mnist.npz", **arrays)
    ours = datasets.mnist.load_data()
    _same(ours, keras.datasets.mnist.load_data())
    assert np.array_equal(ours[0][0], arrays["x_train"])


def test_fashion_mnist(cache):
    for part, count in (("train", 6), ("t10k", 4)):
        for name, header, values in (("images-idx3", 16, _images(count, 28, 28)), ("labels-idx1", 8, _images(count))):
            with gzip.open(cache / "fashion-mnist" / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + values.tobytes())
    _same(datasets.fashion_mnist.load_data(), keras.datasets.fashion_mnist.load_data())


def _python_2_pickle(value):
    """Whose strings were bytes."""
    found = bytearray(pickle.dumps(value, protocol=3))
    for opcode, _, position in pickletools.genops(bytes(found)):
        if opcode.name in ("SHORT_BINBYTES", "BINBYTES"):
            found[position : position + 1] = {"SHORT_BINBYTES": b"U", "BINBYTES": b"T"}[opcode.name]
    return bytes(found)


def _cifar(path, folder, batches, *labels):
    """An archive of pickles as Python 2 wrote them, with byte strings for keys."""
    (path / folder).mkdir()
    with tarfile.open(path / f"{folder}-target_archive", "w:gz") as tar:
        for name, count in batches.items():
            batch = {
                b"data": _images(count, 3072),
                **{label: RNG.integers(0, 9, size=count).tolist() for label in labels},
            }
            (path / folder / name).write_bytes(_python_2_pickle(batch))
            tar.add(path / folder / name, f"{folder}/{name}")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_cifar100(cache, data_format):
    _cifar(cache, "cifar-100-python", {"train": 5, "test": 3}, b"fine_labels", b"coarse_labels")
    for package in (config, keras.config):
        package.set_image_data_format(data_format)
    try:
        ours = [datasets.cifar100.load_data(), datasets.cifar100.load_data("coarse")]
        theirs = [keras.datasets.cifar100.load_data(), keras.datasets.cifar100.load_data("coarse")]
    finally:
        for package in (config, keras.config):
            package.set_image_data_format("channels_last")
    for mine, reference in zip(ours, theirs, strict=True):
        _same(mine, reference)
    assert ours[0][0][0].shape == ((5, 32, 32, 3) if data_format == "channels_last" else (5, 3, 32, 32))


def test_cifar10(cache):
    # Keras puts a batch of one image into 10,000 places.
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    _cifar(cache, "cifar-10-batches-py", dict.fromkeys(names, 1), b"labels")
    (x_train, y_train), test = keras.datasets.cifar10.load_data()
    _same(datasets.cifar10.load_data(), ((x_train[::10000], y_train[::10000]), test))


@pytest.mark.parametrize("split", [0.0, 0.2, 0.35])
@pytest.mark.parametrize("seed", [113, 1])
def test_houses(cache, split, seed):
    for name, columns in (("boston_housing", 13), ("california_housing", 8)):
        np.savez(cache / f"{name}.npz", x=RNG.normal(size=(701, columns)), y=RNG.normal(size=701).astype("float32"))
        ours, theirs = (getattr(package, name).load_data for package in (datasets, keras.datasets))
        _same(ours(test_split=split, seed=seed), theirs(test_split=split, seed=seed))
    small = {"version": "small", "test_split": split}
    _same(datasets.california_housing.load_data(**small), keras.datasets.california_housing.load_data(**small))


def _texts(count):
    lists = [RNG.integers(1, 30, size=2 + place % 7).tolist() for place in range(count)]
    return np.array(lists, dtype=object)


ARGUMENTS = [
    {},
    {"num_words": 20},
    {"num_words": 25, "skip_top": 6, "seed": 7},
    {"maxlen": 6, "start_char": None},
    {"oov_char": None, "num_words": 20, "skip_top": 4},
    {"start_char": None, "index_from": 0},
    {"start_char": 9, "index_from": 5, "oov_char": 0, "maxlen": 5},
]


@pytest.mark.parametrize("kwargs", ARGUMENTS)
def test_texts(cache, kwargs):
    np.savez(cache / "imdb.npz", x_train=_texts(60), y_train=_images(60), x_test=_texts(40), y_test=_images(40))
    np.savez(cache / "reuters.npz", x=_texts(80), y=RNG.integers(0, 46, size=80))
    _same(datasets.imdb.load_data(**kwargs), keras.datasets.imdb.load_data(**kwargs))
    _same(datasets.reuters.load_data(**kwargs), keras.datasets.reuters.load_data(**kwargs))
    ours, theirs = (each.reuters.load_data(test_split=0.5, **kwargs) for each in (datasets, keras.datasets))
    _same(ours, theirs)


def test_texts_of_one_length_are_lists_all_the_same(cache):
    """(Keras makes a matrix of those.)"""
    texts = np.empty(4, dtype=object)
    texts[:] = [[1, 2]] * 4
    np.savez(cache / "reuters.npz", x=texts, y=np.arange(4))
    (x_train, _), (x_test, _) = datasets.reuters.load_data(num_words=9)
    assert (x_train.shape, x_test.shape) == ((3,), (1,))
    assert x_test[0] == [1, 4, 5]


def test_word_indices(cache):
    for name in ("imdb", "reuters"):
        index = {"the": 1, "à": 2}
        (cache / f"{name}_word_index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
        assert getattr(datasets, name).get_word_index() == index
        assert getattr(keras.datasets, name).get_word_index() == index
    assert datasets.reuters.get_label_names() == keras.datasets.reuters.get_label_names()


def test_what_keras_takes_is_taken():
    """The same arguments and defaults, and the same files with the same hashes."""
    asked = {}

    def remember(owner, fname=None, origin=None, file_hash=None, **kwargs):
        asked.setdefault(owner, []).append((fname, origin, file_hash, *kwargs.items()))
        raise LookupError

    for name in datasets.__all__:
        ours, theirs = getattr(datasets, name), getattr(keras.datasets, name)
        for function in ("load_data", "get_word_index"):
            if hasattr(theirs, function):
                _compare_calls(getattr(ours, function), getattr(theirs, function), remember)
    assert len(asked["ours"]) == 10
    assert asked["ours"] == asked["theirs"]


def _compare_calls(ours, theirs, remember):
    names = ours.__code__.co_varnames[: ours.__code__.co_argcount]
    assert names == theirs.__code__.co_varnames[: theirs.__code__.co_argcount]
    assert ours.__defaults__ == theirs.__defaults__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "get_file", lambda *args, **kwargs: remember("ours", *args, **kwargs))
        patch.setitem(theirs.__globals__, "get_file", lambda *args, **kwargs: remember("theirs", *args, **kwargs))
        for function in (ours, theirs):
            with pytest.raises(LookupError):
                function()


class _Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/torchfunc_was_here",)


@pytest.mark.parametrize("what", ["array", "cifar"])
def test_pickles_that_run_something_are_refused(cache, what):
    if what == "array":
        texts = np.empty(1, dtype=object)
        texts[0] = _Command()
        np.savez(cache / "reuters.npz", x=texts, y=np.arange(1))
        load = datasets.reuters.load_data
    else:
        folder = cache / "cifar-100-python-target" / "cifar-100-python"
        folder.mkdir(parents=True)
        _cifar(cache, "cifar-100-python", {"train": 1}, b"fine_labels")
        bad = cache / "train"
        bad.write_bytes(pickle.dumps({b"data": _Command()}, protocol=3))
        with tarfile.open(cache / "cifar-100-python-target_archive", "w") as tar:
            tar.add(bad, "cifar-100-python/train")
        load = datasets.cifar100.load_data
    with pytest.raises(ValueError, match=r"damaged or dangerous: it asks for posix.system"):
        load()
    assert not os.path.exists("/tmp/torchfunc_was_here")


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: datasets.boston_housing.load_data(test_split=1.0), "below 1 for test_split, got 1.0"),
        (lambda: datasets.california_housing.load_data("tiny"), "for version, got 'tiny'"),
        (lambda: datasets.cifar100.load_data("medium"), "for label_mode, got 'medium'"),
        (lambda: datasets.reuters.load_data(maxlen=1), "no text shorter than maxlen=1"),
    ],
)
def test_arguments_that_are_wrong(cache, load, message):
    np.savez(cache / "reuters.npz", x=_texts(5), y=np.arange(5))
    with pytest.raises(ValueError, match=message):
        load()


def test_a_file_of_the_cache_with_another_hash_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    served = tmp_path / "served.npz"
    np.savez(served, x=np.ones((5, 13)), y=np.ones(5))
    digest = hashlib.sha256(served.read_bytes()).hexdigest()
    monkeypatch.setitem(files.FILES, "boston_housing", files.File(served.as_uri(), digest))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "boston_housing.npz").write_bytes(b"something else")
    (x_train, _), (x_test, _) = datasets.boston_housing.load_data()
    assert (x_train.shape, x_test.shape) == ((4, 13), (1, 13))
