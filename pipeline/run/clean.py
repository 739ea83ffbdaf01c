"""`sam4em clean`: remove what was only needed on the way, once the result is known to be whole."""

from __future__ import annotations

from pipeline.errors import ConfigError
from pipeline.ledger import Lease, ObjectStore, read_state, write_state
from pipeline.run.places import Places


def clean_run(store: ObjectStore, places: Places) -> None:
    """Remove the intermediates of a run that was verified.

    Raises:
        ConfigError: the run was not verified yet.
        RunLocked: a driver is at work.
    """
    with Lease(store):
        state = read_state(store)
        if not state.verified:
            raise ConfigError(
                "cleaning the run: it was not verified, and what clean removes could not be made again; give "
                "`sam4em verify` first"
            )
        state.cleaned = True
        write_state(store, state)
        places.delete_intermediates()
