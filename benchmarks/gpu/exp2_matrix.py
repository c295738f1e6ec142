"""What the checkpoint accepts: features of CUDA and torch in one process, memory shared between two."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from common import CudaDriver, Phase, Rank, cut, emit, wait_for

FEATURES = [
    "plain",
    "expandable",
    "malloc_async",
    "pinned",
    "streams",
    "graphs",
    "compiled",
    "compiled_graphs",
]
FEATURES += ["convolution", "nccl", "dataloader", "dataloader_closed", "dataloader_unmapped", "managed"]


def feature(name: str) -> None:
    driver = CudaDriver(deadline_s=60)
    rank = Rank(f"feature-{name}", "feature.py", name)
    try:
        rank.wait_lines(3, timeout_s=150)
        for kind in ("memory", "criu"):
            try:
                parts = cut(driver, rank, rank.folder / "images" if kind == "criu" else None, inspect=True)
                emit("exp2.feature", name=name, kind=kind, ok=True, **parts)
            except Exception as error:
                emit("exp2.feature", name=name, kind=kind, ok=False, error=repr(error)[:900])
                driver.rollback([rank.pid])
        count = len(rank.lines())
        rank.wait_lines(count + 5)
        wrong = [line for line in rank.lines() if not line.endswith("ok")]
        emit("exp2.bits", name=name, steps=len(rank.lines()), wrong=len(wrong), first=wrong[:1])
    except Exception as error:
        emit("exp2.feature", name=name, ok=False, error=repr(error)[:900])
    finally:
        rank.kill()


class Pair:
    def __init__(self, kind: str, megabytes: int, scenario: str) -> None:
        self.driver = CudaDriver(deadline_s=30)
        name = f"pair-{kind}-{list(SCENARIOS).index(scenario)}"
        owner = Rank(name, "pair.py", kind, "owner", ".", megabytes, pid_ns=False)
        guest = Rank(f"{name}-guest", "pair.py", kind, "guest", str(owner.folder), megabytes, pid_ns=False)
        self.ranks = {"owner": owner, "guest": guest}
        self.folder = owner.folder

    def tell(self, role: str, word: str) -> str:
        rank = self.ranks[role]
        count = len(rank.lines("answer"))
        (self.folder / f"{role}.tmp").write_text(word)
        (self.folder / f"{role}.tmp").rename(self.folder / f"{role}.command")
        return rank.wait_lines(count + 1, "answer", 60)[-1].removeprefix("answer ")

    def attempt(self, roles: tuple[str, ...]) -> dict[str, object]:
        """The bare calls, each on all of `roles` in one pass, until one fails; then back to running."""
        pids = [self.ranks[role].pid for role in roles]
        found: dict[str, object] = {}
        for phase in Phase:
            report = self.driver.run_phase(phase, pids, timeout_ms=8000)
            found[phase.name] = [self.driver.libcuda().error_name(rank.code) for rank in report.ranks]
            found[f"{phase.name}_s"] = round(report.duration_s, 4)
            if any(rank.code for rank in report.ranks):
                break
        found["states"] = [str(self.driver.state(pid)) for pid in pids]
        try:
            self.driver.rollback(pids)
        except Exception as error:
            found["rollback"] = repr(error)
        return found

    def goes_on(self) -> dict[str, str]:
        found = {}
        for role, rank in self.ranks.items():
            if not any("failed" not in line for line in rank.lines("answer open")):
                continue
            try:
                rank.wait_lines(len(rank.lines()) + 5, timeout_s=10)
                wrong = [line for line in rank.lines() if not line.endswith("ok")]
                found[role] = f"different: {wrong[0]}" if wrong else "bit-equal"
            except Exception as error:
                found[role] = repr(error)[:400]
        return found

    def kill(self) -> None:
        for rank in self.ranks.values():
            rank.kill()


BOTH = ("owner", "guest")
MAPPED = ["owner open", "guest open", "owner close_fd"]
SCENARIOS: dict[str, tuple[list[str], tuple[str, ...], list[str]]] = {
    "exported, not yet mapped": (["owner open"], ("owner",), ["guest open"]),
    "mapped, both in one pass": (MAPPED, BOTH, []),
    "mapped, owner alone": (MAPPED, ("owner",), ["owner write", "owner read", "guest read"]),
    "mapped, guest alone": (MAPPED, ("guest",), []),
    "guest has made its own copy": (
        [*MAPPED, "guest privatise"],
        BOTH,
        ["owner export", "guest open", "owner write", "owner read", "guest read"],
    ),
    "both have private copies": (
        [*MAPPED, "guest privatise", "owner move"],
        BOTH,
        ["owner open", "guest open"],
    ),
}


def pair(kind: str, scenario: str, megabytes: int = 512) -> None:
    before, roles, after = SCENARIOS[scenario]
    both = Pair(f"{kind}", megabytes, scenario)
    said: dict[str, str] = {}
    facts: dict[str, object] = {"sharing": kind, "mb": megabytes, "scenario": scenario, "checkpointed": roles}
    try:
        for rank in both.ranks.values():
            wait_for("start", lambda rank=rank: both.driver.find_cuda_pids([rank.pid]), 60)
        time.sleep(1)
        for order in before:
            said[order] = both.tell(*order.split())
        facts["goes_on_before"] = both.goes_on()
        facts |= both.attempt(roles)
        facts["goes_on"] = both.goes_on()
        for order in after:
            said[f"then {order}"] = both.tell(*order.split())
        facts["goes_on_at_last"] = both.goes_on() if after else ""
    except Exception as error:
        facts["error"] = repr(error)[:600]
    finally:
        emit("exp2.pair", **facts, said=said)
        both.kill()


def main() -> None:
    names = sys.argv[1:] or [*FEATURES, "ipc", "vmm"]
    work = [(feature, name) for name in names if name in FEATURES]
    work += [(pair, kind, scenario) for kind in ("ipc", "vmm") if kind in names for scenario in SCENARIOS]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda item: item[0](*item[1:]), work))


if __name__ == "__main__":
    main()
