"""How many examples of each property are tried: the same 25 in continuous integration every time, 25 new ones elsewhere.

HYPOTHESIS_PROFILE=many tries 1,000 new ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("short", max_examples=25, deadline=None)
settings.register_profile("many", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "short"))
