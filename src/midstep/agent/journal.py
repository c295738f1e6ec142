"""What a node knows of its jobs that a kill of the agent must not lose: one JSON file a job.

A keeper writes the phase that it is about to work on (HOLDING, STARTING, DUMPING, ENDING) before the first
effect, each process before the next one is made, and the phase reached after the last effect; `recover` reads
the rest off the machine.

A record must outlive the agent, not the machine: the processes that it speaks of do not outlive it either. So
a save is a rename and waits for no disk; a record that a failing power supply left unreadable is no record.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from midstep.agent.drivers.launch import RankProcess
from midstep.agent.trash import Trash
from midstep.model.job import JobSpec, NodePlace
from midstep.model.phase import Failure, Goal, Phase, StepTiming


@dataclass(frozen=True, slots=True)
class Aim:
    """What an assignment asks for, as far as trying again is concerned: an aim that failed is not tried
    twice."""

    epoch: int
    goal: Goal
    target: str | None = None


@dataclass(frozen=True, slots=True)
class CudaRank:
    """A rank whose device state is, or is being moved to, its host memory."""

    pids: tuple[int, ...]  # of its processes that use CUDA, in the rank's own numbering
    gpus: tuple[str, ...] = ()  # UUIDs (hex) of the GPUs that it was started with
    nbytes: int = 0  # that it will take on its GPU again, about


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A job on this node. ``processes`` are those that were started or restored and have not been reported as
    ended."""

    job_id: str
    epoch: int
    phase: Phase
    spec: JobSpec
    place: NodePlace
    adopted: bool = (
        False  # HOLDING: over processes that were here before; a half-done hold must leave them alone
    )
    processes: dict[int, RankProcess] = field(default_factory=dict[int, RankProcess])
    exits: dict[int, int] = field(default_factory=dict[int, int])
    frozen: dict[str, object] = field(
        default_factory=dict[str, object]
    )  # freeze.Frozen as JSON, until the thaw
    cuda: dict[int, CudaRank] = field(default_factory=dict[int, CudaRank])  # from the lock to the unlock
    coming: tuple[int, ...] = ()  # HOLDING, adopted: ranks that are restored beside those that were here
    cut: str | None = None  # the snapshot at which the processes stand still, until they are thawed
    target: str | None = None  # DUMPING, DUMPED
    stored: str | None = None  # the checkpoint whose part is in the vault
    not_stored: str = ""  # why the last one's part could not be brought there
    tried: Aim | None = None  # FAILED: what was tried
    failure: Failure | None = None
    steps: tuple[StepTiming, ...] = ()
    store: dict[str, str] = field(default_factory=dict[str, str])
    nbytes: int = 0
    log_floors: dict[int, int] = field(
        default_factory=dict[int, int]
    )  # rank -> its log's bytes at the cut it came from
    files_epoch: int = 0  # the epoch in which the homes were made: logs of another one are other logs
    boot: str = field(default_factory=lambda: boot_id())  # process numbers mean nothing after a reboot

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks placed here."""
        return tuple(r.rank for r in self.place.ranks)

    @property
    def homes(self) -> tuple[int, ...]:
        """The virtual hosts placed here, each once."""
        return tuple(sorted({r.home for r in self.place.ranks}))

    def home_of(self, rank: int) -> int:
        """The virtual host of a rank placed here."""
        return next(r.home for r in self.place.ranks if r.rank == rank)


_ADAPTER = TypeAdapter(JobEntry)
_log = logging.getLogger(__name__)


def boot_id() -> str:
    """Names this run of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Journal:
    """The job records of one node, and the folders that they speak of: ``STATE/jobs/JOB/{entry.json, home-K,
    store}``."""

    def __init__(self, state_dir: Path) -> None:
        self._jobs = state_dir / "jobs"
        self._jobs.mkdir(parents=True, exist_ok=True)
        self.trash = Trash(state_dir / "trash")

    def folder(self, job_id: str) -> Path:
        """The job's folder on this node."""
        return self._jobs / job_id

    def home(self, job_id: str, home: int) -> Path:
        """One virtual host's files."""
        return self.folder(job_id) / f"home-{home}"

    def store_path(self, job_id: str) -> Path:
        """The rendezvous store's file, used on the job's leader."""
        return self.folder(job_id) / "store"

    def save(self, entry: JobEntry) -> JobEntry:
        """Replace a record: a kill at any instant leaves the one before or this one."""
        folder = self.folder(entry.job_id)
        folder.mkdir(exist_ok=True)
        temporary = folder / "entry.json.tmp"
        temporary.write_bytes(_ADAPTER.dump_json(entry))
        os.rename(temporary, folder / "entry.json")
        return entry

    def load(self) -> list[JobEntry]:
        """All records, by job. A folder without one is the beginning of a job that was never said to be
        here; a folder whose record was torn goes, with all that it holds."""
        entries: list[JobEntry] = []
        for folder in sorted(self._jobs.iterdir()):
            try:
                entries.append(_ADAPTER.validate_json((folder / "entry.json").read_bytes()))
            except FileNotFoundError:
                continue
            except ValidationError as error:
                if error.errors()[0]["type"] == "json_invalid":
                    _log.warning("%s is torn (a loss of power?): the job is not here any more", folder)
                    self.trash.take(folder)
                    continue
                raise RuntimeError(
                    f"{folder / 'entry.json'} was written by another version of Midstep: {error}"
                ) from error
        return entries

    def forget(self, job_id: str) -> None:
        """Remove a record. The job's files are gone already."""
        folder = self.folder(job_id)
        for name in ("entry.json", "entry.json.tmp", "store"):
            (folder / name).unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError:
            pass  # something that is not ours lies there; a leftover folder harms nothing
