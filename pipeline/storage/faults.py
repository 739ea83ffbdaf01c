"""The one place where other people's exceptions become ours: by class and errno, never by message.

transport   errno, HTTP status, connection classes    -> VolumeNotFound, StoreUnavailable, StoreFull, StoreReadOnly
contents    anything else a decoder raises            -> the class the caller names (CorruptData, VolumeFormatError)
neither                                               -> passes unchanged: it is a bug and must look like one
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pipeline.errors import (
    ConfigError,
    CorruptData,
    Sam4emError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    VolumeNotFound,
    WorldError,
)

Mode = Literal["read", "write"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})
# s3fs turns 500 into EREMOTEIO, 503 into EBUSY and codes it does not know into EIO (s3fs/errors.py).
_UNAVAILABLE = frozenset(
    {
        errno.EIO,
        errno.EBUSY,
        errno.EAGAIN,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.ESTALE,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    }
)

# Classes are looked up in modules that are loaded: an error cannot come from one that is not.
_NETWORK_CLASSES = (
    ("aiohttp.client_exceptions", "ClientError"),
    ("aiohttp.client_exceptions", "ClientResponseError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("botocore.exceptions", "ConnectionError"),
    ("botocore.exceptions", "ClientError"),
    ("google.api_core.exceptions", "GoogleAPICallError"),
    ("google.api_core.exceptions", "RetryError"),
    ("google.auth.exceptions", "TransportError"),
    ("gcsfs.retry", "HttpError"),
    ("requests.exceptions", "RequestException"),
    ("urllib3.exceptions", "HTTPError"),
    ("cloudfiles.exceptions", "IntegrityError"),
)
_CREDENTIAL_CLASSES = (
    ("botocore.exceptions", "NoCredentialsError"),
    ("botocore.exceptions", "PartialCredentialsError"),
    ("google.auth.exceptions", "DefaultCredentialsError"),
    ("cloudfiles.exceptions", "AuthorizationError"),
)


@contextmanager
def store_faults(action: str, mode: Mode = "read", *, contents: type[Sam4emError] | None = None) -> Iterator[None]:
    """Re-raise what a store library raises inside as one of our errors.

    Args:
        action: what is being done, for the message: "reading box 0:1,0:2,0:3 of s3://...".
        mode: decides what a refused permission means.
        contents: class for errors that concern the bytes themselves; None lets them pass.

    Raises:
        WorldError: a subclass by cause; the original is its `__cause__`.
        ConfigError: no credentials were found.
    """
    try:
        yield
    except CorruptData as error:
        if contents is not CorruptData:
            raise
        raise CorruptData(f"{action}: {error}") from error
    except Sam4emError:
        raise
    except Exception as error:
        ours = fault_of(error, action, mode, contents)
        if ours is None:
            raise
        raise ours from error


def fault_of(error: Exception, action: str, mode: Mode, contents: type[Sam4emError] | None) -> Sam4emError | None:
    """Name our error for one of theirs; None where it is neither transport nor contents."""
    found = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return None
    if _is_one_of(error, _CREDENTIAL_CLASSES):
        return ConfigError(f"{action}: no usable credentials ({found}); set storage credentials")
    transport = _of_transport(error, mode)
    if transport is not None:
        return transport(f"{action}: {_mend(transport)} ({found})")
    if contents is not None:
        return contents(f"{action}: the bytes found there cannot be used ({found})")
    return WorldError(f"{action}: {found}") if isinstance(error, OSError) else None


def _of_transport(error: Exception, mode: Mode) -> type[WorldError] | None:
    """Class for faults of disk and network."""
    if _is_one_of(error, _NETWORK_CLASSES):
        return _of_status(_http_status(error), mode)
    if isinstance(error, TimeoutError | ConnectionError):
        return StoreUnavailable
    if isinstance(error, OSError):
        return _of_errno(error, mode)
    return None


def _of_errno(error: OSError, mode: Mode) -> type[WorldError] | None:
    """Class for an operating system's error number; s3fs raises some classes without a number."""
    denied = StoreReadOnly if mode == "write" else VolumeNotFound
    if error.errno in _DENIED or (isinstance(error, PermissionError) and error.errno is None):
        return denied
    if error.errno in _MISSING or isinstance(error, FileNotFoundError):
        return VolumeNotFound
    if error.errno in _FULL:
        return StoreFull
    return StoreUnavailable if error.errno in _UNAVAILABLE else None


def _of_status(status: int | None, mode: Mode) -> type[WorldError]:
    """Class for an HTTP status; none means that no answer came."""
    if status in (401, 403, 405):
        return StoreReadOnly if mode == "write" else VolumeNotFound
    if status in (404, 410):
        return VolumeNotFound
    if status == 507:
        return StoreFull
    return StoreUnavailable


def _http_status(error: Exception) -> int | None:
    """Read the HTTP status that the libraries keep in different places."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif response is not None:
        status = getattr(response, "status_code", None)
    else:
        status = getattr(error, "status", None) or getattr(error, "code", None)
    return int(status) if isinstance(status, int) else None


def _is_one_of(error: Exception, names: tuple[tuple[str, str], ...]) -> bool:
    """Whether the error's class is one of those named, as far as their modules are loaded."""
    classes = [getattr(sys.modules.get(module), name, None) for module, name in names]
    return isinstance(error, tuple(cls for cls in classes if isinstance(cls, type)))


def _mend(kind: type[WorldError]) -> str:
    """Say in words what was found and what would be right."""
    return {
        VolumeNotFound: "nothing readable is there; check the address and the permissions",
        StoreUnavailable: "the store did not answer",
        StoreFull: "no space is left; free some or write elsewhere, then run the same command again",
        StoreReadOnly: "writing is not permitted; choose another output or change the permissions",
        CorruptData: "the bytes do not decode",
    }.get(kind, "the store failed")
