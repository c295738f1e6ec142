"""A multiprocessing pool, a manager process, shared memory and semaphores between them."""

import multiprocessing as mp
import time
from multiprocessing.shared_memory import SharedMemory


def work(number: int) -> int:
    time.sleep(0.02)
    block = SharedMemory("block")
    block.buf[number % 256] = (block.buf[number % 256] + number) % 256
    block.close()
    return number**3 % 10007


if __name__ == "__main__":
    mp.set_start_method("spawn")
    block = SharedMemory("block", create=True, size=256)
    with mp.Manager() as manager, mp.Pool(2) as pool:
        kept = manager.dict()
        for step, result in enumerate(pool.imap(work, range(90))):
            kept[step] = result
            print("step", step, result, sum(kept.values()), flush=True)
        print("block", sum(block.buf), flush=True)
    block.close()
    block.unlink()
