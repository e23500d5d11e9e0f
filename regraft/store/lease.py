"""What a lease says, and whether whoever holds it is still at work."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regraft.core.files import fingerprint
from regraft.store.machine import Process, is_running, started, this_process, uptime

STALE_SECONDS = 600


class Lease(BaseModel):
    """What a lease says; whatever else is in the file, it is none."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    host: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    pid: int = Field(ge=1, lt=2**31)
    started: int = Field(ge=0, lt=2**63)
    boot: str = Field(pattern=r"^[0-9a-f-]{0,100}$")
    pid_namespace: str = Field(pattern=r"^[a-z0-9:\[\]]{0,100}$")
    since: float = Field(ge=0, lt=253_402_300_800)  # seconds since 1970, until the year 9999
    uptime: float = Field(ge=0)  # of the machine when it was renewed
    is_alone: bool  # removes shards, and so excludes everybody else
    seal: str  # fingerprint of the rest: a damaged number of a process must not be taken for one that has ended

    @classmethod
    def made(cls, process: Process, *, since: float, is_alone: bool) -> "Lease":
        """Return a lease as of now."""
        lease = cls(
            host=process.host,
            pid=process.pid,
            started=process.started,
            boot=process.boot,
            pid_namespace=process.pid_namespace,
            since=since,
            uptime=uptime(),
            is_alone=is_alone,
            seal="",
        )
        return lease.model_copy(update={"seal": lease.own_seal})

    @classmethod
    def read(cls, contents: bytes) -> "Lease | None":
        """Return what the file of a lease says, or None if it is damaged, or nothing that Regraft wrote."""
        try:
            lease = cls.model_validate_json(contents)
        except ValidationError:
            return None
        return lease if lease.seal == lease.own_seal else None

    @property
    def own_seal(self) -> str:
        """What `seal` must be."""
        return fingerprint(self.model_dump(exclude={"seal"}))[:16]

    def is_live(self, age: float) -> bool:
        """Whether whoever holds it is still at work, as far as this machine can tell.

        Args:
            age: seconds since it was renewed, by the clock of the store.
        """
        ages = [age]
        here = this_process()
        if here.boot and here.boot == self.boot:
            ages.append(uptime() - self.uptime)
            if here.pid_namespace == self.pid_namespace and self.is_over:
                return False
        return any(is_fresh(age) for age in ages)

    @property
    def is_over(self) -> bool:
        """Whether the process has ended, if it is one of this machine; another may have got its number since."""
        return not is_running(self.pid) or (started(self.pid) or self.started) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M} UTC"


def is_fresh(age: float) -> bool:
    """Whether a lease of this age counts. One from the future was written before a clock was set back."""
    return abs(age) <= STALE_SECONDS
