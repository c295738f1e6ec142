"""/proc is the rank's own, before and after."""

import os

from pause import pause


def look():
    return (
        os.getpid(),
        os.readlink("/proc/self"),
        sorted(int(x) for x in os.listdir("/proc") if x.isdigit()),
        open("/proc/1/comm").read(),
    )


before = look()
pause()
print(before == look(), before)
