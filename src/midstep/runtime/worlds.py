"""Worlds: who the members of a process group are among the job's ranks.

A world is either *the job's* (each member lives in the process tree of another of the job's ranks, however
the script found them) or *private* to one rank (the script started members of its own inside it). Its name is
fresh each time, so groups of an earlier world are never met again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

from .rendezvous import fresh_name

JOB = "env://"  # how the proxies know a world of the job
PRIVATE = "private://"
RANK_VARIABLE, SIZE_VARIABLE = (
    "MIDSTEP_RANK",
    "MIDSTEP_WORLD_SIZE",
)  # set in the rank's first process by bootstrap


def job_rank() -> int:
    """The rank of the job in whose process tree this process is."""
    return int(os.environ.get(RANK_VARIABLE, "0"))


def home_word() -> str:
    """A word that all processes have in common which see the same shared memory now."""
    try:
        memory = os.stat("/dev/shm")
        with open("/proc/sys/kernel/random/boot_id") as file:
            return "%s:%d:%d" % (file.read().strip(), memory.st_dev, memory.st_ino)
    except OSError:
        return fresh_name()


@dataclass
class World:
    """One rendezvous: its name, and the number that the proxies know each member by."""

    name: str = ""
    members: Tuple[int, ...] = ()
    homes: Tuple[str, ...] = ()  # a word for each member's home; members with the same one share memory
    uses: Dict[str, int] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]

    def group_name(self, asked: str) -> str:
        """The group's name, numbered if one of this name was destroyed before: the same in every member."""
        count = self.uses.get(asked, 0)
        self.uses[asked] = count + 1
        return f"{asked}~{count}" if count else asked

    def one_home(self, ranks: Tuple[int, ...]) -> bool:
        """Whether these members see the same files and shared memory."""
        return len({self.homes[rank] for rank in ranks}) == 1

    def known_ranks(self, ranks: Tuple[int, ...]) -> List[int]:
        """Ranks of this world as the proxies number them."""
        return [self.members[rank] for rank in ranks]


def agree(store: Any, me: int, size: int) -> World:
    """Make a world through a store that all members share; returns when every member has come.

    Raises RuntimeError where members neither are one for each rank nor all belong to one rank.
    """
    store.set(f"midstep/member/{me}", f"{job_rank()} {home_word()}")
    if me == 0:
        members = [store.get(f"midstep/member/{rank}").decode() for rank in range(size)]
        store.set("midstep/world", ",".join([fresh_name(), *members]))
    name, *told = store.get("midstep/world").decode().split(",")
    owners = [int(member.split()[0]) for member in told]
    homes = tuple(member.split()[1] for member in told)
    if len(set(owners)) == size:
        return World(JOB + name, tuple(owners), homes)
    if len(set(owners)) == 1:
        return World(PRIVATE + name, tuple(range(size)), homes)
    raise RuntimeError(
        "a process group has several members in one rank of the job and members in other ranks "
        f"(ranks {owners}); "
        "Midstep carries groups with one member in each of the job's ranks, or wholly inside one rank"
    )
