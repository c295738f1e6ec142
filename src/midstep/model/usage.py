"""What a job does with its devices, as it is measured without its help."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankUsage:
    """One rank. Seconds and bytes of work are sums since its proxy began, or since its process did: what
    counts is the difference of two readings of one source (see NodeUsage)."""

    rank: int
    steps: int = 0  # optimizer steps since its process began; after a restore, since then as before the cut
    computing_s: float = 0.0  # its main thread was on a processor
    reducing_s: float = 0.0  # its collectives were being carried out
    queueing_s: float = 0.0  # something was ready, and another rank had the device
    reduced_bytes: int = 0  # that it gave to reductions
    parameters_bytes: int = 0  # of its optimizers, as they are in this rank; so are the next two
    optimizer_bytes: int = 0
    gradients_bytes: int = 0
    shared_bytes: int = 0  # of parameters and optimizer state: lie once on the device for all its sharers
    device_bytes: int = 0  # the most that its tensors had on GPUs at once
    resident_bytes: int = 0  # of its process, everything, shared memory included


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """One job on one node under one epoch. Readings with the same ``source`` can be compared, by ``at_s``, a
    clock of that node."""

    job_id: str
    epoch: int
    source: int  # the proxy's process
    at_s: float
    ranks: tuple[RankUsage, ...]
    beats: int = 0  # of the reduction that moves most: steps, up to a factor, where no optimizer is seen
    last: bool = False  # the ranks stand still, or are served by nobody, after it
