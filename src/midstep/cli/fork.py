"""`midstep run --from SNAPSHOT`: a new job that begins in the middle of another one."""

from __future__ import annotations

from midstep.cli.exits import UsageError
from midstep.cli.job import JobFile

KEPT = "a job that starts from a snapshot goes on as it was: its command, world size, environment and files"


def refuse_changes(job: JobFile, env: list[str], no_workdir: bool) -> None:
    """UsageError: an option says what the snapshot says."""
    given = {
        "a command": bool(job.command),
        "--ranks": job.ranks is not None,
        "--env": bool(env),
        "--threads": job.threads != 1,
        "--workdir": job.workdir is not None and str(job.workdir) != ".",
        "--no-workdir": no_workdir,
    }
    for name, there in given.items():
        if there:
            hint = (
                "leave it out, or start anew without --from; --devices, --name, --tier, --region can be given"
            )
            raise UsageError(f"{name} cannot be given with --from: {KEPT} are the snapshot's", hint)
