"""A tree of processes that talk through pipes: each level asks the next one, with a wait at the bottom."""

import subprocess
import sys
import time

depth = int(sys.argv[1]) if len(sys.argv) > 1 else 3
below = None
if depth:
    pipe = subprocess.PIPE
    argv = [sys.executable, __file__, str(depth - 1)]
    below = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, bufsize=1)


def answer(number: int) -> int:
    if below is None:
        time.sleep(0.04)
        return number * number % 997
    assert below.stdin is not None and below.stdout is not None
    print(number + depth, file=below.stdin, flush=True)
    return int(below.stdout.readline()) * 3 + 1


if len(sys.argv) > 1:
    for line in sys.stdin:
        print(answer(int(line)), flush=True)
else:
    for step in range(60):
        print("step", step, answer(step), flush=True)
