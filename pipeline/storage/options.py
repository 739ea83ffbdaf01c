"""How to reach a store: one object for both libraries that move bytes.

fsspec carries zarr, TIFF, HDF5 and small objects; cloud-files carries precomputed. Only the *source* of
credentials is kept here, so the object may be written to a manifest or sent to a worker.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError

_PROFILE = "profile:"


@dataclass(frozen=True)
class StorageOptions:
    """Endpoint, region and source of credentials; the default suits local disks and the public clouds."""

    endpoint_url: str | None = None
    """Address of an S3-compatible service, e.g. `http://127.0.0.1:9000`; None is the provider's own."""
    region: str | None = None
    """Region of the S3 service; None lets the environment decide."""
    credentials: str = "environment"
    """`environment`, `anonymous` or `profile:NAME`. Never a key or a secret."""
    timeout_s: float = 60.0
    """S3 through fsspec: an answer that takes longer counts as lost and is asked for again."""

    def __post_init__(self) -> None:
        """Refuse unknown sources of credentials.

        Raises:
            ConfigError: `credentials` is none of the three forms.
        """
        if self.credentials in ("environment", "anonymous"):
            return
        if not self.credentials.startswith(_PROFILE) or len(self.credentials) == len(_PROFILE):
            raise ConfigError(
                f"storage credentials {self.credentials!r} are not known; give environment, anonymous or profile:NAME"
            )

    @property
    def profile(self) -> str | None:
        """Name of the AWS profile, or None."""
        return self.credentials[len(_PROFILE) :] if self.credentials.startswith(_PROFILE) else None

    @property
    def is_anonymous(self) -> bool:
        """Whether requests go out unsigned."""
        return self.credentials == "anonymous"

    def fsspec_options(self, scheme: str) -> dict[str, Any]:
        """Give the keyword arguments of the fsspec file system for a URL scheme.

        Raises:
            ConfigError: the scheme cannot use a profile.
        """
        if scheme == "s3":
            return self._s3_options()
        if scheme in ("gs", "gcs"):
            if self.profile is not None:
                raise ConfigError("gs:// takes no AWS profile; set credentials to environment or anonymous")
            options: dict[str, Any] = {"use_listings_cache": False}
            return options | ({"token": "anon"} if self.is_anonymous else {})
        return {}

    def _s3_options(self) -> dict[str, Any]:
        """Give the keyword arguments of s3fs."""
        timeouts = {"connect_timeout": self.timeout_s, "read_timeout": self.timeout_s}
        options: dict[str, Any] = {
            "anon": self.is_anonymous,
            "use_listings_cache": False,
            "config_kwargs": timeouts,
            # More than one makes s3fs ask for an object's size before it reads it, and list the folder where there is
            # none: twice the requests, and a listing per empty chunk. Workers read in parallel anyway.
            "max_concurrency": 1,
        }
        client = {"region_name": self.region} if self.region else {}
        if self.endpoint_url:
            options["endpoint_url"] = self.endpoint_url
        if self.profile is not None:
            options["profile"] = self.profile
        return options | ({"client_kwargs": client} if client else {})

    def cloudfiles_secrets(self, scheme: str) -> dict[str, str] | None:
        """Give the `secrets` of cloud-files for a URL scheme, read now from their source.

        cloud-files 6.4 indexes AWS_SESSION_TOKEN in the environment unconditionally, and knows no profiles.

        Raises:
            ConfigError: the profile does not exist, or holds no credentials.
        """
        if scheme != "s3":
            return None
        region = {"AWS_DEFAULT_REGION": self.region} if self.region else {}
        if self.is_anonymous:
            raise ConfigError(
                "precomputed on s3:// cannot be read without credentials; "
                "use its https:// address, or set credentials to environment"
            )
        if self.profile is not None:
            return _profile_secrets(self.profile) | region
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION")
        return {name: os.environ[name] for name in names if os.environ.get(name)} | region


def _profile_secrets(profile: str) -> dict[str, str]:
    """Read the keys of an AWS profile."""
    import boto3  # noqa: PLC0415 - only where a profile is used
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        found = boto3.Session(profile_name=profile).get_credentials()
    except BotoCoreError as error:
        raise ConfigError(f"AWS profile {profile!r} cannot be used: {error}") from error
    if found is None:
        raise ConfigError(f"AWS profile {profile!r} holds no credentials")
    secrets = {"AWS_ACCESS_KEY_ID": found.access_key, "AWS_SECRET_ACCESS_KEY": found.secret_key}
    return secrets | ({"AWS_SESSION_TOKEN": found.token} if found.token else {})
