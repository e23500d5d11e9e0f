"""`regraft watch`: tell the Prefect server when photos have arrived."""


def watch() -> None:
    """Let new photos start a run.

    It watches the data folder, or nights.watch of params.yaml, waits until writing has settled, and tells the server.
    Ctrl-C stops it. `regraft serve` watches too.
    """
    import prefect.settings  # noqa: F401 - the server may be named in a profile of Prefect

    from flows.prefect_server.watch import watch as look
    from regraft.params_file import load_params
    from tasks.dvc_seam import enter_dvc_project
    from tasks.project import readable_errors

    with readable_errors("watch"):
        params = load_params(enter_dvc_project() / "params.yaml")
        print(f"Watching {params.nights.watch or params.paths.raw}. Ctrl-C stops it.", flush=True)
        try:
            look(params, lambda: False)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
