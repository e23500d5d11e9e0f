"""Rank backbones on the user's own photos by the accuracy of a head on their features, and by what they cost.

regraft compare-backbones efficientnet_lite0 MobileNetV2 EfficientNetV2B0

Each runs over the train and val photos once and its features stay in the store: a second comparison costs no forward
pass, and a retraining with the winner only those of test photos and of activations for fine-tuning. The ranking is
printed, is an artifact of the run, and lies in reports/backbones.csv.
"""

import prefect
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from regraft.backbones.ranking import Compared, rank, recommendation, write_ranking
from regraft.params_file import load_params
from regraft.photos.dataset import read_dataset
from tasks.compare_backbones import compare
from tasks.progress import prefect_progress
from tasks.project import enter_project


@prefect.task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name}")
def try_backbone(name: str) -> Compared:
    """Run one backbone over the photos and train a head on its features."""
    params = load_params(enter_project() / "params.yaml")
    with prefect_progress(name) as progress:
        return compare(name, params, progress)


@flow
def compare_backbones(names: list[str]) -> str:
    """Try every backbone, one after the other, and say which to take."""
    ranking = rank([try_backbone(name) for name in names])
    params = load_params(enter_project() / "params.yaml")
    write_ranking(params.paths.reports / "backbones.csv", ranking)
    words = recommendation(ranking, len(read_dataset(params.paths.dataset, params.paths.raw).of("val")))
    create_table_artifact(ranking.astype(str).to_dict("records"), key="backbones", description=words)
    return f"{ranking.drop(columns='problem').round(4).to_string(index=False, na_rep='-')}\n\n{words}"
