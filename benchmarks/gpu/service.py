"""The service on a GPU: jobs suspended, resumed and moved; each loss is compared with an undisturbed run's.

usage: service.py [cuda|cpu] [PART ...]; JSON lines as they come. `cpu` rehearses all of it without a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from common import emit, wait_for
from loopback import Fleet, fleet
from service_run import CUDA, DEVICE, NODES, ROOT, Run, device, run_plainly, say_equal, submit

BALLAST_MB = "256" if CUDA else "16"
LARGE_MB = os.environ.get("MIDSTEP_GPU_LARGE_MB", "4096") if CUDA else "64"
PLAIN = "plain python without Midstep"
HOG = """
import time, torch
blocks = []
try:
    while True:
        blocks.append(torch.empty(256 << 20, dtype=torch.uint8, device="cuda"))
except torch.OutOfMemoryError:
    print("full", flush=True)
time.sleep(300)
"""


@contextmanager
def plain_beside(*words: str) -> Generator[list[str]]:
    """The same script without Midstep, at the same time; what it printed is there at the end."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(run_plainly(list(words))))
    thread.start()
    try:
        yield found
    finally:
        thread.join()


def say_as_calm(run: Run, calm: Run, against: str = "an undisturbed run under Midstep") -> None:
    """When both have ended."""
    calm.until("completed")
    run.until("completed")
    say_equal(run.name, run, calm.lines, against)


def ddp(there: Fleet) -> None:
    """Two ranks that share the GPU: suspended, resumed, moved to the other node, and back."""
    words = ("service_ddp.py", DEVICE, "600" if CUDA else "200", BALLAST_MB)
    calm = submit(there.client, "ddp-calm", "c", 2, *words)
    run = submit(there.client, "ddp", "", 2, *words)
    run.until_steps(20)
    run.suspend()
    run.resume()
    run.migrate()
    run.migrate("migrate back")
    say_as_calm(run, calm)


def wide(there: Fleet) -> None:
    """Four ranks on two nodes, each with a GPU of its own by name: one cut, two agents and proxies."""
    words = ("service_ddp.py", DEVICE, "400" if CUDA else "120", BALLAST_MB)
    run = submit(there.client, "wide", "", 4, *words, devices=2)
    calm = submit(there.client, "wide-calm", "", 4, *words, devices=2)
    run.until_steps(15)
    run.suspend()
    run.resume()
    run.suspend()
    run.resume()
    say_as_calm(run, calm)


def shared(there: Fleet) -> None:
    """Four ranks of one home on one GPU, which exchange gradients in its memory, against ranks that do it
    through the host's."""
    words = ("service_ddp.py", DEVICE, "500" if CUDA else "120", BALLAST_MB)
    calm = submit(there.client, "shared-calm", "c", 4, *words, MIDSTEP_DEVICE_EXCHANGE="0")
    run = submit(there.client, "shared", "a", 4, *words)
    run.until_steps(15)
    run.suspend()
    run.resume()
    run.migrate()
    run.suspend()
    run.resume()
    run.migrate("migrate back")
    say_as_calm(run, calm, "ranks that use the host's memory")


def resized(there: Fleet) -> None:
    """Two ranks on two nodes, on one, on two again. Suspended meanwhile: on loopback a rank cannot be
    restored beside its original, whose CUDA library has a socket of the same name (nodes of `midstep up` have
    networks of their own)."""
    words = ("service_ddp.py", DEVICE, "600" if CUDA else "200", BALLAST_MB)
    calm = submit(there.client, "resized-calm", "c", 2, *words)
    run = submit(there.client, "resized", "", 2, *words, devices=2)
    run.until_steps(20)
    for devices in (1, 2):
        run.suspend()
        there.client.resize(run.job, devices)
        run.resume(f"resume on {devices}")
    say_as_calm(run, calm)


def loader(there: Fleet) -> None:
    """One rank with forked workers; the first suspension is refused and undone, then it moves twice."""
    words = ("service_loader.py", DEVICE, "1000" if CUDA else "700", BALLAST_MB)
    with plain_beside(*words, "/dev/null") as plain:
        run = submit(there.client, "loader", "a", 1, *words, "let-go")
        run.until_steps(10)
        run.move("suspend, refused", lambda: there.client.suspend(run.job), "running")
        (there.nodes["a"].state / "jobs" / run.job / "home-0" / "work" / "let-go").touch()
        run.until_steps(len(run.lines()) + 5)
        run.suspend()
        run.resume()
        run.migrate()
        run.until("completed")
    say_equal("loader", run, lambda _: plain, PLAIN)


