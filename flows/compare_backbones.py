"""Rank backbones on the user's own photos by the accuracy of a head on their features, and by what they cost.

regraft backbones --compare efficientnet_lite0 MobileNetV2 EfficientNetV2B0

Each runs over the train and val photos once and its features stay in the store: a second comparison costs no forward
pass, and a retraining with the winner only those of test photos and of activations for fine-tuning. The ranking is
printed, is an artifact of the run, and lies in reports/backbones.csv.
"""

from flows.run import aside
from regraft.backbones.selection import Compared, rank, recommendation
from regraft.core.csv_files import write_csv
from regraft.photos.dataset import read_dataset
from regraft.reports.page import Page, Table, to_markdown
from tasks import step
from tasks.compare_backbones import compare
from tasks.found_store import load_project
from tasks.progress import run_progress
from tasks.project import enter_project
from tasks.step import Outcome


def try_backbone(name: str) -> Compared:
    """Run one backbone over the photos and train a head on its features."""
    found: list[Compared] = []

    def run() -> Outcome:
        params = load_project(enter_project())
        with run_progress(name, step.progress_of_run) as progress:
            found.append(compare(name, params, progress))
        return Outcome("Completed")

    step.step(name, run)
    return found[0]


@aside
def compare_backbones(names: list[str]) -> Outcome:
    """Try every backbone, one after the other, and say which to take.

    Args:
        names: Names that `regraft backbones` lists, or name=weights.
    """
    ranking = rank([try_backbone(name) for name in names])
    params = load_project(enter_project())
    write_csv(params.paths.reports / "backbones.csv", ranking)
    words = recommendation(ranking, len(read_dataset(params.paths.dataset, params.paths.raw).of("val")))
    table = Table(list(ranking.columns), ranking.astype(str).to_numpy().tolist())
    step.publish("compare_backbones", {"backbones": to_markdown(Page("backbones", "Backbones", [words, table]))})
    text = ranking.drop(columns="problem").round(4).to_string(index=False, na_rep="-")
    return Outcome("Completed", f"{text}\n\n{words}")
