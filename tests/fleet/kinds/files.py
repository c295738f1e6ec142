"""Files in many states: appended, mapped, deleted but open, sparse, locked, linked; in /tmp and /dev/shm."""
# ruff: noqa: SIM115  (that they stay open is the point)

import fcntl
import hashlib
import mmap
import os
import tempfile
import time

os.makedirs("out/deep", exist_ok=True)
log = open("out/log.txt", "w", buffering=1)
os.symlink("log.txt", "out/link")
nameless = tempfile.TemporaryFile("w+b")
shared = open("/dev/shm/table", "w+b")
os.truncate(shared.fileno(), 1 << 16)
table = mmap.mmap(shared.fileno(), 1 << 16)
os.unlink("/dev/shm/table")
named = open("/tmp/named", "w+b")
sparse = open("out/deep/sparse", "w+b")
fcntl.flock(log, fcntl.LOCK_EX)
digest = hashlib.sha256()
for step in range(60):
    digest.update(f"{step}".encode())
    log.write(digest.hexdigest() + "\n")
    nameless.write(digest.digest())
    named.write(digest.digest())
    named.flush()
    sparse.seek(step << 20)
    sparse.write(digest.digest())
    table[step * 32 : step * 32 + 32] = digest.digest()
    print("step", step, digest.hexdigest()[:12], flush=True)
    time.sleep(0.04)
nameless.seek(0)
everything = hashlib.sha256(nameless.read() + table[:] + open("/tmp/named", "rb").read())
everything.update(open("out/link", "rb").read())
sparse.flush()
with open("out/deep/sparse", "rb") as again:
    everything.update(hashlib.sha256(again.read()).digest())
print("all", everything.hexdigest(), flush=True)
os.remove("/tmp/named")
os.remove("out/deep/sparse")
