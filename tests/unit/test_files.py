"""Atomic writes, links and renames under rivals."""

import errno
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from serl.run.files import fsync_tree, rename_if_absent, sha256, write_atomic, write_if_absent


def at_once(number: int, act: Callable[[int], object]) -> list:
    """The results of `act(0)` to `act(number - 1)`, begun together in threads."""
    gate, results = threading.Barrier(number), [None] * number

    def begin(i: int) -> None:
        gate.wait()
        results[i] = act(i)

    threads = [threading.Thread(target=begin, args=(i,)) for i in range(number)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def test_the_first_of_many_writers_wins_and_no_temporary_file_stays(tmp_path):
    for attempt in range(50):
        path = tmp_path / str(attempt) / "file"
        path.parent.mkdir()
        won = at_once(4, lambda i, path=path: write_if_absent(path, b"%d" % i))
        assert sum(won) == 1
        assert path.read_bytes() == b"%d" % won.index(True)
        assert os.listdir(path.parent) == ["file"]


def _write(path: Path, content: bytes, gate) -> None:
    os.getpid = lambda: 1  # as in a container of its own
    gate.wait()
    write_if_absent(path, content)


def test_writers_with_the_same_process_number_on_two_machines_do_not_share_a_temporary_file(tmp_path):
    """The second used to empty the file that the first was about to name, or had named."""
    fork = multiprocessing.get_context("fork")
    contents = [b"a" * 2_000_000, b"b" * 2_000_000]
    for attempt in range(5):
        gate = fork.Barrier(2)
        rivals = [
            fork.Process(target=_write, args=(tmp_path / str(attempt), content, gate)) for content in contents
        ]
        for p in rivals:
            p.start()
        for p in rivals:
            p.join()
        assert [p.exitcode for p in rivals] == [0, 0]
        assert (tmp_path / str(attempt)).read_bytes() in contents


def test_readers_of_a_file_that_is_replaced_see_old_or_new_content_whole(tmp_path):
    path = tmp_path / "file"
    contents = [b"a" * 100_000, b"b" * 70_000]
    write_atomic(path, contents[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(100):
        write_atomic(path, contents[i % 2])
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["file"]


def test_the_first_finished_folder_keeps_its_name(tmp_path):
    def rival(i: int) -> bool:
        built = tmp_path / f"built-{i}"
        built.mkdir()
        (built / "weights").write_text(str(i))
        return rename_if_absent(built, tmp_path / "policy")

    won = at_once(4, rival)
    assert sum(won) == 1
    assert (tmp_path / "policy/weights").read_text() == str(won.index(True))


def test_a_rename_that_fails_for_another_reason_is_not_mistaken_for_a_rival(tmp_path):
    with pytest.raises(FileNotFoundError):
        rename_if_absent(tmp_path / "missing", tmp_path / "target")
    (tmp_path / "built").mkdir()
    (tmp_path / "target").write_text("a file")
    with pytest.raises(NotADirectoryError):
        rename_if_absent(tmp_path / "built", tmp_path / "target")


@pytest.fixture(params=["anywhere", "into another folder"])
def no_links(request, monkeypatch) -> None:
    """A file system that refuses hard links, as some network file systems and object stores do."""
    real = os.link

    def refuse(source, target):
        if request.param == "anywhere":
            raise OSError(errno.EPERM, "Operation not permitted")
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "link", refuse)


def test_without_hard_links_the_first_of_many_writers_wins_too(tmp_path, no_links):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for attempt in range(30):
        path = tmp_path / str(attempt) / "file"
        path.parent.mkdir()
        won = at_once(4, lambda i, path=path: write_if_absent(path, b"%d" % i, scratch=scratch))
        assert sum(won) == 1
        assert path.read_bytes() == b"%d" % won.index(True)
        assert not write_if_absent(path, b"late") and path.read_bytes() == b"%d" % won.index(True)
        assert [name for name in os.listdir(path.parent) if name.endswith(".tmp")] == []
    assert os.listdir(scratch) == []


def test_what_a_dead_writer_claimed_is_finished_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    path, real = tmp_path / "file", os.replace

    def die(source, target):
        if Path(target) == path:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_if_absent(path, b"first")
    assert not path.exists()
    monkeypatch.setattr(os, "replace", real)
    assert write_if_absent(path, b"second") is False
    assert path.read_bytes() == b"first"


def test_scratch_takes_the_temporary_file(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(PermissionError("links are off")))
    monkeypatch.setattr(os, "unlink", lambda *a: None)
    with pytest.raises(PermissionError):
        write_if_absent(tmp_path / "name", b"x", scratch=scratch)
    assert os.listdir(tmp_path) == ["scratch"]
    assert len(os.listdir(scratch)) == 1


def test_sha256_is_that_of_the_bytes(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_fsync_tree_takes_every_folder_and_file(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "top").touch()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    fsync_tree(tmp_path)
    assert sorted(synced) == sorted(
        str(p) for p in [tmp_path, tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/file", tmp_path / "top"]
    )
