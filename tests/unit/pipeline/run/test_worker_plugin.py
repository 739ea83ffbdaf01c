from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError, OurError
from pipeline.run import worker_plugin
from pipeline.run.handshake import CodeIdentity, code_identities
from pipeline.run.stream import Task
from pipeline.run.worker_plugin import RoomPlugin, run_on_worker


class Stages:
    """Stages that are never opened."""

    def open(self):
        raise OurError("no room here")


def worker():
    return SimpleNamespace(address="tcp://10.0.0.1:1", plugins={})


def test_a_worker_that_was_not_set_up_does_nothing():
    with pytest.raises(ConfigError, match=r"worker tcp://10\.0\.0\.1:1 is not set up"):
        RoomPlugin(Stages(), code_identities(), "room").run_all([Task("label", 0)], worker().address)


def test_a_worker_with_other_code_does_nothing():
    code = tuple(CodeIdentity(found.package, found.path, "0" * 64) for found in code_identities())
    plugin = RoomPlugin(Stages(), code, "room")
    plugin.setup(worker())
    with pytest.raises(ConfigError, match="comparing code with worker"):
        plugin.run_all([Task("label", 0)], worker().address)
    plugin.teardown(worker())


def test_a_worker_without_the_plugin_is_a_bug(monkeypatch):
    found = worker()
    found.plugins["room"] = object()
    monkeypatch.setattr(worker_plugin, "get_worker", lambda: found)
    with pytest.raises(OurError, match="has no stages under room"):
        run_on_worker("room", "label-0-1", "label", (0,))
