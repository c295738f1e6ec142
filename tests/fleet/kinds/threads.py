"""Threads that hand a number round with locks, conditions and timeouts, and one that counts by an event."""

import queue
import threading

mail: list[queue.Queue[int]] = [queue.Queue() for _ in range(4)]
ended = threading.Event()
ticks = threading.local()


def station(here: int) -> None:
    ticks.count = 0
    while (number := mail[here].get()) >= 0:
        ticks.count += 1
        mail[here + 1].put((number * 31 + ticks.count) % 9973)
    mail[here + 1].put(-1)


for here in range(3):
    threading.Thread(target=station, args=(here,)).start()
for step in range(60):
    mail[0].put(step)
    print("step", step, mail[3].get(timeout=60), flush=True)
    ended.wait(0.04)  # never set: a timed wait is cut as well
mail[0].put(-1)
