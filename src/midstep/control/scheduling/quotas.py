"""What projects may count on: a tree of names, each with a number of devices and a weight; kept in the
database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from midstep.control.errors import Rejected, StateError, invalid
from midstep.control.journal import Journal
from midstep.engine.record import JobRecord
from midstep.model.lifecycle import Stage
from midstep.wire.schedule import QuotaView

_KIND = "quota"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_MAX_NAME, _MAX_DEVICES, _MAX_WEIGHT = 200, 10_000_000, 1e6


@dataclass(frozen=True, slots=True)
class Quota:
    """``weight``: the project's share of what nobody is due, beside its siblings."""

    devices: int
    weight: float = 1.0


_QUOTA = TypeAdapter(Quota)


class Quotas:
    """Projects by name ("team/sub")."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        try:
            self.all = {name: _QUOTA.validate_json(body) for name, body in journal.notes(_KIND).items()}
        except ValidationError as error:
            raise StateError(f"a project's quota cannot be read by this version: {error}") from None

    def put(self, project: str, quota: Quota) -> None:
        """Raises Rejected: it does not fit into the tree; StateError."""
        check_project(project)
        if not 0 <= quota.devices <= _MAX_DEVICES:
            raise invalid("devices", f"{quota.devices} is not between 0 and {_MAX_DEVICES}")
        if not 0 < quota.weight <= _MAX_WEIGHT:
            raise invalid("weight", f"{quota.weight:g} is not above 0 and at most {_MAX_WEIGHT:g}")
        check_tree({**self.all, project: quota}, project)
        self._journal.save_note(_KIND, project, _QUOTA.dump_json(quota).decode())
        self.all[project] = quota

    def forget(self, project: str) -> None:
        """Raises Rejected: there is none; StateError."""
        if project not in self.all:
            known = ", ".join(sorted(self.all)) or "no project has one"
            raise Rejected(404, "no_such_quota", f"project {project!r} has no quota", known)
        self._journal.save_note(_KIND, project, None)
        del self.all[project]


def check_project(project: str) -> None:
    """Raises Rejected: it cannot be a project's name."""
    if len(project) > _MAX_NAME or not _NAME.fullmatch(project):
        hint = "as team or team/sub: letters, digits, '.', '_', '-'"
        raise invalid("project", f"{project!r} cannot be a project", hint)


def check_tree(quotas: Mapping[str, Quota], changed: str) -> None:
    """What sub-projects may count on comes out of their parent's. Raises Rejected."""
    for parent in (changed, *parents(changed)):
        own = quotas.get(parent)
        children = [name for name in quotas if parents(name)[:1] == (parent,)]
        total = sum(quotas[name].devices for name in children)
        if own is not None and total > own.devices:
            detail = f"{', '.join(sorted(children))} count on {total} devices, {parent} on {own.devices}"
            raise Rejected(409, "quota_exceeded", f"the quota of {changed} does not fit", detail)


def parents(project: str) -> tuple[str, ...]:
    """The projects that it is part of, the nearest first."""
    found: list[str] = []
    while "/" in project:
        project = project.rpartition("/")[0]
        found.append(project)
    return tuple(found)


def views(
    quotas: Mapping[str, Quota], records: Iterable[JobRecord], fair: Mapping[str, float]
) -> list[QuotaView]:
    """All projects that have a quota or a living job, each before its sub-projects. ``fair``: fair shares,
    where there are any."""
    used: dict[str, int | float] = {}
    waiting: dict[str, int | float] = {}
    for record in records:
        if record.stage is Stage.OVER or not record.spec.project:
            continue
        for name in (record.spec.project, *parents(record.spec.project)):
            used[name] = used.get(name, 0) + record.spec.amount(record.devices)
            waits_for = record.spec.amount(record.wanted) if record.waits else 0
            waiting[name] = waiting.get(name, 0) + waits_for
    return [
        _view(name, quotas.get(name), used.get(name, 0), waiting.get(name, 0), fair.get(name))
        for name in sorted({*quotas, *used}, key=lambda name: name.split("/"))
    ]


def _view(
    name: str, quota: Quota | None, used: int | float, waiting: int | float, fair: float | None
) -> QuotaView:
    if quota is None:
        return QuotaView(name, None, 1.0, used, waiting, fair=fair)
    return QuotaView(name, quota.devices, quota.weight, used, waiting, max(0, used - quota.devices), fair)
