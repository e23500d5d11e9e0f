"""Look after the store.

python -m regraft.store list            what it holds
python -m regraft.store verify          read every row; damaged shards are set aside
python -m regraft.store gc --keep 5     what the working copy, the last 5 versions of dvc.lock and DVC experiments do
                                        not need; --yes removes it
python -m regraft.store compact         merge small shards
"""

import argparse
import sys
from pathlib import Path

from regraft.config import Params
from regraft.errors import RegraftError
from regraft.params_file import load_params
from regraft.store.overview import list_store, verify
from regraft.store.upkeep import collect, compact
from tasks.history import features_versions

_PARAMS = Path("params.yaml")


def _parser(params: Params | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m regraft.store", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "verify", "gc", "compact"):
        command = commands.add_parser(name)
        command.add_argument(
            "--root",
            type=Path,
            default=params.paths.store if params else Path("build/store"),
            help="the store's folder; by default paths.store of params.yaml",
        )
        command.add_argument(
            "--shared",
            default=params.machine.shared_store if params else None,
            help="the store that machines share, an fsspec URL; by default machine.shared_store of params.yaml",
        )
        if name == "gc":
            command.add_argument(
                "--keep", type=_count, required=True, help="versions of dvc.lock in git's history to keep"
            )
            command.add_argument("--yes", action="store_true", help="remove; without it only say what would be removed")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():  # git takes a negative number for "all"
        raise argparse.ArgumentTypeError(f"expected a number of versions, 0 or more. Received: {text}")
    return int(text)


def main() -> None:
    """Run one command; exit status 1 if it finds something that is not as it should be."""
    try:
        params = load_params(_PARAMS) if _PARAMS.exists() else None
        chosen = _parser(params).parse_args()
        if not chosen.root.is_dir() and not chosen.shared:
            raise RegraftError(
                f"there is no store in {chosen.root}. Run the pipeline first, or give its folder by --root."
            )
        match chosen.command:
            case "list":
                list_store(chosen.root, chosen.shared)
            case "verify":
                verify(chosen.root, chosen.shared)
            case "compact":
                compact(chosen.root, chosen.shared)
            case "gc":
                features = params.paths.features if params else Path("build/features.arrow")
                versions = features_versions(Path(), features, keep=chosen.keep)
                collect(chosen.root, chosen.shared, versions, really=chosen.yes)
    except RegraftError as error:
        print(f"regraft.store stopped: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
