"""Parts of devices: what is in use of each while a plan is made, and which device a job that takes a part of
one gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from midstep.model.job import MILLI
from midstep.policy.fit import Room
from midstep.policy.picture import DeviceKey, Picture, Want


@dataclass(slots=True)
class Taken:
    """``whole``: device -> the job that has it; ``parts``: device -> jobs that share it, in thousandths."""

    whole: dict[DeviceKey, str]
    parts: dict[DeviceKey, dict[str, int]]

    @classmethod
    def of(cls, picture: Picture) -> Taken:
        """As it is now; a copy."""
        return cls(dict(picture.used), {key: dict(jobs) for key, jobs in picture.shared.items()})

    def give(self, want: Want, keys: Iterable[DeviceKey]) -> None:
        """They have room for it."""
        for key in keys:
            if want.spec.milli == MILLI:
                self.whole[key] = want.job_id
            else:
                self.parts.setdefault(key, {})[want.job_id] = want.spec.milli

    def mine(self, key: DeviceKey, want: Want) -> bool:
        """The job has it, or some of it."""
        return self.whole.get(key) == want.job_id or want.job_id in self.parts.get(key, ())

    def left(self, key: DeviceKey, want: Want) -> int:
        """What others leave of it, in thousandths: what the job has it leaves before."""
        if self.whole.get(key, want.job_id) != want.job_id:
            return 0
        return MILLI - sum(milli for job, milli in self.parts.get(key, {}).items() if job != want.job_id)

    def has_room(self, key: DeviceKey, want: Want) -> bool:
        """For its part, or for all of it."""
        return self.left(key, want) >= want.spec.milli


def fullest(rooms: list[Room], taken: Taken, want: Want) -> list[Room]:
    """Of the rooms of a job that takes a part of a device, the one device where least would be left; of
    devices that nobody has, one of the node with the fewest. ``want.beside``: only that one."""
    choices = [(room, (room.node.name, index)) for room in rooms for index in room.free]
    if want.beside is not None:
        there = want.beside
        choices = [one for one in choices if (one[1] in there if there else one[1] not in taken.parts)]
    if not choices:
        return []
    untouched = {
        room.node.name: sum((room.node.name, i) not in taken.parts for i in room.free) for room in rooms
    }
    room, (_, index) = min(choices, key=lambda one: (taken.left(one[1], want), untouched[one[1][0]], one[1]))
    return [replace(room, free=(index,))]
