"""A pseudo terminal of the job's own, both ends inside."""

import os
import pty
import subprocess

from pause import pause

main, sub = pty.openpty()
child = subprocess.Popen(
    ["sh", "-c", "read a; echo got $a; read b; echo got $b"], stdin=sub, stdout=sub, start_new_session=True
)
os.close(sub)
os.write(main, b"one\n")
seen = b""
while b"got one" not in seen:
    seen += os.read(main, 100)
pause()
os.write(main, b"two\n")
while b"got two" not in seen:
    seen += os.read(main, 100)
print(child.wait(), seen)
