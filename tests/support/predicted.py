"""What tests of `regraft predict` share."""

import json
from typing import Any

PROMISE = {"abstain_below": 0.5, "target_precision": 0.98, "confidence": 0.95}
NOVELTY = {"novelty_above": 0.6}
PURE = 0.576117  # probability of a pure colour: e / (e + 2)


def rows_of(written: str) -> list[dict[str, Any]]:
    return list(map(json.loads, written.splitlines()))
