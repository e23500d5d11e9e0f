"""What a budget of fine-tuning buys: the settings of params.yaml that are `auto` follow from `fine_tune.budget`."""

from typing import Any

# `python -m benchmarks.accuracy` measures what each costs and brings.
BUDGETS: dict[str, dict[str, Any]] = {
    "quick": {"views": 0, "layers": "top", "epochs": 6},
    "balanced": {"views": 4, "layers": "top", "epochs": 10},
    "thorough": {"views": 0, "layers": "all", "epochs": 15},
}
_PLACES = {"cache_features": ["views"], "fine_tune": ["layers", "epochs"]}
AUTO = "auto"


def with_budget(contents: Any) -> Any:
    """Return what params.yaml holds with the values that its budget has in place of `auto`; what is wrong stays so."""
    if not isinstance(contents, dict) or not isinstance(contents.get("fine_tune"), dict):
        return contents
    tuning = contents["fine_tune"]
    buys = BUDGETS.get(str(tuning.get("budget")), BUDGETS["balanced"])
    if tuning.get("mode") == "off":
        buys = buys | {"views": 0}  # they are for fine-tuning, and cost passes
    return contents | {
        section: contents[section] | {key: buys[key] for key in keys if contents[section].get(key) == AUTO}
        for section, keys in _PLACES.items()
        if isinstance(contents.get(section), dict)
    }
