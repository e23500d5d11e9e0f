"""Retrain: from the raw photos to a promoted ONNX model.

Each line of the flow is one stage of dvc.yaml, in the same order. What is already up to date is skipped.

    python -m flows.retrain                 with the server of `make ui` if it runs, else with a temporary one
    python -m flows.retrain --no-promote    leave production as it is
"""

import argparse

from prefect import flow
from prefect.client.schemas.objects import State

from flows.promote import leave_with, promote_model, record_data, write_report
from flows.server import connected
from tasks.cache_features import cache_features
from tasks.check_features import check_features
from tasks.evaluate import evaluate
from tasks.export_onnx import export_onnx
from tasks.fine_tune import fine_tune
from tasks.preprocess import preprocess
from tasks.stage import enter_project, readable_errors
from tasks.train_head import train_head
from tasks.validate_data import validate_data


@flow
def retrain(promote: bool = True) -> State | None:
    """Bring every stage up to date; then the new model takes the place of the one in production, or is refused."""
    record_data()
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="From the raw photos to a promoted ONNX model."
    )
    parser.add_argument("--no-promote", dest="promote", action="store_false", help="leave production as it is")
    arguments = parser.parse_args()
    with readable_errors("retrain"), connected():
        enter_project()
        leave_with(retrain(promote=arguments.promote, return_state=True))
