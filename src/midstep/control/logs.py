"""What the ranks have written: STATE/jobs/JOB/rank-R.log, a copy of what the agents send."""

from __future__ import annotations

from pathlib import Path

from midstep.control.errors import StateError

MAX_READ_BYTES = 1 << 20


class Logs:
    """Logs of all jobs. Methods may raise StateError when the disk does not take them."""

    def __init__(self, state_dir: Path) -> None:
        self._jobs = state_dir / "jobs"
        self._jobs.mkdir(parents=True, exist_ok=True)

    def write(self, job_id: str, rank: int, offset: int, data: bytes) -> bool:
        """Put bytes where they belong. An offset below the size rewinds the log to the cut that the rank went
        back to. False: bytes before them are missing, nothing was written; the agent must send from
        `size`."""
        path = self._path(job_id, rank)
        try:
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                if offset > file.tell():
                    return False
                if offset < file.tell():
                    file.truncate(offset)
                file.write(data)
        except OSError as error:
            raise StateError(f"cannot write the log {path}: {error.strerror}") from error
        return True

    def size(self, job_id: str, rank: int) -> int:
        """Bytes of a rank's log that are here."""
        try:
            return self._path(job_id, rank).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, job_id: str, rank: int, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on."""
        try:
            with self._path(job_id, rank).open("rb") as file:
                file.seek(offset)
                return file.read(min(limit, MAX_READ_BYTES))
        except FileNotFoundError:
            return b""

    def _path(self, job_id: str, rank: int) -> Path:
        return self._jobs / job_id / f"rank-{rank}.log"
