import ctypes
import signal
import struct
import time

from pause import pause

libc = ctypes.CDLL(None, use_errno=True)
start = time.monotonic()
timer = libc.timerfd_create(1, 0)
libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 0, 3600, 0), None)
signal.setitimer(signal.ITIMER_REAL, 3600)
signal.setitimer(signal.ITIMER_PROF, 3000)
pause()
print(time.monotonic() - start < 60, time.clock_gettime(time.CLOCK_BOOTTIME) > 0)
left = ctypes.create_string_buffer(32)
libc.timerfd_gettime(timer, left)
print(
    3500 < struct.unpack("qqqq", left.raw)[2] <= 3601,
    3500 < signal.getitimer(signal.ITIMER_REAL)[0] <= 3601,
    2900 < signal.getitimer(signal.ITIMER_PROF)[0] <= 3001,
)
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.2)
print(hits)
