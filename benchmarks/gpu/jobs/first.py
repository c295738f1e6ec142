"""Process 1 of a rank's PID namespace: starts the rank, or waits for CRIU to put one here; collects the dead.

first.py LAST_PID [COMMAND...]   the next pid is LAST_PID + 1: CRIU must not take one of the rank it restores
"""

import os
import sys
import time

if int(sys.argv[1]):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(sys.argv[1])
os.write(1, b"ready\n")
if len(sys.argv) > 2 and os.fork() == 0:
    os.execv(sys.argv[2], sys.argv[2:])
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.02)
