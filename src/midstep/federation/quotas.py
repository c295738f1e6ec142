"""A project's quota is of the whole fleet. Each region keeps a part of it, by its devices, and lends and
reclaims within that: so quotas hold in a region that is cut off, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from midstep.control.errors import Rejected
from midstep.federation.members import Member, Members
from midstep.policy.projects.shares import parent
from midstep.wire.schedule import QuotaRequest, QuotaView


class Quotas:
    """Its methods raise Rejected."""

    def __init__(self, members: Members) -> None:
        self._members = members

    async def views(self) -> list[QuotaView]:
        """All projects, the parts of the regions that can be reached added up."""
        parts = await asyncio.gather(*(self._of(member) for member in self._members.reachable))
        found: dict[str, QuotaView] = {}
        for part in parts:
            for view in part:
                found[view.project] = _added(found[view.project], view) if view.project in found else view
        return [found[project] for project in sorted(found)]

    async def put(self, project: str, request: QuotaRequest) -> QuotaView:
        """Let a project count on so many devices: all regions must hear of it, or none keeps it."""
        self._need_all()
        before = {member.name: await self._of(member) for member in self._members}
        above = parent(project)
        left = {name: _left(views, above, project) for name, views in before.items()} if above else None
        parts = split(request.devices, {member.name: _devices(member) for member in self._members}, left)
        done: list[Member] = []
        try:
            for member in self._members:
                part = replace(request, devices=parts[member.name])
                await member.ask("PUT", f"/v1/quotas/{project}", QuotaView, part)
                done.append(member)
        except Rejected:
            for member in done:
                await self._restore(member, project, before[member.name])
            raise
        return next(view for view in await self.views() if view.project == project)

    async def forget(self, project: str) -> None:
        """It counts on nothing of its own any more."""
        self._need_all()
        missing: list[Rejected] = []
        for member in self._members:
            try:
                await member.request("DELETE", f"/v1/quotas/{project}")
            except Rejected as error:
                if error.problem.code != "no_such_quota":
                    raise
                missing.append(error)
        if len(missing) == len(self._members.by_name):
            raise missing[0]

    async def _restore(self, member: Member, project: str, before: list[QuotaView]) -> None:
        had = next((view for view in before if view.project == project and view.devices is not None), None)
        if had is None or had.devices is None:
            await member.request("DELETE", f"/v1/quotas/{project}")
        else:
            await member.ask("PUT", f"/v1/quotas/{project}", QuotaView, QuotaRequest(had.devices, had.weight))

    async def _of(self, member: Member) -> list[QuotaView]:
        return await member.ask("GET", "/v1/quotas", list[QuotaView])

    def _need_all(self) -> None:
        if cut_off := self._members.cut_off:
            words = "a quota is of all regions, and not all can be reached"
            raise Rejected(503, "region_cut_off", words, ", ".join(cut_off), "nothing was changed")


def split(devices: int, sizes: Mapping[str, int], left: Mapping[str, int] | None = None) -> dict[str, int]:
    """Devices by region, in proportion to its size, all of them given out. What is left over goes where the
    parent's part has most ``left``; of equals to the largest remainder, then by name."""
    total = sum(sizes.values())
    weights = sizes if total else dict.fromkeys(sizes, 1)
    total = total or len(sizes)
    parts = {name: devices * size // total for name, size in weights.items()}
    room = {name: left[name] - part if left is not None else 0 for name, part in parts.items()}
    by_rest = sorted(weights, key=lambda name: (-room[name], -(devices * weights[name] % total), name))
    for name in by_rest[: devices - sum(parts.values())]:
        parts[name] += 1
    return parts


def _left(views: Iterable[QuotaView], above: str, project: str) -> int:
    """Of what the project ``above`` counts on, what its other sub-projects leave."""
    known = {view.project: view.devices or 0 for view in views}
    beside = [known[name] for name in known if name != project and parent(name) == above]
    return known.get(above, 0) - sum(beside)


def _devices(member: Member) -> int:
    return sum(one.size for one in member.clusters)


def _added(one: QuotaView, other: QuotaView) -> QuotaView:
    devices = (
        None if one.devices is None and other.devices is None else (one.devices or 0) + (other.devices or 0)
    )
    return replace(
        one,
        devices=devices,
        used=one.used + other.used,
        waiting=one.waiting + other.waiting,
        borrowed=one.borrowed + other.borrowed,
        fair=None if one.fair is None and other.fair is None else (one.fair or 0.0) + (other.fair or 0.0),
    )
