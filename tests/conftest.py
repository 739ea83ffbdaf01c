"""Settings of the whole suite: property tests have no deadline, since a busy machine is no counterexample."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "sam4em",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("sam4em")
