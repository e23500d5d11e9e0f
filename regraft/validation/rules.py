"""The expectations about a data folder that params.yaml asks for: the table of rules, with limits and severities."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from regraft.core.config import ValidateData
from regraft.core.setting_types import AtLeast, AtMost
from regraft.validation.limits import Limit
from regraft.validation.rule_table import OF_NAMED_CLASSES, OF_PRODUCTION, ON_LABEL_CONFLICT, RULES, Given, Rule

# A photo that is dropped, although one of its labels is right, is news; who keeps it has decided so.
_SEVERITIES = {"drop": "warn", "keep": "note", "error": "error"}


def build_rules(
    settings: ValidateData,
    former_classes: Sequence[str] | None = None,
    calibrated: Mapping[str, Limit] | None = None,
) -> list[Rule]:
    """Return the suite that the section `validate_data` of params.yaml asks for, without what is switched off.

    Args:
        settings: limits and severities.
        former_classes: of the model in production; without it nothing is compared with its data.
        calibrated: this folder's limits by the name of the rule, from `calibrate`; without it those of params.yaml.
    """
    left_out = (OF_NAMED_CLASSES if settings.classes is None else set()) | (
        OF_PRODUCTION if former_classes is None else set()
    )
    classes = {Given.CLASSES: list(settings.classes or ()), Given.FORMER_CLASSES: list(former_classes or ())}
    rules = [
        _for_conflicts(rule, settings)
        if rule.name == "one_label_per_image"
        else _filled(rule, getattr(settings, rule.name), classes, (calibrated or {}).get(rule.name))
        for rule in RULES
        if rule.name not in left_out
    ]
    return [rule for rule in rules if rule.severity != "off"]


def limits_of(settings: ValidateData) -> dict[str, tuple[float | None, float | None]]:
    """Return the lowest and highest value that a photo should have, by column of the table of images."""
    return {
        "brightness": (settings.bright_enough.min, settings.not_too_bright.max),
        "contrast": (settings.enough_contrast.min, None),
        "sharpness": (settings.sharp_enough.min, None),
        "entropy": (settings.enough_information.min, None),
        "shorter_side": (settings.large_enough_images.min, None),
        "aspect_ratio": (None, settings.usual_shape.max),
    }


def _for_conflicts(rule: Rule, settings: ValidateData) -> Rule:
    choice = settings.on_label_conflict
    return replace(rule, severity=_SEVERITIES[choice], advice=ON_LABEL_CONFLICT[choice])


def _filled(rule: Rule, setting: object, classes: Mapping[Given, list[str]], calibrated: Limit | None) -> Rule:
    """The rule with its severity and limit, in its arguments and its words."""
    values: dict[Given, object] = dict(classes)
    expected, note = rule.expected, ""
    if isinstance(setting, AtLeast | AtMost):
        wanted, severity = setting.min if isinstance(setting, AtLeast) else setting.max, setting.severity
        limit = calibrated.value if calibrated else wanted
        values |= {Given.LIMIT: limit, Given.REST: 1 - limit}
        expected = expected.format(limit=wanted)
        if limit != wanted:
            side = "below" if isinstance(setting, AtLeast) else "above"
            expected += f"; only {side} {limit:.3g} is it unusual among these photos"
            note = calibrated.note if calibrated else ""
    else:
        severity = setting
    arguments = {name: values[value] if isinstance(value, Given) else value for name, value in rule.arguments.items()}
    return replace(rule, severity=severity, expected=expected, arguments=arguments, note=note)
