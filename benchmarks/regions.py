"""How long a job stands still when it goes to another region over a slow line, with and without copy-ahead.

Two DDP ranks that fine-tune: a frozen model, libraries and the interpreter are nearly all of what travels,
and hardly change. (With a small model and nothing frozen the ratio is about 0.4: what is fixed weighs more.
Where all state changes in every step, as in a large model under Adam, copy-ahead saves only the rest: see
docs/run-jobs.md.) Both regions' nodes are on lines of 100 Mbit/s in each direction, limited by the kernel's
tbf, whose queue adds up to 50 ms under load; `netem`, which would delay every packet, is not in every kernel.
Each measurement has a fleet of its own, so that no chunk is in the target region before. Both ways use
archives, compression and chunks; what differs is only when they travel.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks._fleet import ENDED, fleet, log, submit, wait
from benchmarks._link import limited
from benchmarks.registry import benchmark
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView, MoveView

MBIT = 100
RUNS = 2
_BOUND_S = 600.0


@benchmark("copy-ahead", bar=0.35, unit="x", against="the same migration without copy-ahead, 100 Mbit/s")
def copy_ahead() -> list[float]:
    found: list[float] = []
    for _ in range(RUNS):
        without, with_it = _pause(copy_ahead=False), _pause(copy_ahead=True)
        found.append(with_it / without)
    return found


def _pause(*, copy_ahead: bool) -> float:
    """Seconds from the cut until all ranks run in the other region."""
    state = Path(tempfile.mkdtemp(prefix="midstep-bench-"))
    with fleet(regions=2, nodes=1, devices=2, state=state) as client:
        job = submit(client, "finetune.py", ranks=2, region="north")
        wait(client, job, "running")
        while "step" not in log(client, job):
            time.sleep(0.2)
        time.sleep(5)  # it trains
        with limited(state, ["north-1", "south-1"], MBIT):
            client.migrate(job.job_id, "south", copy_ahead)
            view = client.wait(job.job_id, _arrived, _BOUND_S)
        (move,) = [move for move in view.moves if move.kind == "migrate"]
        if view.region != "south" or not move.ok:
            raise RuntimeError(f"not migrated: {move}")
        _tell(view, move, copy_ahead)
        client.cancel(job.job_id)
        _end(client, job)
        return move.duration_s


def _arrived(view: JobView) -> bool:
    moved = any(move.kind == "migrate" and move.message != "under way" for move in view.moves)
    return view.state in ENDED or (moved and view.state == "running")


def _end(client: FleetClient, job: JobView) -> None:
    client.wait(job.job_id, lambda view: view.state in ENDED, _BOUND_S)


def _tell(view: JobView, move: MoveView, copy_ahead: bool) -> None:
    steps = ", ".join(
        f"{s.step.partition('@')[0]} {s.duration_s:.2f} s"
        + (f" ({s.nbytes / 1e6:.1f} MB)" if s.step.startswith("transfer") else "")
        for s in move.steps
        if s.duration_s > 0.1
    )
    rounds = [s for m in view.moves if m.kind == "copy-ahead" for s in m.steps]
    before = "; ".join(f"{s.nbytes / 1e6:.1f} MB in {s.duration_s:.1f} s" for s in rounds)
    words = f"ahead {before}" if copy_ahead else "not ahead"
    print(f"  {words}: stood still for {move.duration_s:.2f} s: {steps}", file=sys.stderr)