def graphs(there: Fleet) -> None:
    """A training step that is one CUDA graph, with expandable segments and pinned memory."""
    words = ("service_graph.py", DEVICE, "900" if CUDA else "400")
    with plain_beside(*words) as plain:
        run = submit(there.client, "graphs", "", 1, *words)
        run.until_steps(10)
        run.suspend()
        run.resume()
        run.migrate()
        run.until("completed")
    say_equal("graphs", run, lambda _: plain, PLAIN)


def large(there: Fleet) -> None:
    """A rank with more on its device, alone on the machine; the second cut with huge pages."""
    words = ("service_loader.py", DEVICE, "400", LARGE_MB, "/dev/null")
    run = submit(there.client, "large", "", 1, *words)
    run.until_steps(10)
    run.suspend()
    run.resume()
    with huge_pages():
        run.suspend("suspend, huge pages")
        run.resume("resume, huge pages")
    run.until("completed")
    say_equal("large", run, lambda _: run_plainly(list(words)), PLAIN)


@contextmanager
def huge_pages() -> Generator[None]:
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    before = Path(path).read_text().split("[")[1].split("]")[0]
    try:
        Path(path).write_text("always" if CUDA else before)
        yield
    finally:
        Path(path).write_text(before)


def crash(there: Fleet) -> None:
    """The agent is killed before and after what it asks of the GPU; another one finishes or undoes it."""
    words = ("service_loader.py", DEVICE, "1500" if CUDA else "900", BALLAST_MB, "/dev/null")
    with plain_beside(*words) as plain:
        run, node = submit(there.client, "crash", "a", 1, *words), there.nodes["a"]
        run.until_steps(10)
        points = ["gpu.cuda-lock:after", "gpu.cuda-checkpoint:after"] if CUDA else ["dump.freeze:after"]
        for point in [*points, "dump.dump:before", "dump.dump:after"]:
            node.restart(point)
            run.until_running(5)
            what = f"suspend, killed at {point}"
            run.move(what, lambda: reborn(there, run, "suspend"), "suspended", more=0)
            run.resume()
        points = ["gpu.cuda-restore:before", "gpu.cuda-restore:after"] if CUDA else ["run.thaw:after"]
        for point in points:
            run.suspend()
            node.restart(point)
            wait_for("the node", lambda: there.client.health().nodes_connected == len(there.nodes), 30)
            run.move(f"resume, killed at {point}", lambda: reborn(there, run, "resume"), "running")
        run.until("completed")
    say_equal("crash", run, lambda _: plain, PLAIN)


def reborn(there: Fleet, run: Run, ask: str) -> None:
    """Ask for something at which the agent of node a will die, and start another agent when it has."""
    getattr(there.client, ask)(run.job)
    there.nodes["a"].agent.wait(40)
    there.nodes["a"].restart()


def full(there: Fleet) -> None:
    """Resumed onto a GPU that another program has filled: it stays suspended until there is room."""
    words = ("service_loader.py", DEVICE, "300", BALLAST_MB, "/dev/null")
    with plain_beside(*words) as plain:
        run = submit(there.client, "full", "", 1, *words)
        run.until_steps(10)
        run.suspend()
    hog = subprocess.Popen([sys.executable, "-c", HOG], stdout=subprocess.PIPE) if CUDA else None
    if hog is not None and hog.stdout is not None:
        emit("service.hog", said=hog.stdout.readline().decode().strip())
        run.move("resume, full", lambda: there.client.resume(run.job), "suspended", more=0)
        hog.kill()
        hog.wait()
    run.resume()
    run.until("completed")
    say_equal("full", run, lambda _: plain, PLAIN)


PARTS = {
    "ddp": ddp, "shared": shared, "resized": resized, "wide": wide, "loader": loader, "graphs": graphs,
    "crash": crash, "full": full, "large": large,
}  # fmt: skip


def main() -> None:
    wanted = sys.argv[2:] or list(PARTS)
    begun_s = time.monotonic()
    with fleet(ROOT, {name: device() for name in NODES}) as there:
        emit("service.up", up_s=time.monotonic() - begun_s, devices=[d.device_type for d in device()])
        for name in wanted:
            begun_s = time.monotonic()
            try:
                PARTS[name](there)
            except (Exception, SystemExit) as error:
                explain(there, name, error)
                if isinstance(error, SystemExit):
                    raise
            emit("service.part", part=name, duration_s=round(time.monotonic() - begun_s, 1))
    shutil.rmtree(ROOT, ignore_errors=True)


def explain(there: Fleet, part: str, error: BaseException) -> None:
    emit("service.failed", part=part, error=f"{type(error).__name__}: {error}"[:3000])
    for job in there.client.jobs():
        end = there.client.logs(job.job_id, 0).text[-1500:]
        emit("service.job", name=job.name, state=job.state, failure=str(job.failure), log=end)
    for log in sorted(ROOT.glob("*.log")):
        emit("service.log", name=log.name, end=log.read_text(errors="replace")[-2500:])


if __name__ == "__main__":
    main()
