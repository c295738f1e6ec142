"""Where a new job goes: the global level chooses the region, which then decides for itself."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from midstep.control.errors import Rejected
from midstep.control.vaults.blobs import Blobs
from midstep.env import Ids
from midstep.federation.balance import summary_of
from midstep.federation.directory import Directory
from midstep.federation.members import Member, Members
from midstep.model.launch import LaunchError, unwrap
from midstep.model.tiers import Tier
from midstep.policy.asks import Costs
from midstep.policy.levels.fleet import choose_region
from midstep.policy.levels.region import choose_cluster
from midstep.policy.levels.summary import Board, Need, Summary
from midstep.wire.api import JobRequest, JobView
from midstep.wire.between import JobTold

# A region may have no room, or nothing of the kind, where another one has.
_ELSEWHERE = (
    "no_guarantee",
    "no_quota",
    "too_large",
    "no_such_device_type",
    "impossible",
    "region_cut_off",
)
_NOT_THERE = ("no_such_job", "no_such_snapshot")  # a snapshot to start from, of a job that nobody has
_PIECE_BYTES = 1 << 20


class Reception:
    """``blobs``: uploads, which are passed on with the jobs that name them."""

    def __init__(self, members: Members, directory: Directory, blobs: Blobs, ids: Ids) -> None:
        self._members, self._directory, self._blobs, self._ids = members, directory, blobs, ids

    async def submit(self, request: JobRequest) -> JobView:
        """Take a job. Raises Rejected, NotFound."""
        job_id = self._ids.job(taken=self._directory)
        elsewhere = (*_ELSEWHERE, *_NOT_THERE) if request.from_snapshot else _ELSEWHERE
        refused: Rejected | None = None
        for member in await self.candidates(request):
            try:
                return await self._hand_in(member, request, job_id)
            except Rejected as error:
                if error.problem.code not in elsewhere:
                    raise
                refused = refused or error
        assert refused is not None, "there is a candidate, or an error"
        raise refused

    async def candidates(self, request: JobRequest) -> list[Member]:
        """The regions where it might run, the best first. Raises Rejected."""
        if request.from_snapshot is not None:
            return await self._of_snapshot(request)
        if request.region is not None:
            return [self._members.member(request.region)]
        if request.node is not None and (member := self._members.of_node(request.node)) is not None:
            return [member]
        if not self._members.reachable:
            await self._members.refresh()
        found = list(dict.fromkeys(self._ranked(request))) or self._members.reachable
        if not found:
            names = ", ".join(self._members.by_name)
            raise Rejected(503, "region_cut_off", "no region can be reached", names, "try again later")
        return found

    def _ranked(self, request: JobRequest) -> Iterator[Member]:
        """Where its guarantee can stand before the others; then all the rest, which say why not."""
        devices = _devices(request)
        types = (request.device_type,) if request.device_type else ()
        tier = request.tier or Tier.STANDARD
        for guaranteed in (float(devices), 0.0) if tier.guarantee else (0.0,):
            need = Need(devices, types, "", "", 0, guaranteed, request.spot_ok)
            left = self._members.reachable
            while left:
                chosen = choose_region(need, _chosen(need, left), Costs().far_bytes_per_s)
                if chosen is None:
                    break
                member = self._members.by_name[chosen.region]
                yield member
                left = [other for other in left if other is not member]
        yield from self._members.reachable

    async def _of_snapshot(self, request: JobRequest) -> list[Member]:
        """A fork begins where the snapshot is. If nobody has its job, any region's vault may have it."""
        assert request.from_snapshot is not None
        asked = request.from_snapshot
        name = asked.rpartition("-")[0]
        place = self._directory.owner(name) if name else None
        try:
            place = place or await self._directory.find(asked)
        except Rejected as error:
            if error.problem.code != "no_such_job":
                raise
            named = self._members.member(request.region) if request.region is not None else None
            return [named] if named is not None else self._members.reachable
        if request.region not in (None, place.member.name):
            words = f"the snapshot is in region {place.member.name}"
            hint = "start it there, then `midstep migrate` it"
            raise Rejected(422, "invalid", f"region: {words}", "", hint)
        return [place.member]

    async def _hand_in(self, member: Member, request: JobRequest, job_id: str) -> JobView:
        blob = request.workdir_blob
        try:
            view = await self._post(member, request, job_id)
        except Rejected as error:
            if error.problem.code != "not_found" or blob is None:
                raise
            await member.request("POST", "/v1/blobs", content=_pieces(self._blobs.path(blob)))
            view = await self._post(member, request, job_id)
        member.jobs[job_id] = JobTold(job_id, view.name, view.submitted_s)
        return view

    async def _post(self, member: Member, request: JobRequest, job_id: str) -> JobView:
        try:
            return await member.ask("POST", "/v1/jobs", JobView, request, params={"as": job_id})
        except Rejected as error:
            if error.problem.code != "region_silent":  # else it was not even sent
                raise
            words = f"region {member.name} did not answer; the job may have been taken, as {job_id}"
            hint = "`midstep ps` shows whether it was"
            raise Rejected(503, "not_sure", words, error.problem.detail, hint) from None


def _chosen(need: Need, members: list[Member]) -> Iterator[tuple[str, Summary]]:
    for member in members:
        board = Board()
        for told in member.clusters:
            board.put(summary_of(told, told.free))
        chosen = choose_cluster(need, board, lambda _: True)
        if chosen is not None:
            yield member.name, chosen


def _devices(request: JobRequest) -> int:
    """As `control/admission.py` counts them; what is wrong with the command is said there."""
    try:
        launched = unwrap(request.command).world_size
    except LaunchError:
        launched = None
    asked = request.devices or request.ranks or launched or 1
    return max(1, math.ceil(asked)) if math.isfinite(asked) else 1  # a part of a device needs one


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
