"""Small objects on a local disk and in memory."""

import errno
import os
import threading
import uuid
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, OurError, StoreFull, VolumeNotFound
from pipeline.storage import ObjectStore, get_or_none


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return ObjectStore(str(tmp_path / "o") if request.param == "file" else f"memory://{uuid.uuid4().hex}/o")


def test_put_get_replace_delete(store):
    assert not store.exists("a/b.npz")
    store.put("a/b.npz", b"one")
    store.put("a/b.npz", b"two")
    assert store.exists("a/b.npz")
    assert not store.exists("a")
    assert store.get("a/b.npz") == b"two"
    store.delete("a/b.npz")
    store.delete("a/b.npz")
    assert get_or_none(store, "a/b.npz") is None


def test_missing_objects_are_named(store):
    with pytest.raises(VolumeNotFound, match="faces/7"):
        store.get("faces/7")


def test_put_if_absent_has_one_winner(store):
    wins = []

    def race(number):
        if store.put_if_absent("lease", str(number).encode()):
            wins.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.get("lease") == str(wins[0]).encode()


def test_delete_prefix_removes_that_folder_alone(store):
    for key in ("a/1", "a/b/2", "ab/3"):
        store.put(key, b"x")
    store.delete_prefix("a")
    store.delete_prefix("a")
    assert not store.exists("a/1")
    assert not store.exists("a/b/2")
    assert store.exists("ab/3")


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b", "a//b", ".", "a\\b", "a b", "a\n", "./a"])
def test_keys_cannot_leave_the_store(store, key):
    for call in (store.get, store.exists, store.delete, store.delete_prefix, lambda k: store.put(k, b"")):
        with pytest.raises(OurError, match="key"):
            call(key)


def test_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "f").write_text("stays")
    store = ObjectStore(str(tmp_path / "o"))
    store.put("a/1", b"x")
    (tmp_path / "o" / "a" / "link").symlink_to(tmp_path / "mine")
    store.delete_prefix("a")
    assert (tmp_path / "mine" / "f").read_text() == "stays"
    assert not (tmp_path / "o" / "a").exists()


def test_a_full_disk_leaves_the_old_object_and_no_litter(tmp_path, monkeypatch):
    store = ObjectStore(str(tmp_path / "o"))
    store.put("k", b"old")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_bytes", full)
    for call in (store.put, store.put_if_absent):
        with pytest.raises(StoreFull, match="no space is left"):
            call("k", b"new")
    monkeypatch.undo()
    assert store.get("k") == b"old"
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["k"]


def test_disks_without_hard_links_still_have_one_winner(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", no_links)
    store = ObjectStore(str(tmp_path / "o"))
    assert store.put_if_absent("k", b"1")
    assert not store.put_if_absent("k", b"2")
    assert store.get("k") == b"1"


def test_https_cannot_be_written():
    with pytest.raises(ConfigError, match="only be read"):
        ObjectStore("https://h/o").put("k", b"")
