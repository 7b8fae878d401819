"""Settings of the tests of auth."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure: what must be bounded in time says so in a test of its own.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
