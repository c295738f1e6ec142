"""What the global level decides by itself: jobs that wait in one region, or have to leave their nodes there,
go to another one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict

from midstep.control.errors import Rejected
from midstep.env import Clock
from midstep.federation.members import Member, Members
from midstep.policy.asks import Costs
from midstep.policy.levels.sending import Sending, Waiter, send
from midstep.policy.levels.summary import Need, Summary
from midstep.wire.api import JobView
from midstep.wire.between import ClusterTold, LeaveRequest, WaiterTold

LOG = logging.getLogger("midstep.federation")
_REFUSED_S = 300.0


class Balance:
    """``patience_s``: that a job waits before it is sent to another region."""

    def __init__(self, members: Members, clock: Clock, patience_s: float, costs: Costs | None = None) -> None:
        self._members, self._patience_s = members, patience_s
        self._refused_s: dict[tuple[str, str], float] = {}  # job, region: it would be turned away there
        self._clock = clock
        self._far_bytes_per_s = (costs or Costs()).far_bytes_per_s

    def plan(self) -> list[Sending]:
        """What is to be sent now. A region that is cut off is left out, with all that waits there."""
        told = {member.name: list(steady(member)) for member in self._members.reachable}
        waiters = [
            (one.tier.turn, at, waiter_of(member.name, one))
            for member in self._members.reachable
            for at, one in enumerate(member.told.waiting if member.told else ())
        ]
        waiters.sort(key=lambda row: row[:2])
        now_s = self._clock.monotonic_s()
        self._refused_s = {key: at for key, at in self._refused_s.items() if now_s - at < _REFUSED_S}
        jobs = [row[2] for row in waiters]
        return send(jobs, told, self._far_bytes_per_s, self._patience_s, self._refused_s)

    async def act(self) -> None:
        """Have what is to be sent leave."""
        for sending in self.plan():
            giver = self._members.by_name[sending.here]
            try:
                runs = bool(sending.drained)
                request = LeaveRequest(sending.there, copy_ahead=runs, why=str(sending))
                await depart(giver, self._members.by_name[sending.there], sending.job_id, request)
            except Rejected as error:  # it has begun, or ended, meanwhile; or it would be turned away there
                LOG.info("job %s stays in %s: %s", sending.job_id, sending.here, error)
                self._refused_s[sending.job_id, sending.there] = self._clock.monotonic_s()


async def depart(giver: Member, receiver: Member, job_id: str, request: LeaveRequest) -> JobView:
    """Have a job leave for another region, if that one would take it. Raises Rejected: nothing was done."""
    base = f"/v1/internal/jobs/{job_id}"
    passport = await giver.request("POST", f"{base}/passport", json=asdict(request))
    await receiver.request("POST", "/v1/internal/jobs/check", content=passport.content)
    return await giver.ask("POST", f"{base}/leave", JobView, request)


def steady(member: Member) -> Iterator[Summary]:
    """What a region has; only what was free the time before, too, is free: the rest may be given out now."""
    before = {(one.cluster, one.device_type): one.free for one in member.before}
    for one in member.clusters:
        yield summary_of(one, min(one.free, before.get((one.cluster, one.device_type), 0)))


def summary_of(told: ClusterTold, free: int) -> Summary:
    """For the policy."""
    names = (told.region, told.cluster, told.device_type)
    return Summary(*names, told.size, free, told.largest, told.room, told.room_spot, told.waiting)


def waiter_of(region: str, told: WaiterTold) -> Waiter:
    """For the policy."""
    guaranteed = (told.guaranteed, told.spot_ok)
    need = Need(told.devices, told.types, "", told.data, told.snapshot_bytes, *guaranteed)
    return Waiter(told.job_id, region, need, told.least, told.waited_s, told.stranded, told.drained)
