import ctypes
import os
import select
import signal
import socket
import struct

from pause import pause

libc = ctypes.CDLL(None, use_errno=True)
event = libc.eventfd(7, 0)
mask = ctypes.create_string_buffer(struct.pack("Q", 1 << (signal.SIGUSR1 - 1)), 8)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
sigfd = libc.signalfd(-1, mask, 0)
os.kill(os.getpid(), signal.SIGUSR1)
r, w = os.pipe()
os.write(w, b"in the pipe")
a, b = socket.socketpair()
a.send(b"in the socket")
ep = select.epoll()
for fd in (event, sigfd, r, b.fileno()):
    ep.register(fd, select.EPOLLIN)
ino = libc.inotify_init()
libc.inotify_add_watch(ino, b".", 0x100)
open("seen-before", "w").close()
pidfd = os.pidfd_open(os.getpid())
mem = os.memfd_create("mem")
os.write(mem, b"m" * 10000)
pause()
os.read(ino, 4096) if select.select([ino], [], [], 0)[0] else None
open("seen-after", "w").close()
print(b"seen-after" in os.read(ino, 4096))
print(
    len(ep.poll(0)),
    struct.unpack("Q", os.read(event, 8)),
    struct.unpack("I", os.read(sigfd, 128)[:4]),
    os.read(r, 100),
    b.recv(100),
)
os.lseek(mem, 0, 0)
print(len(os.read(mem, 20000)), os.readlink(f"/proc/self/fd/{mem}"))
signal.pidfd_send_signal(pidfd, 0)
print("pidfd")
