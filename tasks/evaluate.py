"""Stage 8 of 8: run the shipped file over the untouched test photos, and put every report on one page.

Reads models/model.onnx, build/dataset.parquet, data/raw and the reports of the other stages; writes
reports/metrics.json, reports/predictions.csv, pictures and reports/report.html.
"""

from regraft.config import Params
from regraft.export.classifier import OnnxClassifier
from regraft.export.scoring import open_probabilities, probabilities_of
from regraft.files import write_json
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads
from regraft.reports.pages import write_html, write_predictions
from regraft.reports.plots import confusion_chart, mistakes_sheet, write_confusion
from regraft.store.leases import store_in_use
from regraft.training.metrics import classification_report
from tasks.progress import Progress
from tasks.stage import stage


@stage
def evaluate(params: Params, progress: Progress) -> None:
    """Write the figures, the pictures and the page of the model that ships."""
    settings, paths, machine = params.evaluate, params.paths, params.machine
    classifier = OnnxClassifier(paths.onnx)
    dataset = read_dataset(paths.dataset, paths.raw)
    test = dataset.of("test")
    with store_in_use(paths.store, None):
        stored = open_probabilities(paths.store, classifier)
        threads = Threads(machine.workers, progress("photos"))
        probabilities = probabilities_of(classifier, test, threads, stored=stored)
    class_indices = test.rows.class_index.to_numpy()
    metrics = classification_report(class_indices, probabilities, bins=settings.calibration_bins)
    write_json(paths.reports / "metrics.json", {"test": metrics})
    write_predictions(paths.reports / "predictions.csv", test, probabilities)
    write_confusion(paths.reports / "confusion.csv", test, probabilities)
    confusion_chart(paths.reports / "confusion.csv", paths.reports / "confusion.png")
    mistakes_sheet(paths.reports / "mistakes.png", test, probabilities, count=settings.worst_mistakes)
    write_html(paths.reports)


if __name__ == "__main__":
    evaluate.run()
