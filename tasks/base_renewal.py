"""Who asks for a new base: the gate, after it has refused two models that come from the present one, or a person.

What is asked for is a line of data/base_renewals.csv, which the next run finds (`tasks.choose_base`). The line names
the base. So it is asked for once, and a process that is killed in between loses nothing: the next run asks.
"""

from typing import TYPE_CHECKING

from regraft.core.config import Params
from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import read_json, sha256_of
from regraft.production.exclusive import refreshed
from regraft.production.logs import verdict_log

if TYPE_CHECKING:
    from regraft.photos.base_record import BaseRecord

_REFUSALS = 2  # in a row, of different models


def base_of(params: Params) -> "BaseRecord | None":
    """Return the record of the base that counts; None where there is none, or it is not known."""
    record = _record(params)
    return record if record and len(record.photos) else None


def base_of_model(params: Params) -> "BaseRecord | None":
    """Return the record of the base that models/model.onnx comes from; None where it comes from none.

    Raises:
        RegraftError: that base is not the one that counts any more, or its record is lost.
    """
    paths, record = params.paths, _record(params)
    try:
        export = read_json(paths.reports / "export.json", "sha256", "base")
    except (FileNotFoundError, Damaged):  # from before models said where they come from
        return base_of(params)
    if export["sha256"] == sha256_of(paths.onnx) and (record is None or export["base"] != record.name):
        raise RegraftError(
            f"{paths.onnx} comes from a base whose record is not there: {paths.base_photos} is missing, damaged, or of "
            f"another base, which a run chose that ended before it wrote a model. Which photos the old one saw is not "
            f"known, so none can judge the model. Run `regraft retrain`."
        )
    return record if record and len(record.photos) else None


def _record(params: Params) -> "BaseRecord | None":
    from regraft.photos.base_record import read_base_record  # needs pandas, and most runs ask for nothing

    try:
        return read_base_record(params.paths.base_photos, params.paths.raw)
    except (FileNotFoundError, Damaged):
        return None


def ask_if_gate_refused(params: Params) -> str | None:
    """Ask for a new base if the gate refused two models, once per promotion; return a sentence if that is new.

    Undecided asks for none: where photos are too few to decide, they are as few for the next base.
    """
    looks = [look for look in verdict_log(refreshed(params.paths.production)).read()[0] if look.base]
    # A model that is judged again, on other photos, is no other one: its last verdict counts.
    last = {look.challenger: look for look in looks if look.base == looks[-1].base}
    refused = sorted(last.values(), key=lambda look: look.at)[-_REFUSALS:]
    if len(refused) < _REFUSALS or any(look.name != "Refused" for look in refused):
        return None
    from regraft.production.gate.rule import MIN_PHOTOS

    # With fewer photos than that it compared nothing: a class or a former model is missing, and no base would help.
    if min(look.n for look in refused) < MIN_PHOTOS:
        return None
    base = base_of(params)
    if base is None or base.name != looks[-1].base:
        return None
    from regraft.photos.base_requests import add_request, read_requests
    from regraft.production.records import Records

    # A new base that brought no promotion either will not be helped by another one: it would be renewed for ever.
    changes = [change.at for change in Records(params.paths.production).history() if change.action == "promoted"]
    since = {look.base for look in looks if not changes or look.at > changes[-1]}
    if read_requests(params.paths.renewals).keys() & since:
        return None
    reason = f"the gate refused two models from it, on {' and '.join(look.at[:10] for look in refused)}"
    if not add_request(params.paths.renewals, base.name, reason):
        return None
    return f"The next run renews the base, for {reason}."


def ask_by_hand(params: Params, reason: str) -> str:
    """Ask for a new base because a person wants one, and return a sentence.

    Raises:
        RegraftError: there is no base.
    """
    from regraft.photos.base_requests import add_request

    base = base_of(params)
    if base is None:
        raise RegraftError(
            f"there is no base yet to renew: {params.paths.base_photos} is missing, damaged or empty. Run `regraft "
            f"retrain`, which trains one unless fine_tune.mode is off."
        )
    is_new = add_request(params.paths.renewals, base.name, reason.strip() or "a person wants it")
    words = "the next run renews the base, if any photo or setting has changed since: else it would be the same."
    return words.capitalize() if is_new else f"That was asked for already: {words}"
