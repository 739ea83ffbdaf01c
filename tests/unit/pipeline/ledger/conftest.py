import threading

import pytest

from pipeline.errors import StoreUnavailable, VolumeNotFound


class MemoryObjects:
    """A store in memory that can be told to fail."""

    def __init__(self):
        self.objects = {}
        self.is_down = False
        self.num_gets = 0
        self._lock = threading.Lock()

    def _answer(self):
        if self.is_down:
            raise StoreUnavailable("the store is down")

    def get(self, key):
        self._answer()
        self.num_gets += 1
        try:
            return self.objects[key]
        except KeyError:
            raise VolumeNotFound(key) from None

    def put(self, key, data):
        self._answer()
        self.objects[key] = bytes(data)

    def put_if_absent(self, key, data):
        self._answer()
        with self._lock:
            if key in self.objects:
                return False
            self.objects[key] = bytes(data)
            return True

    def exists(self, key):
        self._answer()
        return key in self.objects

    def delete(self, key):
        self._answer()
        self.objects.pop(key, None)


@pytest.fixture
def store():
    return MemoryObjects()
