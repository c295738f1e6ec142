"""Whose turn it is on one device: decides, touches nothing.

A rank of a device is in one of four phases, see ``Phase``. One holds the lease; it gives it up by saying that
it waits, and is woken with it when what it waits for is there and its turn comes. Waiting outside our sight
(for a file, a lock, data, a clock) cannot hold up the others either: ``look`` takes the lease from a holder
that sleeps while another one could compute, and from one that computes for longer than its bound. A rank
that lost the lease so is LOOSE: nothing holds it back but that it is put behind the holder while it computes.
So every rank that can go on gets the device after a bounded time, whatever the script does.
"""

from __future__ import annotations

from collections.abc import Iterable

from midstep.proxy.places import BOUND_S, LOOK_MAX_S, Do, Eyes, Order, Phase, Place

LOOK_MIN_S = 0.002  # how soon after a grant a holder that often sleeps is looked at
AGAIN_S = 0.001  # asleep at two looks this far apart: it sleeps
BOUND_MAX_S, BOUND_STRICT_S = 16.0, 0.05
_TAKEN_MOST, _STRICT_TURNS = 7, 200
WASTE, WASTES, WINDOW_S = 0.05, 25, 5.0  # what of a window may be slept away, and how often
PAUSE_S, PAUSE_MAX_S = 10.0, 600.0


