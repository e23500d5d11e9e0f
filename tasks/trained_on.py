"""What the new model was trained on, from what the stages left in build/: later photos are compared with it."""

import sys

from regraft.core.config import Params
from regraft.core.errors import Busy, RegraftError
from regraft.features.table import read_features
from regraft.photos.manifest import read_manifest
from regraft.production.training_data import Reference, build_reference
from tasks.base_renewal import base_of_model
from tasks.stage_inputs import open_features


def reference_of_model(params: Params, *, may_lack: bool = False) -> Reference | None:
    """Return the training data of the new model; None where it was removed since, so photos are compared with nothing.

    Args:
        params: all settings.
        may_lack: whether to go on, with a warning, where features that build/features.arrow names cannot be had.

    Raises:
        Busy: rows are being removed from the store.
        RegraftError: a file is damaged; or, without `may_lack`, features cannot be had.
    """
    paths, problem = params.paths, ""
    if not (paths.manifest.exists() and paths.features.exists()):
        return None
    manifest, base = read_manifest(paths.manifest)[1], base_of_model(params)
    saw = base.photos.rows if base else None
    try:
        with open_features(params, only_some=True) as features:
            reference = build_reference(manifest, features, saw, may_lack=may_lack)
    except Busy:
        raise
    except RegraftError as error:
        if not may_lack:
            raise
        # Without any store: splits and digests are in the file itself.
        reference, problem = build_reference(manifest, read_features(paths.features), saw, may_lack=True), f" {error}"
    if reference.lacking:
        print(
            f"Warning: {reference.lacking} Drift of features is found from the others alone.{problem}", file=sys.stderr
        )
    return reference
