"""Steady state: what a process group in Python costs on a launch-bound model and on a large one."""

from __future__ import annotations

import sys

from common import Rank, emit

CASES = [
    (model, steps, special)
    for model, steps in (("small", 60), ("gpt-large", 3))
    for special in ("", "graphs", "compiled")
]


class Case:
    def __init__(self, model: str, steps: int, special: str) -> None:
        self.model, self.special = model, special
        words = [special] if special else []
        self.rank = Rank(f"overhead-{model}-{special}", "overhead.py", model, steps, *words, pid_ns=False)

    def run(self) -> None:
        error = ""
        try:
            self.rank.wait_lines(1, "ready", 150)
            self.rank.go()
            self.rank.wait_lines(1, "done", 120)
        except Exception as caught:
            error = repr(caught)[:900]
        finally:
            emit(
                "exp5.overhead",
                model=self.model,
                special=self.special,
                found=self.rank.lines("result"),
                error=error,
            )
            self.rank.kill()


def main() -> None:
    wanted = sys.argv[1:]
    for model, steps, special in CASES:
        if not wanted or model in wanted or f"{model}-{special}" in wanted:
            Case(model, steps, special).run()


if __name__ == "__main__":
    main()
