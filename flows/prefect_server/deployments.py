"""The deployments of prefect.yaml at a server: made, updated by name, and removed when the file has them no more.

What a person paused in the UI stays paused, and schedules that a person added there stay.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from flows.prefect_server.events import FILE, Project
from regraft.core.errors import RegraftError

_KEYS = ("name", "description", "entrypoint", "parameters", "schedules", "work_pool", "pull")
_SLUG = "prefect-yaml"  # begins the name of every schedule that came from the file
_STEP = "prefect.deployments.steps.set_working_directory"


def set_up_pool(client: SyncPrefectClient, name: str) -> str:
    """Make the work pool if it is not there, and return a line about it.

    Raises:
        RegraftError: there is one of this name whose workers do not start processes.
    """
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        return f"work pool {name}: created"
    if pool.type != "process":
        raise RegraftError(
            f"the work pool {name} is of type {pool.type}, and runs are processes on the machine that has this folder. "
            f"Name another one under work_pool in {FILE}."
        )
    return f"work pool {name}: unchanged"


def set_up_deployments(
    client: SyncPrefectClient, wanted: list[dict[str, Any]], project: Project
) -> tuple[dict[str, UUID], list[str]]:
    """Make the server's deployments those of the file; return their ids by name, and a line about each.

    Raises:
        RegraftError: the file is wrong, or a deployment of another folder has the name of one of ours.
    """
    ids, lines = {}, []
    for deployment in wanted:
        _check(deployment)
        ids[deployment["name"]], line = _set_up(client, deployment, project)
        lines.append(line)
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[project.tag]))
    for found in client.read_deployments(deployment_filter=tagged):
        if found.id not in ids.values():
            client.delete_deployment(found.id)
            lines.append(f"deployment {found.name}: removed, {FILE} has it no more")
    return ids, lines


def _set_up(client: SyncPrefectClient, wanted: dict[str, Any], project: Project) -> tuple[UUID, str]:
    name = wanted["name"]
    flow_name, facts = _facts(wanted, project)
    schedules = list(_schedules(wanted))
    try:
        found = client.read_deployment_by_name(f"{flow_name}/{name}")
    except ObjectNotFound:
        flow_id = client.create_flow_from_name(flow_name)
        return client.create_deployment(flow_id, name, schedules=schedules, **facts), f"deployment {name}: created"
    _check_folder(found, project)
    changed = [key for key, value in facts.items() if getattr(found, key) != value]
    if found.global_concurrency_limit is not None:  # of a former version: its slot was not free again after a kill
        changed.append("concurrency_limit")
    if changed:
        client.update_deployment(found.id, DeploymentUpdate(concurrency_limit=None, **facts))
    if _set_up_schedules(client, found, schedules):
        changed.append("schedules")
    what = f"updated ({', '.join(changed)})" if changed else "unchanged"
    return found.id, f"deployment {name}: {what}{_paused(found)}"


def _facts(wanted: dict[str, Any], project: Project) -> tuple[str, dict[str, Any]]:
    """The name of the flow, and what the server is to know of a deployment but for its name and schedules."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow = load_flow_from_entrypoint(wanted["entrypoint"])
    folder = str(project.folder)
    return flow.name, {
        "description": wanted.get("description", ""),
        "entrypoint": wanted["entrypoint"],
        "enforce_parameter_schema": True,
        # From the beginning of its process, so that the settings in pyproject.toml count.
        "job_variables": {"working_dir": folder, **wanted["work_pool"].get("job_variables", {})},
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
        "parameters": wanted.get("parameters", {}),
        "pull_steps": [{_STEP: {"directory": folder}}],
        "tags": [project.tag],
        "work_pool_name": wanted["work_pool"]["name"],
    }


def _schedules(wanted: dict[str, Any]) -> Iterator[DeploymentScheduleCreate]:
    for number, schedule in enumerate(wanted.get("schedules", []), start=1):
        if not isinstance(schedule, dict) or not {"cron"} <= set(schedule) <= {"cron", "timezone", "active"}:
            _refuse(wanted, f"a schedule must have `cron`, and perhaps `timezone` and `active`. Found: {schedule!r}")
        try:
            cron = CronSchedule(cron=schedule["cron"], timezone=schedule.get("timezone", "UTC"))
        except ValueError as error:
            _refuse(wanted, f"{schedule!r} is no schedule: {error}")
        active = schedule.get("active", True)
        yield DeploymentScheduleCreate(schedule=cron, active=active, slug=f"{_SLUG}-{number}")


def _set_up_schedules(
    client: SyncPrefectClient, found: DeploymentResponse, wanted: list[DeploymentScheduleCreate]
) -> bool:
    """Bring the schedules up to date and return whether any was not; whether one is active is left to the UI."""
    ours = {_slug_of(schedule, wanted): schedule for schedule in found.schedules}
    changed = False
    for schedule in wanted:
        own = ours.pop(schedule.slug, None)
        if own is None:
            client.create_deployment_schedules(found.id, [schedule])
        elif (own.schedule, own.slug) != (schedule.schedule, schedule.slug):
            client.update_deployment_schedule(found.id, own.id, schedule=schedule.schedule, slug=schedule.slug)
        else:
            continue
        changed = True
    for slug, schedule in ours.items():
        if slug and slug.startswith(_SLUG):
            client.delete_deployment_schedule(found.id, schedule.id)
            changed = True
    return changed


def _slug_of(schedule: DeploymentSchedule, wanted: list[DeploymentScheduleCreate]) -> str | None:
    """The name of a schedule; one that `prefect deploy` made has none, and is known by what it says."""
    same = [each.slug for each in wanted if each.schedule == schedule.schedule]
    return schedule.slug or (same[0] if same else None)


def _paused(found: DeploymentResponse) -> str:
    if found.paused or (found.schedules and not any(schedule.active for schedule in found.schedules)):
        return ", and paused in the UI"
    return ""


def _check(wanted: dict[str, Any]) -> None:
    if not isinstance(wanted, dict) or not isinstance(wanted.get("name"), str):
        raise RegraftError(f"{FILE}: every deployment must have a `name`. Found: {wanted!r}.")
    if unknown := [key for key in wanted if key not in _KEYS]:
        _refuse(wanted, f"`{unknown[0]}` is none of the keys that are known: {', '.join(_KEYS)}")
    if wanted.get("pull") is not None:
        _refuse(wanted, "`pull` must be null: runs work in this folder, which has the photos")
    if not isinstance(wanted.get("work_pool"), dict) or "name" not in wanted["work_pool"]:
        _refuse(wanted, "`work_pool` must have a `name`")
    if not isinstance(wanted.get("entrypoint"), str) or not Path(wanted["entrypoint"].split(":")[0]).is_file():
        _refuse(wanted, f"`entrypoint` must be a file and a flow in it. Found: {wanted.get('entrypoint')!r}")


def _check_folder(found: DeploymentResponse, project: Project) -> None:
    """Two projects whose deployments have one name would take them from each other at every set-up."""
    for step in found.pull_steps or []:
        folder = Path(step.get(_STEP, {}).get("directory", project.folder))
        if folder.resolve() != project.folder.resolve() and (folder / FILE).exists():
            raise RegraftError(
                f"the deployment {found.name} at this server belongs to {folder}. Where several projects share a "
                f"server, each needs names of its own: change `name` and the names of the deployments in {FILE}, and "
                "`run` in automations.yaml."
            )


def _refuse(wanted: dict[str, Any], what: str) -> NoReturn:
    raise RegraftError(f"{FILE}: deployment '{wanted['name']}': {what}.")
