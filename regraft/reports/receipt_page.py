"""The receipt: what the frozen backbone cost, and what the store saved."""

from regraft.files import read_json, readable_bytes
from regraft.reports.blocks import Page
from regraft.reports.markdown import table
from regraft.reports.sources import Sources


def receipt_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "features.json")
    rate, taken, again = report["images_per_second"], [], []
    if count := report.get("from_features_file"):
        taken = [["of these from an earlier features file", count]]
    if found := report.get("computed_again"):
        again = [["of these computed again", f"{found['rows']}: {found['why']}"]]
    rows = [
        ["different images", report["images"]],
        ["views of a training image", report["views"]],
        ["views of all images", report["rows"]],
        ["from the store", report["from_store"]],
        *taken,
        ["computed", report["computed"]],
        *again,
        ["seconds spent", f"{report['seconds']:.1f}" + (f" ({rate:.0f} images/s)" if rate else "")],
        ["seconds saved", f"{report['seconds_saved']:.1f}"],
        ["size of the store", readable_bytes(report["store_bytes"])],
        ["engine", report["engine"]],
    ]
    return Page("receipt", "Receipt of the frozen backbone", [table(["", ""], rows)])
