"""Addresses."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.storage import StorageOptions
from pipeline.storage.locations import join, local_path, parent, read_bytes, refuse_read_only_scheme, scheme_of


def test_schemes():
    assert scheme_of("a/b") == "file"
    assert scheme_of("s3://b/k") == "s3"
    with pytest.raises(ConfigError, match="ftp"):
        scheme_of("ftp://host/a")


def test_local_paths():
    assert local_path("file:///a/b") == Path("/a/b")
    assert local_path("s3://b/k") is None
    assert local_path("rel").is_absolute()


def test_join_and_parent():
    assert join("s3://b/k/", "0", "c") == "s3://b/k/0/c"
    assert parent("s3://b/k/0") == ("s3://b/k", "0")
    assert parent("s3://b") is None
    assert parent("/a") is None
    assert parent("a") is None


def test_read_bytes_of_nothing_is_none(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    assert read_bytes(str(tmp_path / "f"), StorageOptions()) == b"x"
    assert read_bytes(str(tmp_path / "g"), StorageOptions()) is None
    assert read_bytes(str(tmp_path / "f" / "g"), StorageOptions()) is None
    assert read_bytes(str(tmp_path), StorageOptions()) is None


def test_https_cannot_be_written():
    with pytest.raises(ConfigError, match="only be read"):
        refuse_read_only_scheme("https://h/a")
    refuse_read_only_scheme("s3://b/a")
