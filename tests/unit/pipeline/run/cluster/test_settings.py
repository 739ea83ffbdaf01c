import os

import pytest

from pipeline.config.clusters import TlsSection
from pipeline.errors import ConfigError
from pipeline.run.cluster.settings import (
    DASK_SETTINGS,
    make_security,
    resources_of,
    settings_as_environment,
    spawning_environment,
    worker_environment,
)


def test_workers_do_not_import_from_where_they_start():
    environment = worker_environment(3)
    assert environment["PYTHONSAFEPATH"] == "1"
    assert {environment[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"3"}


def test_dask_reads_the_settings_from_the_environment_as_they_are():
    from dask.config import collect_env, get

    found = collect_env(settings_as_environment())
    for name, value in DASK_SETTINGS.items():
        assert get(name, config=found) == value


@pytest.mark.parametrize(
    ("group", "groups", "offered"),
    [
        ("gpu", ("gpu", "cpu"), {"device": 2}),
        ("cpu", ("gpu", "cpu"), {"cpu": 4}),
        ("cpu", ("cpu",), {"device": 2}),
        ("gpu", ("gpu",), {"device": 2}),
    ],
)
def test_the_model_goes_to_gpu_workers_and_all_else_to_cpu_workers(group, groups, offered):
    assert resources_of(group, dict.fromkeys(groups), 4) == offered


def test_a_certificate_that_is_not_there(tmp_path):
    (tmp_path / "ca.pem").write_text("a certificate")
    paths = {"ca_file": "ca.pem", "cert_file": "no-cert.pem", "key_file": "key.pem"}
    tls = TlsSection(**{name: str(tmp_path / path) for name, path in paths.items()})
    with pytest.raises(ConfigError, match=r"cluster\.tls\.cert_file: no readable file .*no-cert\.pem"):
        make_security(tls)
    assert make_security(None) is None


def test_certificates_hold_for_every_role(tmp_path):
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text(name)
    tls = TlsSection(**{f"{name}_file": str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")})
    security = make_security(tls)
    assert security.require_encryption
    for role in ("client", "worker", "scheduler"):
        found = security.get_tls_config_for_role(role)
        assert (found["ca_file"], found["cert"], found["key"]) == (tls.ca_file, tls.cert_file, tls.key_file)


def test_what_the_shell_or_an_earlier_run_set_does_not_reach_the_workers_and_comes_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with spawning_environment(3) as environment:
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == environment["OMP_NUM_THREADS"] == "3"
        os.environ["PYTHONHASHSEED"] = "6640"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert os.environ.get("PYTHONHASHSEED") != "6640"
