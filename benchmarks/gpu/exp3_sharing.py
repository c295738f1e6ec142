"""Several ranks on one device: contexts, the lease, giving memory back, whole steps against the ideal.

usage: exp3_sharing.py [MODEL ...] [--steps N]   models: mlp cnn gpt
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from common import Rank, device_used_bytes, emit

MODES = ("drained", "drained-empty", "early", "free")


def contexts() -> None:
    base, used, ranks = device_used_bytes(), [], []
    for number in range(4):
        rank = Rank(f"context-{number}", "context.py")
        ranks.append(rank)
        for stage in range(1, 4):
            rank.wait_lines(stage, "stage")
            (rank.folder / f"go{stage}").touch()
            rank.wait_lines(stage + 1, "stage")
            used.append((number, stage, (device_used_bytes() - base) >> 20))
    emit(
        "exp3.contexts",
        base_mb=base >> 20,
        used_mb_by_rank_and_stage=used,
        torch=[r.lines("stage")[-1] for r in ranks],
    )
    for rank in ranks:
        rank.kill()


class Handover:
    def __init__(self, kind: str, count: int) -> None:
        self.kind = kind
        self.first = Rank(f"hand-{kind}", "handover.py", kind, 0, ".", count, pid_ns=False)
        self.second = Rank(f"hand-{kind}-2", "handover.py", kind, 1, self.first.folder, count, pid_ns=False)

    def run(self) -> None:
        try:
            for rank in (self.first, self.second):
                rank.wait_lines(1, "ready")
            self.first.go()
            self.first.wait_lines(1, "done")
            emit("exp3.handover", kind=self.kind, found=self.first.lines())
        finally:
            self.first.kill()
            self.second.kill()


HANDOVERS = {"futex": 5000, "kernel": 2000, "busy": 100}


def handover() -> None:
    for kind, count in HANDOVERS.items():
        Handover(kind, count).run()


def stop_and_continue() -> None:
    """Time from SIGSTOP of one and SIGCONT of the other to the other's next finished step (of about 1 ms)."""
    ranks = [Rank(f"stop-{i}", "spin.py", 0.0) for i in range(2)]
    for rank in ranks:
        rank.wait_lines(20)
    os.kill(ranks[1].pid, signal.SIGSTOP)
    times = []
    for turn in range(40):
        old, new = ranks[turn % 2], ranks[1 - turn % 2]
        size = new.log.stat().st_size
        begun_s = time.perf_counter()
        os.kill(old.pid, signal.SIGSTOP)
        os.kill(new.pid, signal.SIGCONT)
        while new.log.stat().st_size == size:
            pass
        times.append(time.perf_counter() - begun_s)
        time.sleep(0.05)
    step = [float(line.split()[2]) for line in ranks[0].lines()[5:20]]
    emit("exp3.stop", median_s=sorted(times)[20], worst_s=max(times), step_alone_s=(step[-1] - step[0]) / 14)
    for rank in ranks:
        rank.kill()


def memory() -> None:
    for setting in ("", "expandable_segments:True"):
        rank = Rank(
            "memory", "memory_cost.py", 8, PYTORCH_ALLOC_CONF=setting, PYTORCH_CUDA_ALLOC_CONF=setting
        )
        found = json.loads(rank.wait_lines(1, "result")[0].removeprefix("result "))
        emit("exp3.memory", gb=8, setting=setting, **found)
        rank.kill()


class Group:
    """The ranks of one way to run a job; started early, so that only the run itself is waited for."""

    def __init__(self, model: str, mode: str, world: int, steps: int) -> None:
        self.mode, self.world = mode, world
        count = 1 if mode in ("alone", "serial") else world
        name = f"{model}-{mode}-{world}"
        first = Rank(name, "spliced.py", model, 0, world, mode, ".", steps, pid_ns=False)
        more = [
            Rank(f"{name}-{r}", "spliced.py", model, r, world, mode, first.folder, steps, pid_ns=False)
            for r in range(1, count)
        ]
        self.ranks = [first, *more]

    def run(self) -> list[list[str]]:
        for rank in self.ranks:
            rank.wait_lines(1, "ready", 120)
        self.ranks[0].go()
        for rank in self.ranks:
            rank.wait_lines(1, "done", 150)
        return [line.split()[1:] for rank in self.ranks for line in rank.lines("result")]

    def kill(self) -> None:
        for rank in self.ranks:
            rank.kill()


WAYS = [
    ("alone", 1),
    *[(mode, 2) for mode in ("serial", *MODES)],
    *[(mode, 4) for mode in ("serial", "drained", "free")],
    ("alone", 0),
]


def prepare(model: str, count: int, ways: list[tuple[str, int]] = WAYS) -> list[Group]:
    """All ways of one model, started and waiting; `alone` comes first and last, to see drift."""
    return [Group(model, mode, world, count) for mode, world in ways]


def compare(
    group: Group, found: list[list[str]], alone_s: list[float], serial: dict[int, list[list[str]]]
) -> dict[str, object]:
    """What the rank 0 of a way measured, against `alone` and against the same sums in one process."""
    time_s = float(found[0][0])
    facts: dict[str, object] = {"step_s": time_s, "torch_mb": [int(f[1]) for f in found]}
    if group.mode == "alone":
        alone_s.append(time_s)
        return facts
    facts["to_ideal"] = time_s / (group.world * alone_s[0])
    if group.mode == "serial":
        serial[group.world] = found
        return facts
    reference = serial[group.world]
    losses = {f[3] for f in found} == {f[3] for f in reference}
    facts["bit_equal_to_serial"] = losses and {f[2] for f in found} == {reference[0][2]}
    facts["to_serial"] = time_s / float(reference[0][0])
    return facts


def measure(model: str, groups: list[Group]) -> None:
    alone_s: list[float] = []
    serial: dict[int, list[list[str]]] = {}
    try:
        for group in groups:
            label = {"model": model, "mode": group.mode, "world": group.world}
            try:
                emit("exp3.step", **label, **compare(group, group.run(), alone_s, serial))
            except Exception as error:
                emit("exp3.step", **label, error=repr(error)[:700])
            finally:
                group.kill()
    finally:
        for group in groups:
            group.kill()


def main() -> None:
    words = sys.argv[1:]
    count = int(words[words.index("--steps") + 1]) if "--steps" in words else 60
    models = [word for word in words if word in ("mlp", "cnn", "gpt", "small", "gpt-large")]
    parts = [] if models else [contexts, handover, stop_and_continue, memory]
    for part in parts:
        try:
            part()
        except Exception as error:
            emit("exp3.failed", part=part.__name__, error=repr(error)[:900])
    for model in models or ["mlp", "cnn", "gpt"]:
        measure(model, prepare(model, count))


if __name__ == "__main__":
    main()
