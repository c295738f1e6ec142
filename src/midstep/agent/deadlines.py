"""How long each step may take on a node, in seconds. A step that takes longer is rolled back and reported.

The bounds are not expectations (those are in the benchmarks) but the time after which waiting longer helps
nobody. Steps that move bytes get more for more of them.
"""

from __future__ import annotations

_BASE_S = {
    "transfer": 120.0,  # from another region
    "fetch": 60.0,
    "copy": 60.0,
    "restore": 60.0,
    "reconnect": 30.0,
    "launch": 30.0,
    "thaw": 10.0,
    "freeze": 10.0,
    "drain": 20.0,
    "dump": 60.0,
    "store": 60.0,
    "kill": 20.0,
    "collect": 60.0,
    "remove": 60.0,
    "cuda-part": 20.0,  # ranks that share a GPU: as long as what they have submitted lasts
    "cuda-lock": 30.0,  # kernels that were submitted may last
    "cuda-checkpoint": 200.0,  # 80 GB at a quarter of the slowest rate seen
    "cuda-restore": 90.0,
    "cuda-unlock": 30.0,
}
# The slowest storage that we plan for; below that, a step fails by its deadline and says so.
_SLOWEST_BYTES_PER_S = 20e6
# Likewise the slowest link between regions; of plain bytes, of which few have to travel.
_SLOWEST_LINK_BYTES_PER_S = 1e6


def deadline_s(step: str, nbytes: int = 0) -> float:
    """The bound of a step that moves about ``nbytes``. KeyError: there is no such step."""
    slowest = _SLOWEST_LINK_BYTES_PER_S if step == "transfer" else _SLOWEST_BYTES_PER_S
    return _BASE_S[step] + nbytes / slowest
