"""The only source of time, chance and ids. What decides takes these as arguments; what starts the program
makes the real ones.

clock.py   Clock: the wall, the monotonic clock, sleep; BlockingClock: the same for threads; RealClock
mock.py    MockClock: for tests, jumps over every wait
ids.py     Ids: names of jobs, snapshots and requests from a random source that is given
"""

from midstep.env.clock import BlockingClock, Clock, RealClock
from midstep.env.ids import Ids, real_chance, real_ids
from midstep.env.mock import MockClock

__all__ = ["BlockingClock", "Clock", "Ids", "MockClock", "RealClock", "real_chance", "real_ids"]
