"""Where a rank stands in its job, and the environment that says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankPlace:
    """Where a rank stands in its job. Fixed at submission: it never sees a move or a resize."""

    rank: int
    world_size: int
    ranks_per_node: int

    @property
    def node(self) -> int:
        """The number of the (nominal) node."""
        return self.rank // self.ranks_per_node

    @property
    def nodes(self) -> int:
        return -(-self.world_size // self.ranks_per_node)

    @property
    def local_rank(self) -> int:
        return self.rank % self.ranks_per_node

    @property
    def local_world_size(self) -> int:
        return min(self.ranks_per_node, self.world_size - self.node * self.ranks_per_node)


def rank_environment(place: RankPlace, run_id: str, master_port: int = 29500) -> dict[str, str]:
    """The variables that torchrun sets for a rank.

    The address is always ``localhost``: it names the job's meeting point and is never connected to.
    ``OMP_NUM_THREADS`` is a default that the job's own environment may override.
    """
    numbers = {
        "RANK": place.rank,
        "WORLD_SIZE": place.world_size,
        "LOCAL_RANK": place.local_rank,
        "LOCAL_WORLD_SIZE": place.local_world_size,
        "GROUP_RANK": place.node,
        "GROUP_WORLD_SIZE": place.nodes,
        "ROLE_RANK": place.rank,
        "ROLE_WORLD_SIZE": place.world_size,
        "MASTER_PORT": master_port,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_MAX_RESTARTS": 0,
        "OMP_NUM_THREADS": 1,
    }
    names = {"ROLE_NAME": "default", "MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": run_id}
    return {**{name: str(number) for name, number in numbers.items()}, **names}
