"""`plan(picture, wants) -> Plan`: who gets which devices now. Pure.

The queue goes by tier, then by time; a job that does not fit does not hold back those behind it (no device
idles while any job could use it). A job gets devices of one type in one region, all or none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from midstep.model.fleet import Node
from midstep.model.job import MILLI, Placement
from midstep.policy.fit import Fit, Room, fit, spread
from midstep.policy.parts import Taken, fullest
from midstep.policy.picture import DeviceKey, Picture, Plan, Start, Wait, Want
from midstep.policy.reasons import (
    CannotMove,
    CannotRestore,
    NoCapacity,
    NodeDown,
    NoNodes,
    NoPart,
    NoRoomForHome,
    NoSuchDeviceType,
    NoSuchPlace,
    Reason,
    TooLarge,
)
from midstep.policy.units import Homes, Shape, homes_for, placement_of, shape_of


def plan(picture: Picture, wants: Iterable[Want]) -> Plan:
    """Answer every want, in the order of the queue."""
    taken = Taken.of(picture)
    starts: list[Start] = []
    waits: list[Wait] = []
    for want in sorted(wants, key=_turn):
        answer = _answer(picture, taken, want)
        if isinstance(answer, Placement):
            taken.give(want, _devices(answer))
            starts.append(_start(picture, want, answer))
        else:
            waits.append(Wait(want.job_id, answer))
    return Plan(tuple(starts), tuple(waits))


def hopeless(picture: Picture, want: Want) -> Reason | None:
    """Why a job could never be placed in this fleet, even if nothing else ran and all nodes were
    connected."""
    if not picture.known:
        return None  # a fleet that is only coming up
    empty = Picture(picture.known)
    answer = _answer(empty, Taken.of(empty), want)
    return None if isinstance(answer, Placement) else answer


def _start(picture: Picture, want: Want, placement: Placement) -> Start:
    nodes = {node.name: node for node in picture.nodes if node.name in _names(placement)}
    taken = [device for name, i in _devices(placement) for device in nodes[name].devices if device.index == i]
    return Start(
        want.job_id,
        want.seen,
        placement,
        in_place=any(node.freezes_in_place for node in nodes.values()),
        carries=any(device.holds_state for device in taken),
    )


def _turn(want: Want) -> tuple[int, float, str]:
    return (want.spec.tier.turn, want.queued_s, want.job_id)


def _answer(picture: Picture, taken: Taken, want: Want) -> Placement | Reason:
    if want.pinned is not None:
        return _pinned(picture, taken, want, want.pinned)
    nodes = _allowed(picture, want)
    if not isinstance(nodes, list):
        return nodes
    shape = shape_of(want.spec)
    spared = [node for node in nodes if node.name not in want.avoid]
    for choice in (spared, nodes):
        if best := _best(picture, choice, taken, want, shape):
            return best
    return _why_not(picture, nodes, taken, want, shape)


def _pinned(picture: Picture, taken: Taken, want: Want, pinned: Placement) -> Placement | Reason:
    up = {node.name for node in picture.nodes}
    for place in pinned.nodes:
        if place.node not in up:
            return NodeDown(place.node)
    wanted = _devices(pinned)
    free = [key for key in wanted if taken.has_room(key, want)]
    where = f"{', '.join(sorted(_names(pinned)))}, where it stands frozen"
    return pinned if len(free) == len(wanted) else NoCapacity(len(wanted), len(free), len(free), where)


def _allowed(picture: Picture, want: Want) -> list[Node] | Reason:
    """The connected nodes where the job may be, or why there are none."""
    regions = tuple(sorted({node.region for node in picture.known}))
    if want.region is not None and regions and want.region not in regions:
        return NoSuchPlace(want.region, regions)
    there = tuple(node.name for node in picture.known if want.region in (None, node.region))
    if want.node is not None and want.node not in there:
        return NoSuchPlace(want.node, there)
    wanted_type = want.spec.device_type
    types = tuple(sorted({device.device_type for node in picture.known for device in node.devices}))
    if wanted_type is not None and types and wanted_type not in types:
        return NoSuchDeviceType(wanted_type, types)
    nodes = [node for node in picture.nodes if _permits(want, node)]
    if not nodes:
        down = want.node is not None and any(node.name == want.node for node in picture.down)
        return NodeDown(want.node) if want.node is not None and down else NoNodes(want.region or "")
    able = [node for node in nodes if not (want.restores and node.freezes_in_place)]
    return able or CannotRestore(tuple(node.name for node in nodes))


def _permits(want: Want, node: Node) -> bool:
    at_node = want.node is None or node.name == want.node
    return at_node and (want.region is None or node.region == want.region) and node.name not in want.never


def _rooms(nodes: Iterable[Node], taken: Taken, want: Want) -> dict[tuple[str, str], list[Room]]:
    """Free devices by region and device type; a job's own devices count as free, it leaves them before. Of
    devices with a memory of their own no parts are given: nothing bounds what each job takes of that."""
    rooms: dict[tuple[str, str], list[Room]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        for device_type in sorted({device.device_type for device in node.devices}):
            if want.spec.device_type not in (None, device_type):
                continue
            some = [d for d in sorted(node.devices) if d.device_type == device_type]
            if want.spec.milli < MILLI and some[0].holds_state:
                continue
            keys = [key for d in some if taken.has_room(key := (node.name, d.index), want)]
            keys.sort(key=lambda key: not taken.mine(key, want))
            room = Room(node, tuple(index for _, index in keys))
            rooms.setdefault((node.region, device_type), []).append(room)
    return rooms


def _best(picture: Picture, nodes: list[Node], taken: Taken, want: Want, shape: Shape) -> Placement | None:
    options: list[tuple[tuple[bool, int, int, int, int, str, str], Placement]] = []
    everything = _rooms([node for node in picture.known if _permits(want, node)], Taken({}, {}), want)
    type_now = _type_at(picture, want.at) if want.at is not None else None
    for (region, device_type), rooms in sorted(_rooms(nodes, taken, want).items()):
        if type_now not in (None, device_type):
            continue
        if want.spec.milli < MILLI:
            rooms = fullest(rooms, taken, want)
        found = _fit(shape, want, rooms, everything[region, device_type])
        if found is not None:
            homes, answer = found
            free = {room.node.name: len(room.free) for room in rooms}
            spare = sum(free[share.node.name] for share in answer.shares) - shape.devices
            if want.spec.milli < MILLI:
                share = answer.shares[0]
                spare = taken.left((share.node.name, share.devices[0]), want)
            far = want.near is not None and region != want.near
            cost = (far, answer.load, answer.moved, len(answer.shares), spare, region, device_type)
            options.append((cost, placement_of(shape, answer.shares, homes)))
    return min(options, key=lambda option: option[0])[1] if options else None


def _fit(shape: Shape, want: Want, rooms: list[Room], empty: list[Room]) -> tuple[Homes, Fit] | None:
    if not want.homes and shape.units == shape.ranks:
        return spread(shape, rooms)
    homes = want.homes or homes_for(shape.ranks, [len(room.free) for room in empty])
    answer = fit(shape, homes, rooms, want.at.homes_by_node() if want.at else {}, want.still)
    return None if answer is None else (homes, answer)


def _type_at(picture: Picture, at: Placement) -> str | None:
    """The type of the devices that a job has; None: none of its nodes is known any more."""
    nodes = {node.name: node for node in picture.known}
    types = (d.device_type for n, i in _devices(at) if n in nodes for d in nodes[n].devices if d.index == i)
    return next(types, None)


def _why_not(picture: Picture, nodes: list[Node], taken: Taken, want: Want, shape: Shape) -> Reason:
    where = want.node or want.region or ""
    asked = shape.devices
    if want.still and want.at is not None:
        return CannotMove(asked, tuple(sorted(_names(want.at))))
    anywhere = replace(want, never=())  # nodes that are still being cleared of it will do later
    everything = _rooms([node for node in picture.known if _permits(anywhere, node)], Taken({}, {}), want)
    total = max((sum(len(room.free) for room in rooms) for rooms in everything.values()), default=0)
    if total < asked:
        return TooLarge(asked, total, where)
    if want.spec.milli < MILLI:
        some = [(node.name, d) for node in nodes for d in node.devices if not d.holds_state]
        keys = [(name, d.index) for name, d in some if want.spec.device_type in (None, d.device_type)]
        return NoPart(want.spec.milli, max((taken.left(key, want) for key in keys), default=0), where)
    rooms = _rooms(nodes, taken, want)
    largest = max((len(room.free) for group in rooms.values() for room in group), default=0)
    free = max((sum(len(room.free) for room in group) for group in rooms.values()), default=0)
    if free >= asked and want.homes:
        units = max(len(home) for home in want.homes)
        return NoRoomForHome(min(units * shape.width, asked), largest)
    return NoCapacity(asked, free, largest, where)


def _devices(placement: Placement) -> list[DeviceKey]:
    keys = {(place.node, i) for place in placement.nodes for rank in place.ranks for i in rank.devices}
    return sorted(keys)


def _names(placement: Placement) -> set[str]:
    return {place.node for place in placement.nodes}
