"""The sections of the model card on what the model must not be used for, and on what its figures do not say."""

from regraft.files import read_json
from regraft.reports.gate_page import read_gate
from regraft.reports.markdown import cell
from regraft.reports.measured import robustness_of
from regraft.reports.sources import Sources
from regraft.training.parts import FEW, WORSE, read_classes, read_slices

_NAMED = 10
_MUST_NOT = (
    "Photos of something else: the file names one of its classes whatever a photo shows. The output `novelty` is a "
    "hint and no proof.",
    "Photos of several things, or the question of where something is: there is one answer a photo.",
    "Photos that are taken otherwise (another camera, distance, light, place, season), unless it was measured on some.",
    "To find out who a person is, or what somebody feels, thinks, earns or suffers from.",
    "Decisions that weigh on a person or on safety, without somebody who looks at the photo: the figures are shares of "
    "many photos, and promise nothing of a single one.",
    "Counts of how frequent a class is, where that differs from the photos here: mistakes do not cancel out.",
)


def must_not(sources: Sources) -> str:
    """Return what holds for every classifier of this kind, and what was measured of this one."""
    return _bullets([*_MUST_NOT, *_not_measured(sources)])


def factors(sources: Sources) -> str:
    """Return what may make a difference, and whether it was looked at."""
    slices = read_slices(sources.reports / "slices.csv")
    names = list(dict.fromkeys(slices.slice.tolist()))
    if names:
        looked = f"Slices that labels.csv names: {', '.join(map(cell, names))}."
    else:
        looked = (
            "labels.csv names no slices (cameras, places, groups of people), so whether it does worse for some of them "
            "is not known."
        )
    damage = "measured" if robustness_of(sources) else "not measured"
    return _bullets(
        [
            "The class of a photo: see the recall of each below.",
            looked,
            f"The quality of a photo (compression, blur, light, rotation, a part of it only): {damage}.",
        ]
    )


def considerations(sources: Sources, facts: dict[str, str]) -> str:
    """Return what the model may do to people."""
    lines = [
        "The file holds no photo, but its weights follow from them: whether a certain photo was among them can "
        "sometimes be told from a network (membership inference). Treat it as you treat the photos.",
        "A photo that is removed is forgotten by the next training, and by what nights start from only once that is "
        "trained anew (`regraft renew-base`).",
    ]
    if facts.get("backbone_weights_licence", "none") != "none":
        lines.append(
            "The backbone was pretrained on photos that others collected (mostly ImageNet, from the web of the years "
            "around 2010). What it sees well and badly comes from there, and no figure here shows that."
        )
    suspects = len(read_json(sources.reports / "embeddings.json")["label_errors"])
    lines.append(
        f"Labels are those of whoever sorted the photos. Of {suspects} of them the other photos say that they are "
        f"likely wrong (label\\_errors.csv)."
    )
    return _bullets(lines)


def caveats(sources: Sources) -> str:
    """Return what to keep in mind with the figures, and what to do next."""
    test = read_json(sources.reports / "metrics.json")["test"]
    lines = [
        f"With {test['images']} test photos an accuracy of {test['accuracy']:.1%} may be {test['accuracy_low']:.1%} or "
        f"{test['accuracy_high']:.1%}. It holds for photos like these, not for those that come next year."
    ]
    classes = read_classes(sources.reports / "classes.csv")
    if few := classes.class_name[classes.note == FEW].tolist():
        lines.append(f"Too few test photos to tell: {_named(few)}.")
    slices = read_slices(sources.reports / "slices.csv")
    if len(worse := slices[slices.note == WORSE]):
        named = [f"{name} = {value}" for name, value in zip(worse.slice, worse.value, strict=True)]
        lines.append(f"Worse than on the rest, by more than chance: {_named(named)}.")
    gate = read_gate(sources)
    if gate and gate.get("looks_before"):
        lines.append(f"These test photos judged {gate['looks_before']} other model(s) before, which flatters a little.")
    lines += [
        "Before it is used elsewhere: collect a few hundred labelled photos there and look at the same figures.",
        "Once it is in use: `regraft score` says daily whether new photos still look like these.",
    ]
    return _bullets(lines)


def _not_measured(sources: Sources) -> list[str]:
    absent = read_json(sources.reports / "dataset.json")["not_in_test"]
    return (
        [f"Without a look of your own, these classes, of which no test photo was there: {_named(absent)}."]
        if absent
        else []
    )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(cell, names[:_NAMED])) + more


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
