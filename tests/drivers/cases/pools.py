import multiprocessing as mp
import os
from multiprocessing import shared_memory

from pause import pause


def work(x):
    return x * x, os.getppid()


def feed(q, back):
    for item in iter(q.get, None):
        back.put(item * 2)


if __name__ == "__main__":
    with mp.Pool(3) as pool:
        before = pool.map(work, range(10))
        q, back = mp.Queue(), mp.Queue()
        p = mp.Process(target=feed, args=(q, back))
        p.start()
        [q.put(i) for i in range(50)]
        memory = shared_memory.SharedMemory(create=True, size=100000)
        memory.buf[:3] = b"abc"
        value = mp.Value("i", 3)
        lock = mp.Lock()
        event = mp.Event()
        sem = mp.Semaphore(2)
        sem.acquire()
        pause()
        print(before == pool.map(work, range(10)), sum(back.get() for _ in range(50)))
        q.put(None)
        p.join()
        print(
            p.exitcode,
            bytes(memory.buf[:3]),
            value.value,
            lock.acquire(),
            event.is_set(),
            sem.acquire(False),
            sem.acquire(False),
        )
        other = shared_memory.SharedMemory(memory.name)
        print(bytes(other.buf[:3]))
        other.close()
        memory.close()
        memory.unlink()
