"""Storage options."""

import pytest

from pipeline.errors import ConfigError
from pipeline.storage import StorageOptions


@pytest.mark.parametrize("source", ["", "profile:", "AKIA123", "secret"])
def test_only_sources_are_accepted(source):
    with pytest.raises(ConfigError, match="environment, anonymous or profile:NAME"):
        StorageOptions(credentials=source)


def test_s3_reaches_endpoint_region_and_profile():
    options = StorageOptions("http://h:9", "eu-1", "profile:lab").fsspec_options("s3")
    assert options["endpoint_url"] == "http://h:9"
    assert options["profile"] == "lab"
    assert options["client_kwargs"] == {"region_name": "eu-1"}
    assert options["config_kwargs"]["read_timeout"] == 60.0
    assert options["max_concurrency"] == 1
    assert not options["anon"]


def test_anonymous_s3_and_gs():
    anonymous = StorageOptions(credentials="anonymous")
    assert anonymous.fsspec_options("s3")["anon"]
    assert anonymous.fsspec_options("gs")["token"].startswith("anon")
    assert anonymous.fsspec_options("file") == {}
    with pytest.raises(ConfigError, match="https"):
        anonymous.cloudfiles_secrets("s3")
    with pytest.raises(ConfigError, match="profile"):
        StorageOptions(credentials="profile:x").fsspec_options("gs")


def test_cloudfiles_secrets_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    secrets = StorageOptions(region="r").cloudfiles_secrets("s3")
    assert secrets == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "r"}
    assert StorageOptions().cloudfiles_secrets("file") is None


def test_profiles_feed_cloudfiles(monkeypatch, tmp_path):
    file = tmp_path / "credentials"
    file.write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b\naws_session_token = c\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    secrets = StorageOptions(credentials="profile:lab").cloudfiles_secrets("s3")
    assert secrets == {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    with pytest.raises(ConfigError, match="nobody"):
        StorageOptions(credentials="profile:nobody").cloudfiles_secrets("s3")
