import ctypes

from pause import pause

libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
shm = libc.shmget(0x1234, 65536, 0o1600)
at = libc.shmat(shm, None, 0)
ctypes.memmove(at, b"sysv", 4)
sem = libc.semget(0x77, 2, 0o1600)
libc.semctl(sem, 0, 16, 42)
msg = libc.msgget(0x99, 0o1600)
libc.msgsnd(msg, ctypes.create_string_buffer(b"\1\0\0\0\0\0\0\0hello"), 5, 0)
pause()
again = libc.shmat(libc.shmget(0x1234, 65536, 0), None, 0)
print(ctypes.string_at(again, 4), libc.semctl(sem, 0, 12))
buf = ctypes.create_string_buffer(64)
print(libc.msgrcv(msg, buf, 50, 0, 0), buf.raw[8:13])
