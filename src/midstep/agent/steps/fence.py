"""A node that has lost the controller for too long lets nothing run: the controller may go on elsewhere.

The ranks stand still where they are, and their proxy ends. When the controller is back before it has given
the node up, they are adopted and go on; else they are removed.
"""

from __future__ import annotations

import logging
from functools import partial

from midstep.agent.deadlines import deadline_s
from midstep.agent.drivers import errors as drivers
from midstep.agent.drivers import freeze
from midstep.agent.drivers.launch import alive
from midstep.agent.steps.base import Job, blocking
from midstep.agent.steps.end import kill_ranks, stop_proxy
from midstep.model.phase import Phase

_log = logging.getLogger(__name__)


async def fence(job: Job) -> None:
    """Stop all ranks of a job; those that cannot be stopped are killed."""
    _log.warning("job %s: no word from the controller for too long: its ranks are stopped", job.entry.job_id)
    await stop_proxy(job)  # first: from now on nothing that they do reaches another node
    ranks = [p for p in job.entry.processes.values() if alive(p)]
    try:
        frozen = await blocking(partial(freeze.freeze, ranks, deadline_s("freeze")))
    except (drivers.DriverError, OSError) as error:
        _log.error("job %s: its ranks cannot be stopped (%s): they are killed", job.entry.job_id, error)
        await kill_ranks(ranks)
        frozen = freeze.Frozen({}, 0.0)
    job.save(phase=Phase.PROXY_LOST, frozen=frozen.to_json(), failure=None, tried=None)
