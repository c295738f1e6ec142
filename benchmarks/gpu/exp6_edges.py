"""The driver at the edges: order of calls, deadlines, long kernels, stopped and killed ranks, several."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from common import SCRATCH, CudaDriver, Phase, Rank, alive, dump_and_restore, emit

driver = CudaDriver(deadline_s=20)


def name(code: int | None) -> str:
    return driver.libcuda().error_name(code)


def one(phase: Phase, pid: int, timeout_ms: int = 0) -> str:
    rank = driver.run_phase(phase, [pid], timeout_ms=timeout_ms).ranks[0]
    return f"{name(rank.code)} in {rank.duration_s:.3f} s"


def before_cuinit() -> None:
    library = ctypes.CDLL("libcuda.so.1")
    state = ctypes.c_int(-1)
    code = library.cuCheckpointProcessGetState(os.getpid(), ctypes.byref(state))
    begun_s = time.monotonic()
    library.cuInit(0)
    emit("exp6.init", state_before_cuinit=code, cuinit_s=time.monotonic() - begun_s)


def namespaces() -> None:
    """In which namespaces does CUDA start at all?"""
    ask = "import ctypes; print(ctypes.CDLL('libcuda.so.1').cuInit(0))"
    found = {}
    for flags in (
        "",
        "--ipc",
        "--mount",
        "--pid --fork",
        "--pid --fork --mount --mount-proc",
        "--net",
        "--time --fork",
        "--uts",
    ):
        command = (
            ["unshare", *flags.split(), sys.executable, "-c", ask] if flags else [sys.executable, "-c", ask]
        )
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
        found[flags or "none"] = (
            name(int(said.stdout)) if said.stdout.strip().isdigit() else said.stderr[-200:]
        )
    emit("exp6.namespaces", cuinit=found)


def order_of_calls() -> None:
    rank = Rank("order", "spin.py", 0)
    rank.wait_lines(5)
    found = {"state of itself": driver.libcuda().state(os.getpid()), "of pid 1": driver.libcuda().state(1)}
    found["of no process"] = driver.libcuda().state(4_000_000)
    found["restore thread"], found["rank pid"] = driver.libcuda().restore_thread(rank.pid), rank.pid
    sequence = [
        Phase.UNLOCK,
        Phase.CHECKPOINT,
        Phase.RESTORE,
        Phase.LOCK,
        Phase.LOCK,
        Phase.CHECKPOINT,
        Phase.CHECKPOINT,
    ]
    sequence += [
        Phase.UNLOCK,
        Phase.LOCK,
        Phase.RESTORE,
        Phase.RESTORE,
        Phase.CHECKPOINT,
        Phase.RESTORE,
        Phase.UNLOCK,
        Phase.UNLOCK,
    ]
    calls = [
        f"{phase.name}: {one(phase, rank.pid, 5000)} -> {getattr(driver.state(rank.pid), 'name', None)}"
        for phase in sequence
    ]
    count = len(rank.lines())
    rank.wait_lines(count + 5)
    emit("exp6.order", found=found, calls=calls, goes_on=all(line.endswith("ok") for line in rank.lines()))
    rank.kill()


def long_kernel() -> None:
    for seconds in (0.0, 0.1, 3.0):
        rank = Rank(f"spin-{seconds}", "spin.py", seconds)
        rank.wait_lines(2)
        times = []
        for _ in range(5 if seconds < 1 else 2):
            times.append(driver.lock([rank.pid], 20_000).duration_s)
            driver.unlock([rank.pid])
            rank.wait_lines(len(rank.lines()) + 1)
        time.sleep(0.2)
        short = one(Phase.LOCK, rank.pid, 300)
        state = str(driver.state(rank.pid))
        driver.rollback([rank.pid])
        count = len(rank.lines())
        rank.wait_lines(count + 2)
        emit(
            "exp6.long",
            kernel_s=seconds,
            lock_s=times,
            lock_with_300_ms=short,
            state=state,
            goes_on=rank.lines()[-1],
        )
        rank.kill()


def stopped() -> None:
    """SIGSTOP before the lock, and after it, and after the checkpoint."""
    for when in ("before lock", "before checkpoint", "before restore"):
        rank = Rank("stopped", "spin.py", 0)
        rank.wait_lines(5)
        calls = []
        for phase in (Phase.LOCK, Phase.CHECKPOINT, Phase.RESTORE, Phase.UNLOCK):
            if when == f"before {phase.name.lower()}":
                os.kill(rank.pid, signal.SIGSTOP)
                with ThreadPoolExecutor(1) as pool:
                    answer = pool.submit(one, phase, rank.pid, 2000)
                    time.sleep(4)
                    returned = answer.done()
                    os.kill(rank.pid, signal.SIGCONT)
                    calls.append(f"{phase.name} while stopped: returned={returned}: {answer.result()}")
            else:
                calls.append(f"{phase.name}: {one(phase, rank.pid, 2000)}")
        time.sleep(0.5)
        driver.rollback([rank.pid])
        count = len(rank.lines())
        rank.wait_lines(count + 3)
        emit("exp6.stopped", when=when, calls=calls)
        rank.kill()


def killed() -> None:
    """The rank dies while it is being checkpointed: what does the agent's call do?"""
    rank = Rank("killed", "train.py", "--gb", 4, "--steps", 10_000)
    rank.wait_lines(5)
    calls = [one(Phase.LOCK, rank.pid, 5000)]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(one, Phase.CHECKPOINT, rank.pid)
        time.sleep(0.15)
        os.kill(rank.pid, signal.SIGKILL)
        calls.append(answer.result())
    emit("exp6.killed", calls=calls, state=driver.libcuda().state(rank.pid), alive=alive(rank.pid))
    rank.kill()


