"""Retrain: from the raw photos to a promoted ONNX model.

Each line of the flow is one stage of dvc.yaml, in the same order. What is already up to date is skipped.

    regraft retrain                 with the server of `make ui` if it runs, else with a temporary one
    regraft retrain --no-promote    leave production as it is
"""

from prefect import flow
from prefect.client.schemas.objects import State

from flows.promote import promote_model, record_data, write_report
from tasks.cache_features import cache_features
from tasks.check_features import check_features
from tasks.evaluate import evaluate
from tasks.export_onnx import export_onnx
from tasks.fine_tune import fine_tune
from tasks.preprocess import preprocess
from tasks.record_code import record_code
from tasks.train_head import train_head
from tasks.validate_data import validate_data


@flow
def retrain(promote: bool = True) -> State | None:
    """Bring every stage up to date; then the new model takes the place of the one in production, or is refused."""
    record_data()
    record_code()
    validate_data()
    preprocess()
    cache_features()
    check_features()
    train_head()
    fine_tune()
    export_onnx()
    evaluate()
    state = promote_model() if promote else None
    write_report()
    return state
