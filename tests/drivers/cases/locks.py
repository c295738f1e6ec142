# ruff: noqa: SIM115 (open files are the subject)
import fcntl
import os

from pause import pause

whole = open("whole.lock", "w")
fcntl.flock(whole, fcntl.LOCK_EX)
part = open("part.lock", "w")
fcntl.lockf(part, fcntl.LOCK_EX, 10, 5)
pause()
if os.fork() == 0:
    for path, call in (("whole.lock", fcntl.flock), ("part.lock", fcntl.lockf)):
        try:
            call(open(path, "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
            print(path, "was free", flush=True)
        except OSError as error:
            print(path, "held", error.errno, flush=True)
    os._exit(0)
os.wait()
