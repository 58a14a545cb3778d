"""How many examples a property test draws, and whether they are the same ones every time.

The suite draws the same examples on every machine. `scripts/property` sets FINEPREF_PROPERTY_FACTOR: that many times as
many examples, with a random seed.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("FINEPREF_PROPERTY_FACTOR", "0"))

settings.register_profile(
    "finepref",
    max_examples=40 * max(FACTOR, 1),
    derandomize=FACTOR == 0,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("finepref")


def examples(count: int) -> settings:
    """Decorator: `count` examples in the suite, FACTOR times as many in a random run."""
    return settings(max_examples=count * max(FACTOR, 1))
