"""What a rank is started with: its environment, and what of the real /tmp it must still see."""

from __future__ import annotations

import hashlib
import os
import pwd
from collections.abc import Sequence

from midstep.agent.config import AgentConfig
from midstep.agent.drivers.cell import CELL, passthrough_for
from midstep.agent.gpus import gpu_environment
from midstep.model import launch
from midstep.model.job import JobSpec, RankPlace

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def rank_environment(
    config: AgentConfig, job_id: str, spec: JobSpec, place: RankPlace, on_node: Sequence[RankPlace] = ()
) -> dict[str, str]:
    """All of a rank's environment. The job's own variables win over everything but what injects the runtime
    and which GPUs it has; where a rank stands comes from its place: nothing in it changes when the job moves.
    ``on_node``: all ranks of the job on this node."""
    nominal = launch.RankPlace(place.rank, spec.world_size, place.local_world_size)
    numbers = launch.rank_environment(nominal, job_id)
    numbers |= {
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
        "GROUP_RANK": str(place.home),
        "OMP_NUM_THREADS": str(spec.threads),
    }
    if spec.world_size > 1:
        numbers["PYTHONHASHSEED"] = _hash_seed(job_id)
    own = [path for path in spec.env.get("PYTHONPATH", "").split(os.pathsep) if path]
    injected = {"MIDSTEP_RUN": str(CELL / "run"), "PYTHONPATH": os.pathsep.join([str(config.inject), *own])}
    gpus = gpu_environment(config, place, on_node or (place,))
    return {**_base(spec.uid), **numbers, **spec.env, **injected, **gpus}


def passthrough(config: AgentConfig, spec: JobSpec) -> tuple[str, ...]:
    """Names below /tmp that a rank of this job must find. The same for a restore as for the start."""
    environment = {**_base(spec.uid), **spec.env}
    extra = [config.state_dir, config.vault_dir, config.inject, *([config.criu] if config.criu else [])]
    found = passthrough_for(spec.command, environment, extra)
    return tuple(sorted({*found, *config.passthrough}))


def _hash_seed(job_id: str) -> str:
    """As random as Python's own, but one for all ranks: it is in every string that was ever hashed, and what
    ranks have alike is stored once."""
    number = int.from_bytes(hashlib.blake2b(job_id.encode(), digest_size=4).digest(), "big")
    return str(max(1, number))  # 0 would turn the randomness off


def _base(uid: int) -> dict[str, str]:
    try:
        user = pwd.getpwuid(uid)
        name, home = user.pw_name, user.pw_dir
    except KeyError:
        name, home = str(uid), "/"
    path = os.environ.get("PATH", _DEFAULT_PATH)
    return {"PATH": path, "HOME": home, "USER": name, "LOGNAME": name, "LANG": "C.UTF-8", "TMPDIR": "/tmp"}