def several(count: int) -> None:
    """All ranks of one device: one after another and in one pass; then all through CRIU."""
    ranks = [Rank(f"several-{i}", "train.py", "--gb", 1, "--steps", 100_000) for i in range(count)]
    try:
        for rank in ranks:
            rank.wait_lines(5)
        pids = [rank.pid for rank in ranks]
        for way in ("one pass", "one after another") * 3:
            groups = [pids] if way == "one pass" else [[pid] for pid in pids]
            times = {}
            for phase in Phase:
                times[f"{phase.name.lower()}_s"] = sum(
                    driver.run_phase(phase, group, 10_000).duration_s for group in groups
                )
                assert all(driver.state(pid) is not None for pid in pids)
            time.sleep(0.3)
            emit("exp6.several", ranks=count, way=way, **times)
        driver.lock(pids, 10_000)
        bytes_moved = driver.checkpoint(pids).moved_bytes
        with ThreadPoolExecutor(count) as pool:
            parts = list(pool.map(lambda rank: dump_and_restore(rank, rank.folder / "images"), ranks))
        pids = [rank.pid for rank in ranks]
        driver.restore(pids)
        driver.unlock(pids)
        counts = [len(rank.lines()) for rank in ranks]
        for rank, before in zip(ranks, counts, strict=True):
            rank.wait_lines(before + 5)
        shortest = min(len(rank.lines()) for rank in ranks)
        same = all(rank.lines()[:shortest] == ranks[0].lines()[:shortest] for rank in ranks)
        emit(
            "exp6.several_criu",
            ranks=count,
            moved_bytes=bytes_moved,
            dump_s=[p["criu_dump_s"] for p in parts],
            same_losses=same,
            steps=shortest,
        )
    finally:
        for rank in ranks:
            rank.kill()


def two_ranks() -> None:
    several(2)


def four_ranks() -> None:
    several(4)


def restored_thread() -> None:
    """Host pids and restore threads before and after CRIU, with and without a PID namespace."""
    for pid_ns in (True, False):
        rank = Rank(f"thread-{pid_ns}", "spin.py", 0, pid_ns=pid_ns)
        rank.wait_lines(5)
        facts = {"pid": rank.pid, "thread": driver.libcuda().restore_thread(rank.pid)}
        driver.lock([rank.pid], 5000)
        driver.checkpoint([rank.pid])
        dump_and_restore(rank, SCRATCH / f"thread-{pid_ns}/images")
        facts |= {"pid_after": rank.pid, "thread_after": driver.libcuda().restore_thread(rank.pid)}
        facts["state_after"] = str(driver.state(rank.pid))
        facts["inner_pid"] = rank.inner_pid()
        facts["state_by_inner_pid"] = driver.libcuda().state(rank.inner_pid())
        driver.restore([rank.pid])
        driver.unlock([rank.pid])
        count = len(rank.lines())
        rank.wait_lines(count + 3)
        emit("exp6.thread", pid_ns=pid_ns, **facts)
        rank.kill()


def main() -> None:
    parts = [before_cuinit, namespaces, order_of_calls, long_kernel, stopped, killed, restored_thread]
    parts += [two_ranks, four_ranks]
    wanted = sys.argv[1:]
    for part in parts:
        if wanted and getattr(part, "__name__", "") not in wanted:
            continue
        try:
            part()
        except Exception as error:
            emit("exp6.failed", part=getattr(part, "__name__", ""), error=repr(error)[:900])


if __name__ == "__main__":
    main()
