"""A real HTTP S3 endpoint on this machine: moto's server in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3
import pytest

from pipeline.storage import StorageOptions

_KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_it_answers(url, process, limit_s=60):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=2):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"no S3 server at {url} after {limit_s} s")


@pytest.fixture(scope="session")
def s3_endpoint():
    """Address of the server."""
    url = f"http://127.0.0.1:{_free_port()}"
    port = url.rpartition(":")[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | _KEYS,
    )
    try:
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def _bucket(s3_endpoint):
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="volumes")
    client.close()
    return "volumes"


@pytest.fixture
def s3(s3_endpoint, _bucket, monkeypatch, request):
    """A folder of its own on the server, and the options that reach it."""
    for name, value in _KEYS.items():
        monkeypatch.setenv(name, value)
    folder = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return f"s3://{_bucket}/{folder}", StorageOptions(endpoint_url=s3_endpoint, region="us-east-1")