class Turns:
    """One device. ``alone``: no rank of the job is elsewhere. Times are seconds of any one clock."""

    def __init__(self, eyes: Eyes, alone: bool = False) -> None:
        self.places: dict[int, Place] = {}
        self.holder: Place | None = None
        self.look_at_s = float("inf")
        self._eyes = eyes
        self._alone = alone
        self._quiet = False
        self._orders: list[Order] = []
        self._paused_until_s = 0.0
        self._pause_s = PAUSE_S
        self._window = (0.0, 0.0, 0)  # when it began, what was slept away in it, how often
        self._looked: tuple[float, float] = (0.0, 0.0)  # when the holder was looked at last, its cpu_s then

    def orders(self) -> list[Order]:
        """What is to be done since the last call, in order."""
        orders, self._orders = self._orders, []
        return orders

    # What has happened.

    def join(self, rank: int, now_s: float) -> None:
        """A rank is here, computing."""
        self.places[rank] = Place(rank, Phase.LOOSE, now_s)
        if len(self.places) == 2:
            self._window = (now_s, 0.0, 0)
            for place in self.places.values():
                self._withhold(place)
        elif self._on:
            self._withhold(self.places[rank])
        self._settle(now_s)

    def leave(self, rank: int, now_s: float) -> None:
        """It has ended, or cannot take part."""
        place = self.places.get(rank)
        if place is None:
            return
        self._end_turn(place, Phase.LOOSE, now_s)
        self._open(place)
        del self.places[rank]
        if len(self.places) < 2:
            self._stand_down(now_s)
        self._settle(now_s)

    def gave_up(self, rank: int, now_s: float) -> None:
        """It has gone to sleep for an operation that is not done."""
        place = self.places[rank]
        if place.phase == Phase.READY:
            return  # another thread of it has something to go on with
        if place is self.holder:
            if not place.was_taken:
                place.taken_running = 0
            place.was_taken = False
            place.look_s = min(LOOK_MAX_S, place.look_s * 1.25)
            self._end_turn(place, Phase.WAITING, now_s)
        else:
            self._enter(place, Phase.WAITING, now_s)
        self._settle(now_s)

    def ready(self, ranks: Iterable[int], now_s: float) -> None:
        """What these wait for is there; or they say that they want to go on."""
        for rank in ranks:
            place = self.places[rank]
            if place is not self.holder and place.phase != Phase.READY:
                self._enter(place, Phase.READY, now_s)
        self._settle(now_s)

    def look(self, now_s: float) -> None:
        """See to the holder; at ``look_at_s``, or later."""
        if not self._on:
            if len(self.places) > 1 and now_s >= self._paused_until_s:
                self._begin(now_s)
            self._settle(now_s)
            return
        holder = self.holder
        self.look_at_s = float("inf")
        if holder is not None and self._wanted(holder):
            self._judge(holder, now_s)
        self._settle(now_s)

    def stand_down(self, now_s: float) -> None:
        """Open all gates, until ``begin``."""
        self._stand_down(now_s)
        self._paused_until_s = self.look_at_s = float("inf")

    def begin(self, now_s: float) -> None:
        """Take turns again, after ``stand_down``."""
        if self._paused_until_s == float("inf"):
            self._begin(now_s)
            self._settle(now_s)

    # Decisions.

    @property
    def _on(self) -> bool:
        return len(self.places) > 1 and self._paused_until_s == 0.0

    def _begin(self, now_s: float) -> None:
        self._paused_until_s = 0.0
        self._window = (now_s, 0.0, 0)
        if self._on:
            for place in self.places.values():
                self._enter(place, Phase.LOOSE, now_s)
                self._withhold(place)

    def _judge(self, holder: Place, now_s: float) -> None:
        eyes, looked, cpu_s = self._eyes, self._looked, self._eyes.cpu_s(holder.rank)
        before_s, holder.dozing_s = holder.dozing_s, None
        if before_s is None:
            busy = cpu_s - looked[1] > 0.9 * (now_s - looked[0])
            if not busy and eyes.asleep(holder.rank, False):
                holder.dozing_s = cpu_s
                self.look_at_s = now_s + AGAIN_S
                return
        elif cpu_s - before_s < AGAIN_S / 4 and eyes.asleep(holder.rank, True):
            holder.slept += 1
            holder.look_s = max(LOOK_MIN_S, holder.look_s / 2)
            self._waste(now_s, max(0.0, now_s - looked[0] - (cpu_s - looked[1])))
            self._end_turn(holder, Phase.LOOSE, now_s)
            return
        if now_s - holder.since_s > self._bound_s(holder):
            self._take(holder, now_s)
        else:
            holder.look_s = min(LOOK_MAX_S, holder.look_s * 1.5)
            self._plan_look(holder, now_s)

    def _take(self, holder: Place, now_s: float) -> None:
        holder.taken += 1
        holder.was_taken = True
        holder.taken_running += 1
        holder.bound_s = min(BOUND_MAX_S, holder.bound_s * 2)
        if holder.taken_running >= _TAKEN_MOST:
            holder.strict, holder.taken_running, holder.bound_s = _STRICT_TURNS, 0, BOUND_S
        self._end_turn(holder, Phase.LOOSE, now_s)
        self._lower(holder)

    def _bound_s(self, place: Place) -> float:
        return BOUND_STRICT_S if place.strict else place.bound_s

    def _wanted(self, holder: Place) -> bool:
        """Whether another rank could compute. What computes without the lease is put behind the holder."""
        wanted = False
        for place in self.places.values():
            if place.phase == Phase.READY:
                wanted = True
            elif place.phase == Phase.LOOSE and not self._eyes.asleep(place.rank, False):
                wanted = True
                self._lower(place)
        return wanted

    def _waste(self, now_s: float, slept_s: float) -> None:
        """Sleeping that other ranks could have used: where there is much of it, turns do more harm than
        good."""
        begun_s, wasted_s, times = self._window
        if now_s - begun_s > 2 * WINDOW_S:
            begun_s, wasted_s, times = now_s - WINDOW_S / 2, 0.0, 0
        wasted_s, times = wasted_s + slept_s, times + 1
        if now_s - begun_s > WINDOW_S:
            if wasted_s > WASTE * (now_s - begun_s) and times >= WASTES:
                self._stand_down(now_s)
                self._paused_until_s = now_s + self._pause_s
                self._pause_s = min(PAUSE_MAX_S, self._pause_s * 2)
            begun_s, wasted_s, times = now_s, 0.0, 0
        self._window = (begun_s, wasted_s, times)

    def _settle(self, now_s: float) -> None:
        """Give the device to the one whose turn it is, and plan the next look."""
        if not self._on:
            paused = len(self.places) > 1
            self.look_at_s = self._paused_until_s if paused else float("inf")
            return
        if self.holder is None:
            ready = [p for p in self.places.values() if p.phase == Phase.READY]
            loose = [p for p in self.places.values() if p.phase == Phase.LOOSE]
            ready += [p for p in loose if not self._eyes.asleep(p.rank, False)]
            if ready:
                self._grant(self._next(ready, now_s), now_s)
            elif loose:
                self.look_at_s = now_s + LOOK_MAX_S
            else:
                self.look_at_s = float("inf")
        elif self.look_at_s == float("inf") and self._others(self.holder):
            self._plan_look(self.holder, now_s)
        self._hush()

    def _hush(self) -> None:
        """While all others only wait for their turn, the holder's posts need not be looked at."""
        holder = self.holder
        if holder is None or not self._alone:
            return
        others = (place.phase for place in self.places.values() if place is not holder)
        quiet = all(phase == Phase.READY for phase in others)
        if quiet != self._quiet:
            self._quiet = quiet
            self._orders.append(Order(Do.QUIET if quiet else Do.LOUD, holder.rank))

    def _next(self, ready: list[Place], now_s: float) -> Place:
        """Who waits longest. But where one operation has made all of them ready, the one that posted last
        goes on: it never left the device."""
        last = max(ready, key=lambda place: place.granted_s)
        if last.phase == Phase.READY and all(place.since_s == now_s for place in ready):
            return last
        return min(ready, key=lambda place: (place.granted_s, place.rank))

    def _others(self, holder: Place) -> bool:
        others = (place for place in self.places.values() if place is not holder)
        return any(place.phase in (Phase.READY, Phase.LOOSE) for place in others)

    def _grant(self, place: Place, now_s: float) -> None:
        if place.lowered:
            place.lowered = False
            self._orders.append(Order(Do.RAISE, place.rank))
        self._enter(place, Phase.HOLDING, now_s)
        self.holder = place
        place.turns += 1
        place.granted_s = now_s
        place.strict = max(0, place.strict - 1)
        place.dozing_s = None
        self._quiet = False
        self._orders.append(Order(Do.GRANT, place.rank))
        self.look_at_s = float("inf")
        if self._others(place):
            self._plan_look(place, now_s)

    def _plan_look(self, holder: Place, now_s: float) -> None:
        self._looked = (now_s, self._eyes.cpu_s(holder.rank))
        self.look_at_s = now_s + min(holder.look_s, self._bound_s(holder))

    def _end_turn(self, place: Place, phase: Phase, now_s: float) -> None:
        self._enter(place, phase, now_s)
        if place is self.holder:
            self.holder = None
            self.look_at_s = float("inf")
            place.granted_s = now_s
            self._withhold(place)

    def _enter(self, place: Place, phase: Phase, now_s: float) -> None:
        place.seconds[place.phase] += now_s - place.since_s
        place.phase, place.since_s = phase, now_s

    def _stand_down(self, now_s: float) -> None:
        for place in self.places.values():
            self._end_turn(place, Phase.LOOSE, now_s)
            self._open(place)

    def _withhold(self, place: Place) -> None:
        self._orders.append(Order(Do.WITHHOLD, place.rank))

    def _lower(self, place: Place) -> None:
        if not place.lowered:
            place.lowered = True
            self._orders.append(Order(Do.LOWER, place.rank))

    def _open(self, place: Place) -> None:
        if place.lowered:
            place.lowered = False
            self._orders.append(Order(Do.RAISE, place.rank))
        self._orders.append(Order(Do.OPEN, place.rank))
