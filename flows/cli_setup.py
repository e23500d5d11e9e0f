"""`regraft setup-prefect`: deployments and automations at the Prefect server."""


def setup_prefect() -> None:
    """Set up the schedule and the alarms.

    The Prefect server then does what prefect.yaml and automations.yaml say. What has these names is made, updated or
    removed, and a second run changes nothing. The server is the one of `regraft ui`, unless PREFECT_API_URL or the
    Prefect profile names another. Where REGRAFT_ALARM_URL is set, alarms go there.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("setup-prefect"):
        enter_project()
        from flows.prefect_server.setup_prefect import set_up_here

        print("\n".join(set_up_here()))
