"""How many examples of each property are tried: the same 200 in continuous integration every time, 25 new ones elsewhere."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("short", max_examples=25, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "short")
