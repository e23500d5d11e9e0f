"""The order of the stages, the schedule, and what happens on failure."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in tasks/__init__.py, which not every command imports
