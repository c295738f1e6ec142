# ruff: noqa: SIM115 (open files are the subject)
"""Subprocess trees, threads, and one process that the job itself has stopped."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time

from pause import pause

child = subprocess.Popen(
    [
        sys.executable,
        "-c",
        "import os,sys\nprint(os.getpid())\nfor l in sys.stdin: print(l.strip()[::-1], flush=True)",
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
)
child.stdin.write("before\n")
child.stdin.flush()
sh = subprocess.Popen(
    ["sh", "-c", "(sleep 0.5; while [ ! -e go ]; do sleep 0.05; done; echo grandchild) & wait; exit 7"],
    start_new_session=True,
)
stopped = subprocess.Popen(["sleep", "1000"])
stopped.send_signal(signal.SIGSTOP)
os.waitpid(stopped.pid, os.WUNTRACED)
zombie = subprocess.Popen(["true"])
time.sleep(0.1)
jobs, done = queue.Queue(), queue.Queue()
threads = [threading.Thread(target=lambda: [done.put(x * x) for x in iter(jobs.get, None)]) for _ in range(8)]
[t.start() for t in threads]
local = threading.local()
local.value = 5
pause()
child.stdin.write("after\n")
child.stdin.close()
print(child.stdout.read(), child.wait(), sh.wait(), zombie.wait())
[jobs.put(i) for i in range(100)]
[jobs.put(None) for _ in threads]
[t.join() for t in threads]
print(sum(done.get() for _ in range(100)), local.value)
print(open(f"/proc/{stopped.pid}/stat").read().split()[2])
stopped.send_signal(signal.SIGCONT)
stopped.kill()
print(stopped.wait())
