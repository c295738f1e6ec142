"""Steps of R ranks on one GPU against R times the step of the same script with one rank, and one rank under
Midstep against plain torchrun with NCCL; rounds of all ways take turns.

usage: slices.py slice|steady [MODEL[:STEPS[:SPECIAL]] ...] [--rounds N] [--ranks 2,4] [--turns 0]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

PARSER = argparse.ArgumentParser()
PARSER.add_argument("what", choices=("slice", "steady"))
PARSER.add_argument("cases", nargs="*", help="MODEL:STEPS[:SPECIAL]")
PARSER.add_argument("--rounds", type=int, default=3)
PARSER.add_argument("--ranks", type=lambda text: [int(word) for word in text.split(",")], default=[2, 4])
PARSER.add_argument("--ready", type=float, default=60.0, help="seconds that a start may take")
ASKED = PARSER.parse_args()
sys.argv = [sys.argv[0], "cuda"]  # what the modules below look at
from common import emit, wait_for  # noqa: E402
from loopback import Fleet, fleet  # noqa: E402
from service_run import JOBS, NODES, ROOT, Run, device, submit  # noqa: E402

SLICE = ["mlp:30", "cnn:20", "gpt:15", "embedding:40", "tiny:60"]
STEADY = ["small:60", "gpt-large:8", "small:60:graphs", "small:60:compiled"]


class Way:
    """One way to run a model: `ranks` of a job, or plain torchrun (`ranks` 0)."""

    def __init__(self, there: Fleet, words: list[str], ranks: int, number: int) -> None:
        self.ranks, self.times = ranks, list[float]()
        if ranks:
            name = f"{words[0]}-{ranks}-{number}"
            self.node = NODES[number % len(NODES)]
            self.run: Run = submit(there.client, name, self.node, ranks, "measured.py", *words)
            self.folder = there.nodes[self.node].state / "jobs" / self.run.job / "home-0" / "work"
            return
        self.folder = ROOT / f"plain-{'-'.join(words)}"
        shutil.copytree(JOBS, self.folder)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "MIDSTEP"))}
        env |= {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "measured.py", *words], cwd=self.folder, env=env, stdout=log, stderr=log
            )

    def lines(self) -> list[str]:
        text = self.run.log() if self.ranks else (self.folder / "log").read_text()
        if "Traceback" in text or "rror: " in text:
            raise RuntimeError(text[-1500:])
        return text.split("\n")[:-1]

    def until(self, start: str, timeout_s: float) -> str:
        def found() -> str:
            return next((line for line in self.lines() if line.startswith(start)), "")

        return wait_for(f"{start}: {self.lines()[-5:]}", found, timeout_s, 0.05)

    def round(self, number: int) -> None:
        (self.folder / f"go-{number}").touch()
        self.times.append(float(self.until(f"round {number} ", 100).split()[2]))

    def end(self) -> str:
        (self.folder / "end").touch()
        return self.until("ended", 60)


def measure(there: Fleet, what: str, case: str, rounds: int) -> None:
    words = case.split(":")
    kinds: list[int] = ASKED.ranks if what == "slice" else []
    ways = [Way(there, words, ranks, number) for number, ranks in enumerate([1, *kinds] if kinds else [0, 1])]
    for way in ways:
        way.until("ready", ASKED.ready)
    for number in range(rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            way.round(number)
    base, ratios = ways[0].times, {}
    for way in ways[1:]:
        pairs = zip(way.times, base, strict=True)
        ratios[way.ranks] = [round(a / (max(1, way.ranks) * b), 4) for a, b in pairs]
    emit(
        f"gpu.{what}", case=case, ratios=ratios,
        base_s=[round(t, 5) for t in base],
        medians={ranks: round(statistics.median(r), 4) for ranks, r in ratios.items()},
        ends={way.ranks: way.end() for way in ways},
    )  # fmt: skip


def main() -> None:
    with fleet(ROOT, {name: device() for name in NODES}) as there:
        for case in ASKED.cases or (SLICE if ASKED.what == "slice" else STEADY):
            begun_s = time.monotonic()
            try:
                measure(there, ASKED.what, case, ASKED.rounds)
            except Exception as error:
                emit("gpu.failed", case=case, error=repr(error)[-1500:])
                for job in there.client.jobs():
                    for rank in range(max(1, len(job.ranks))):
                        end = there.client.logs(job.job_id, rank, 0).text[-1800:]
                        emit(
                            "gpu.log",
                            name=job.name,
                            state=job.state,
                            why=str(job.failure),
                            rank=rank,
                            end=end,
                        )
                    if job.state == "running":
                        there.client.cancel(job.job_id)
            emit("gpu.case", case=case, took_s=round(time.monotonic() - begun_s, 1))


if __name__ == "__main__":
    main()
