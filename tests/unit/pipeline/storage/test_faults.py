"""Every lower error is mapped by class and errno."""

import errno
import pickle
import zlib

import aiohttp
import botocore.exceptions
import pytest
import requests

from pipeline.errors import (
    ConfigError,
    CorruptData,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    VolumeFormatError,
    VolumeNotFound,
    WorldError,
)
from pipeline.storage.faults import store_faults


def client_error(status):
    return botocore.exceptions.ClientError(
        {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )


def requests_error(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


CASES = [
    (OSError(errno.ENOSPC, "full"), "write", StoreFull),
    (OSError(errno.EDQUOT, "quota"), "write", StoreFull),
    (OSError(errno.EROFS, "ro"), "write", StoreReadOnly),
    (PermissionError(errno.EACCES, "no"), "write", StoreReadOnly),
    (PermissionError("s3fs gives no number"), "write", StoreReadOnly),
    (PermissionError(errno.EACCES, "no"), "read", VolumeNotFound),
    (FileNotFoundError("gone"), "read", VolumeNotFound),
    (NotADirectoryError(errno.ENOTDIR, "file"), "read", VolumeNotFound),
    (OSError(errno.EREMOTEIO, "500"), "read", StoreUnavailable),
    (OSError(errno.EBUSY, "503"), "write", StoreUnavailable),
    (TimeoutError(), "read", StoreUnavailable),
    (ConnectionResetError(errno.ECONNRESET, "reset"), "read", StoreUnavailable),
    (OSError(errno.EINVAL, "odd"), "read", WorldError),
    (aiohttp.ClientPayloadError("short body"), "read", StoreUnavailable),
    (botocore.exceptions.EndpointConnectionError(endpoint_url="u"), "read", StoreUnavailable),
    (botocore.exceptions.ReadTimeoutError(endpoint_url="u"), "read", StoreUnavailable),
    (botocore.exceptions.NoCredentialsError(), "read", ConfigError),
    (client_error(500), "read", StoreUnavailable),
    (client_error(404), "read", VolumeNotFound),
    (client_error(403), "write", StoreReadOnly),
    (requests_error(503), "read", StoreUnavailable),
    (requests_error(404), "read", VolumeNotFound),
    (requests.ConnectionError(), "read", StoreUnavailable),
]


@pytest.mark.parametrize(("error", "mode", "expected"), CASES, ids=lambda v: getattr(v, "__name__", repr(v)[:30]))
def test_transport_faults(error, mode, expected):
    with (
        pytest.raises(WorldError if expected is not ConfigError else ConfigError) as caught,
        store_faults("doing it", mode),
    ):
        raise error
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error
    assert str(caught.value).startswith("doing it: ")
    assert type(pickle.loads(pickle.dumps(caught.value))) is expected  # noqa: S301


@pytest.mark.parametrize("error", [zlib.error("bad"), ValueError("bad"), RuntimeError("bad"), OSError("no number")])
def test_contents_become_what_the_caller_names(error):
    for contents in (CorruptData, VolumeFormatError):
        with pytest.raises(contents), store_faults("reading", contents=contents):
            raise error


def test_transport_goes_before_contents():
    with pytest.raises(StoreUnavailable), store_faults("reading", contents=CorruptData):
        raise TimeoutError


def test_bugs_and_our_own_errors_pass_unchanged():
    with pytest.raises(ZeroDivisionError), store_faults("x"):
        raise ZeroDivisionError
    mine = CorruptData("mine")
    with pytest.raises(CorruptData) as caught, store_faults("x", contents=VolumeFormatError):
        raise mine
    assert caught.value is mine
    with pytest.raises(MemoryError), store_faults("x", contents=CorruptData):
        raise MemoryError
