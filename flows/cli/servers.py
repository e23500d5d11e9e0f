"""Commands about the Prefect server: `serve` and `prefect`."""

from typing import Annotated, Literal

import typer

TAKES_ALL = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def serve(
    only: Annotated[
        Literal["server", "watch", "setup"] | None,
        typer.Option(
            help="Start the server alone, watch for photos alone, or set up the schedule and the alarms and end."
        ),
    ] = None,
) -> None:
    """Start all that scheduled runs need.

    The Prefect server, the schedule, a worker, alarms and the watcher of new photos. It listens on this machine only;
    Ctrl-C stops all of it. The set-up makes, updates or removes what prefect.yaml and automations.yaml name, and a
    second one changes nothing. Its server, and that of --only watch, is the one that runs here, unless PREFECT_API_URL
    or the Prefect profile names another. Where REGRAFT_ALARM_URL is set, alarms go there.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("serve"):
        if only == "server":
            from flows.prefect_server.guarded_server import serve as serve_alone

            serve_alone()
        elif only == "watch":
            _watch()
        elif only == "setup":
            enter_project()
            from flows.prefect_server.setup_prefect import set_up_here

            print("\n".join(set_up_here()))
        else:
            from flows.prefect_server.serve import serve as serve_all

            serve_all()


def _watch() -> None:
    import prefect.settings  # noqa: F401 - the server may be named in a profile of Prefect

    from flows.prefect_server.watch import watch
    from regraft.core.params_file import load_params
    from tasks.dvc_seam import enter_dvc_project

    params = load_params(enter_dvc_project() / "params.yaml")
    print(f"Watching {params.nights.watch or params.paths.raw}. Ctrl-C stops it.", flush=True)
    try:
        watch(params, lambda: False)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def prefect(context: typer.Context) -> None:
    """Run Prefect's command line, logged in.

    Its server is the one of `regraft serve`, unless PREFECT_API_URL or the Prefect profile names another.
    """
    from tasks.project import readable_errors

    with readable_errors("prefect"):
        from flows.prefect_server.guarded_server import run_prefect

        run_prefect(context.args)
