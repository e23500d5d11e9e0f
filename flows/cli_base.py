"""`regraft renew-base`: the next run trains anew what nights start from."""

from typing import Annotated

import typer


def renew_base(
    reason: Annotated[str, typer.Argument(help="Why, for data/base_renewals.csv.")] = "a person wants it",
) -> None:
    """Let the next run train a new base, on all photos.

    Nights with few changes start from the base and learn only what is new. What they cannot do is forget: a photo that
    was removed has left its trace in the base until that is renewed.
    """
    from regraft.params_file import load_params
    from tasks.base_renewal import ask_by_hand
    from tasks.project import enter_project, readable_errors

    with readable_errors("renew-base"):
        print(ask_by_hand(load_params(enter_project() / "params.yaml"), reason))
