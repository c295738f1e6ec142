"""Which ranks of a node share a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from midstep.mailbox.seat import Seating


def seatings(epoch: int, devices: Mapping[int, Sequence[int]]) -> dict[int, Seating]:
    """Each rank's seat, from the devices of the ranks of a node. Ranks that have a device in common share all
    of theirs."""
    leader: dict[int, int] = {}  # device -> device that stands for all that are shared with it

    def find(device: int) -> int:
        while leader.setdefault(device, device) != device:
            device = leader[device]
        return device

    for indices in devices.values():
        for index in indices[1:]:
            first, second = sorted((find(indices[0]), find(index)))
            leader[second] = first
    shared: dict[int, list[int]] = {}
    for rank, indices in sorted(devices.items()):
        if indices:
            shared.setdefault(find(indices[0]), []).append(rank)
    return {rank: Seating(epoch, device, tuple(ranks)) for device, ranks in shared.items() for rank in ranks}
