"""utils.get_file: the cache, the hash, downloads that fail, archives that are none of our friends."""

import functools
import hashlib
import http.server
import io
import os
import pathlib
import tarfile
import threading
import zipfile

import keras
import pytest

from torchfunc.utils import get_file

CONTENT = b"some bytes\n" * 20000
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; "cut" is promised longer than it is."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path != "/cut":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) + 5))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "data.txt").write_bytes(CONTENT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as found:
        found.folder, found.asked = folder, []
        found.url = f"http://127.0.0.1:{found.server_port}/"
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_is_downloaded_once(server, cache):
    path = get_file("own.txt", server.url + "data.txt?version=1", file_hash=SHA256)
    assert path == str(cache / "datasets" / "own.txt")
    assert (cache / "datasets" / "own.txt").read_bytes() == CONTENT
    assert get_file("own.txt", server.url + "data.txt", file_hash=SHA256.upper()) == path
    assert get_file("own.txt", server.url + "data.txt", md5_hash=MD5) == path
    assert get_file("own.txt", server.url + "data.txt") == path
    assert len(server.asked) == 1
    get_file("own.txt", server.url + "data.txt", force_download=True)
    assert len(server.asked) == 2
    assert get_file(origin=server.url + "data.txt?version=1", cache_subdir="a/b") == str(cache / "a" / "b" / "data.txt")


def test_the_cache_may_be_elsewhere(server, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert get_file(origin=server.url + "data.txt") == str(tmp_path / "home" / ".keras" / "datasets" / "data.txt")
    given = get_file(origin=server.url + "data.txt", cache_dir=tmp_path / "mine", cache_subdir="")
    assert given == str(tmp_path / "mine" / "data.txt")
    absolute = get_file(origin=server.url + "data.txt", cache_subdir=str(tmp_path / "absolute"))
    assert absolute == str(tmp_path / "absolute" / "data.txt")


def test_a_file_with_another_hash_is_downloaded_again(server, cache, capsys):
    path = cache / "datasets" / "data.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of i")
    assert get_file(origin=server.url + "data.txt", file_hash=MD5) == str(path)
    assert path.read_bytes() == CONTENT
    assert "its hash is not" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "hashes", "error", "message"),
    [
        ("cut", {}, OSError, rf"received {len(CONTENT)} of the {len(CONTENT) + 5} bytes"),
        ("missing", {}, OSError, "cannot download .*missing: 404"),
        ("data.txt", {"file_hash": "0" * 64}, ValueError, f"sha256 of .*data.txt is {SHA256}, not 0000"),
        ("data.txt", {"file_hash": "0" * 32}, ValueError, f"md5 of .*data.txt is {MD5}, not 0000"),
        ("data.txt", {"file_hash": MD5, "hash_algorithm": "sha256"}, ValueError, f"is {SHA256}, not"),
    ],
)
def test_a_download_that_fails_leaves_what_was_there(name, hashes, error, message, server, cache):
    with pytest.raises(error, match=message):
        get_file("x", server.url + name, **hashes)
    assert list((cache / "datasets").iterdir()) == []
    (cache / "datasets" / "x").write_bytes(b"old")
    with pytest.raises(error, match=message):
        get_file("x", server.url + name, force_download=True, **hashes)
    assert [(path.name, path.read_bytes()) for path in (cache / "datasets").iterdir()] == [("x", b"old")]


def test_nobody_answers(cache):
    with pytest.raises(OSError, match=r"cannot download http://127\.0\.0\.1:1/x"):
        get_file(origin="http://127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs origin"),
        ({"origin": "http://127.0.0.1:1/"}, "no file name at the end"),
        ({"origin": "http://127.0.0.1:1/x", "fname": "a/b"}, "without a folder, got 'a/b'"),
        ({"origin": "http://127.0.0.1:1/x", "fname": ".."}, r"without a folder, got '\.\.'"),
        ({"origin": "http://127.0.0.1:1/x", "hash_algorithm": "crc"}, "hash_algorithm, got 'crc'"),
        ({"origin": "http://127.0.0.1:1/x", "archive_format": "rar", "extract": True}, "archive_format, got 'rar'"),
        ({"origin": "unheard:x"}, "unknown url type|cannot download"),
    ],
)
def test_arguments_that_are_wrong(arguments, message, cache):
    with pytest.raises((ValueError, OSError), match=message):
        get_file(**arguments)
    assert not cache.exists() or [each for each in cache.rglob("*") if each.is_file()] == []


