"""`regraft pull`: a fresh clone becomes what the last night left."""


def pull() -> None:
    """Bring here what a run starts from.

    The records of the last run (nights.push, nights.branch), its results and the data from DVC's remote. A worker that
    keeps nothing does this first.
    """
    from regraft.params_file import load_params
    from tasks.project import readable_errors
    from tasks.runs.start_from_remotes import pull as fetch

    with readable_errors("pull"):
        from tasks.dvc_seam import enter_dvc_project

        root = enter_dvc_project()
        for sentence in fetch(root, load_params(root / "params.yaml")):
            print(sentence, flush=True)
