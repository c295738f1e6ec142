"""How a job's ranks are started: the environment of a rank, and commands that begin with a launcher.

Midstep starts the ranks itself, so ``torchrun ...`` and its relatives are unwrapped: what the launcher would
have started becomes the command of each rank, and its number of processes the job's world size.
"""

from midstep.model.launch.base import AccelerateConfig, Launch, LaunchError
from midstep.model.launch.ranks import RankPlace, rank_environment
from midstep.model.launch.unwrap import unwrap

__all__ = ["AccelerateConfig", "Launch", "LaunchError", "RankPlace", "rank_environment", "unwrap"]