def _tar(path, members, mode="w"):
    """A tar archive; a member is its content, or the changes to its TarInfo."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                tar.addfile(info)


def _zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)


FILES = [("top/a.txt", b"aaa"), ("top/deep/b.txt", b"bb")]
MAKERS = {
    "a.tar": _tar,
    "a.tar.gz": functools.partial(_tar, mode="w:gz"),
    "a.tbz": functools.partial(_tar, mode="w:bz2"),
    "a.zip": _zip,
}


def _tree(folder):
    return {
        os.path.relpath(os.path.join(at, name), folder): pathlib.Path(at, name).read_bytes()
        for at, _, names in os.walk(folder)
        for name in names
    }


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("fname", [None, "set", "set.tar.gz"])
def test_archives_are_unpacked_where_keras_unpacks_them(name, fname, server, tmp_path, monkeypatch):
    MAKERS[name](server.folder / name, FILES)
    for each in ("ours", "theirs"):
        (tmp_path / each).mkdir()
    ours = get_file(fname, server.url + name, extract=True, cache_dir=tmp_path / "ours")
    theirs = keras.utils.get_file(fname, server.url + name, extract=True, cache_dir=str(tmp_path / "theirs"))
    assert os.path.relpath(ours, tmp_path / "ours") == os.path.relpath(theirs, tmp_path / "theirs")
    assert _tree(tmp_path / "ours") == _tree(tmp_path / "theirs")
    # What one has downloaded, the other takes.
    asked = len(server.asked)
    assert get_file(fname, server.url + name, extract=True, cache_dir=tmp_path / "theirs") == str(theirs)
    assert keras.utils.get_file(fname, server.url + name, extract=True, cache_dir=str(tmp_path / "ours")) == ours
    assert len(server.asked) == asked


def test_what_is_missing_in_the_folder_is_unpacked_again(server, cache):
    _tar(server.folder / "a.tar", FILES)
    folder = get_file("set", server.url + "a.tar", untar=True)
    os.remove(os.path.join(folder, "top", "a.txt"))
    pathlib.Path(folder, "top", "deep", "b.txt").write_bytes(b"b")
    pathlib.Path(folder, "own").write_bytes(b"notes")
    assert get_file("set", server.url + "a.tar", untar=True) == folder
    assert _tree(folder) == {"top/a.txt": b"aaa", "top/deep/b.txt": b"bb", "own": b"notes"}
    _tar(server.folder / "a.tar", [("top/a.txt", b"new")])
    get_file("set", server.url + "a.tar", untar=True, force_download=True)
    assert _tree(folder)["top/a.txt"] == b"new"


def test_links_within_an_archive_become_copies(server, cache):
    links = [
        ("top/soft", {"type": tarfile.SYMTYPE, "linkname": "deep/b.txt"}),
        ("top/hard", {"type": tarfile.LNKTYPE, "linkname": "top/a.txt"}),
        ("top/deep/again", {"type": tarfile.SYMTYPE, "linkname": "../soft"}),
    ]
    _tar(server.folder / "a.tar", [*FILES, *links])
    folder = get_file("set", server.url + "a.tar", extract=True)
    assert _tree(folder) == {**dict(FILES), "top/soft": b"bb", "top/hard": b"aaa", "top/deep/again": b"bb"}
    assert not any(os.path.islink(os.path.join(folder, name)) for name in _tree(folder))


OUTSIDE = [("../outside", b"x"), ("a/../../outside", b"x"), ("/tmp/torchfunc_outside", b"x")]


@pytest.mark.parametrize(
    ("make", "member"),
    [
        *((_zip, member) for member in OUTSIDE),
        *((_tar, member) for member in OUTSIDE),
        (_tar, ("a", {"type": tarfile.SYMTYPE, "linkname": "../../secret"})),
        (_tar, ("a", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})),
        (_tar, ("a", {"type": tarfile.LNKTYPE, "linkname": "../secret"})),
        (_tar, ("a", {"type": tarfile.SYMTYPE, "linkname": "a"})),
        (_tar, ("a", {"type": tarfile.SYMTYPE, "linkname": "nothing"})),
        (_tar, ("a", {"type": tarfile.SYMTYPE, "linkname": "."})),
        (_tar, ("a", {"type": tarfile.FIFOTYPE})),
        (_tar, ("a", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    ],
)
def test_archives_that_reach_out_are_refused_as_a_whole(make, member, server, cache):
    (cache / "datasets").mkdir(parents=True)
    (cache / "secret").write_bytes(b"secret")
    make(server.folder / "a", [*FILES, member])
    with pytest.raises(ValueError, match=r"cannot be unpacked: its member '.*' (would be outside|is a link|is)"):
        get_file("set", server.url + "a", extract=True)
    assert sorted(_tree(cache)) == ["datasets/set_archive", "secret"]
    assert not os.path.exists("/tmp/torchfunc_outside")


def test_a_link_that_was_there_before_is_not_followed(server, cache, tmp_path):
    _tar(server.folder / "a.tar", FILES)
    (cache / "datasets" / "set").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (cache / "datasets" / "set" / "top").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="a link in that folder leads out of it"):
        get_file("set", server.url + "a.tar", extract=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("formats", ["auto", "zip", [], None])
def test_a_file_that_is_no_archive(formats, server, cache):
    with pytest.raises(ValueError, match=r"data.txt_archive cannot be unpacked: it is no archive of the formats"):
        get_file(origin=server.url + "data.txt", extract=True, archive_format=formats)


def test_an_archive_that_is_damaged(server, cache):
    MAKERS["a.tar.gz"](server.folder / "a", [("b", os.urandom(20000))])
    whole = (server.folder / "a").read_bytes()
    (server.folder / "a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be unpacked, it is damaged"):
        get_file("set", server.url + "a", extract=True)


def test_two_threads_download_one_file(server, cache):
    threads = [threading.Thread(target=get_file, args=("x", server.url + "data.txt")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(path.name, path.read_bytes()) for path in (cache / "datasets").iterdir()] == [("x", CONTENT)]
