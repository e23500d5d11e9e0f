"""Retrain: from the raw photos to a promoted ONNX model.

Each line of the flow is one stage of dvc.yaml, in the same order. What is already up to date is skipped. What every run
needs besides is in `flows.run`.

    regraft retrain                 reports to the server of `regraft serve`, if it runs
    regraft retrain --no-promote    leave production as it is
    regraft retrain --commit        commit what it was made from, and the verdict
"""

from flows.promote import promote_model, record_data, write_report
from flows.run import run
from tasks.cache_features import cache_features
from tasks.check_features import check_features
from tasks.choose_base import choose_base
from tasks.evaluate import evaluate
from tasks.export_onnx import export_onnx
from tasks.fine_tune import fine_tune
from tasks.preprocess import preprocess
from tasks.quantise import quantise
from tasks.record_code import record_code
from tasks.step import Outcome
from tasks.train_base import train_base
from tasks.train_head import train_head
from tasks.validate_data import validate_data


@run
def retrain(promote: bool = True, commit: bool = False) -> Outcome | None:
    """Bring every stage up to date; then the new model takes the place of the one in production, or is refused.

    Args:
        promote: Let the gate put the new model into production; without it production stays as it is.
        commit: Commit dvc.lock, the record of the photos and the receipt in git, and push the data to DVC's remote if
            there is one.
    """
    record_data()
    record_code()
    validate_data()
    preprocess()
    cache_features()
    check_features()
    train_head()
    choose_base()
    train_base()
    fine_tune()
    export_onnx()
    quantise()
    evaluate()
    verdict = promote_model() if promote else None
    write_report()
    return verdict
