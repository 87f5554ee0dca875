# SPDX-License-Identifier: MIT
"""One profile for all property tests (the same examples on every run, no time limits), and the usual Ctrl-C."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    # Examples are small as drawn; shrinking a failure would take minutes.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.load_profile("steady")

# A shell starts what runs in the background with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
