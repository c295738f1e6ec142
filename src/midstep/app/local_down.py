"""`midstep down`: suspend what runs, then end everything. Whatever was killed before, nothing is left after
it."""

from __future__ import annotations

import time
from pathlib import Path

from midstep.cli.output import print_json, say
from midstep.client.errors import ClientError
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView
from midstep.model.lifecycle import JobState
from midstep.substrate.local import teardown
from midstep.substrate.local.bringup import state_lock
from midstep.substrate.local.paths import StatePaths
from midstep.substrate.local.teardown import TornDown

POLL_S = 0.2
AT_REST = (JobState.SUSPENDED, JobState.QUEUED, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


def down(now: bool, purge: bool, timeout_s: float, state: Path | None, as_json: bool) -> int:
    """Answers the exit code. See `midstep down --help`."""
    paths = StatePaths.at(state)
    if not paths.root.is_dir():
        return _say_done(paths, TornDown(), as_json)
    with state_lock(paths):
        if not now:
            _suspend_jobs(paths, timeout_s)
        done = teardown.end_fleet(paths, lambda what: say(f"  ending {what}"))
        if purge:
            teardown.purge(paths)
    return _say_done(paths, done, as_json)


def _suspend_jobs(paths: StatePaths, timeout_s: float) -> None:
    """Ask all that run to suspend, and wait. What cannot be suspended in time is ended, which is said."""
    try:
        with FleetClient.of_state(paths.root, timeout_s=10.0) as fleet:
            waiting = _ask(fleet)
            deadline = time.monotonic() + timeout_s
            while waiting and time.monotonic() < deadline:
                time.sleep(POLL_S)
                waiting = [j for j in fleet.jobs() if j.state not in AT_REST and j.state != JobState.RUNNING]
            stubborn = [j for j in fleet.jobs() if j.state not in AT_REST]
    except ClientError as error:
        say(f"  no job could be suspended: {error}")
        return
    for job in stubborn:
        why = next((m.message for m in reversed(job.moves) if not m.ok and m.message), job.reason)
        say(f"  {_name(job)} is {job.state} and will be ended{f': {why}' if why else ''}")


def _ask(fleet: FleetClient) -> list[JobView]:
    asked: list[JobView] = []
    for job in fleet.jobs():
        if job.state in AT_REST or job.state == JobState.ENDING:
            continue
        try:
            say(f"  suspending {_name(job)}")
            asked.append(fleet.suspend(job.job_id))
        except ClientError as error:
            say(f"  {_name(job)}: {error}")
    return asked


def _name(job: JobView) -> str:
    return job.name or job.job_id


def _say_done(paths: StatePaths, done: TornDown, as_json: bool) -> int:
    if as_json:
        print_json({"state": str(paths.root), "processes": done.processes, "links": done.links})
    elif done.processes or done.links:
        say("down")
    else:
        say(f"nothing was running in {paths.root}")
    return 0
