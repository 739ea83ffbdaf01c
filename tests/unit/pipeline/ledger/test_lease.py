import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from pipeline.errors import RunLocked
from pipeline.ledger.lease import (
    Lease,
    LeaseRecord,
    current_holder,
    is_gone,
    last_number,
    lease_key,
    process_identity,
    read_lease,
)

ELSEWHERE = LeaseRecord("another-host", 4711, "boot ns 1", 1000.0, 1000.0)


def until(condition, limit_s=5.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def put(store, number, record):
    store.put(lease_key(number), json.dumps(asdict(record)).encode())


def test_a_second_driver_is_refused_and_told_who_holds_it(store):
    with Lease(store), pytest.raises(RunLocked, match=f"process {os.getpid()} on .* holds it"):
        Lease(store).take()
    assert current_holder(store) is None
    with Lease(store) as second:
        assert second.number == 1


def test_of_many_at_once_one_wins(store):
    put(store, 0, replace(ELSEWHERE, released=True))
    barrier, winners, losers = threading.Barrier(7), [], []

    def take():
        lease = Lease(store)
        barrier.wait()
        try:
            winners.append(lease.take())
        except RunLocked as error:
            losers.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(winners), len(losers), last_number(store)) == (1, 6, 1)
    winners[0].release()


def test_a_holder_of_this_machine_that_is_gone_is_replaced_at_once(store):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(child.pid)
    with Lease(store) as lease:
        mine = read_lease(store, lease.number)
    put(store, 1, replace(mine, pid=child.pid, process=identity, beat_s=time.time()))
    assert not is_gone(read_lease(store, 1))
    with pytest.raises(RunLocked, match=f"process {child.pid} "):
        Lease(store).take()
    child.kill()
    child.wait()
    child.stdin.close()
    assert is_gone(read_lease(store, 1))
    with Lease(store) as next_lease:
        assert next_lease.number == 2


def test_another_process_with_the_same_number_is_not_the_holder(store):
    with Lease(store) as lease:
        mine = read_lease(store, lease.number)
        assert not is_gone(mine)
        boot, namespace, _ = mine.process.split()
        assert is_gone(replace(mine, process=f"{boot} {namespace} 1"))
        assert not is_gone(replace(mine, process=f"other {namespace} 1"))


def test_a_fresh_heartbeat_of_another_machine_is_respected(store):
    put(store, 0, ELSEWHERE)
    with pytest.raises(RunLocked, match="4711 on another-host"):
        Lease(store, clock=lambda: 1010.0).take()


def test_an_old_heartbeat_that_does_not_move_is_taken_over(store):
    put(store, 0, ELSEWHERE)
    with Lease(store, heartbeat_s=0.02, clock=lambda: 1100.0) as lease:
        assert lease.number == 1


def test_an_old_heartbeat_that_moves_is_respected(store):
    put(store, 0, ELSEWHERE)
    stop = threading.Event()

    def beat():
        beats = 1
        while not stop.wait(0.01):
            put(store, 0, replace(ELSEWHERE, beats=beats))
            beats += 1

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunLocked, match="heartbeat moves"):
            Lease(store, heartbeat_s=0.3, clock=lambda: 1100.0).take()
    finally:
        stop.set()
        thread.join()


def test_the_heartbeat_beats(store):
    with Lease(store, heartbeat_s=0.01) as lease:
        until(lambda: read_lease(store, 0).beats >= 3)
        lease.check()
    assert read_lease(store, 0).released


def test_a_driver_that_was_replaced_finds_out(store):
    lease = Lease(store, heartbeat_s=0.01).take()
    put(store, 1, ELSEWHERE)

    def is_lost():
        try:
            lease.check()
        except RunLocked as error:
            return "4711 on another-host" in str(error)
        return False

    until(is_lost)
    assert not lease.is_mine()
    lease.release()
    assert not read_lease(store, 0).released


def test_a_store_that_stays_away_costs_the_lease(store):
    lease = Lease(store, heartbeat_s=0.01, stale_s=0.1).take()
    store.is_down = True

    def is_lost():
        try:
            lease.check()
        except RunLocked as error:
            return "no heartbeat could be written" in str(error)
        return False

    until(is_lost)
    lease.release()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 100])
def test_the_last_lease_is_found(store, count):
    for number in range(count):
        put(store, number, ELSEWHERE)
    assert last_number(store) == (count - 1 if count else None)
