"""The job's store, through everything that PyTorch has for it. Plain PyTorch but for what it may not open."""

import datetime
import json
import os
import time

import torch
import torch.distributed as dist

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
MOMENT = datetime.timedelta(seconds=0.3)


def sockets():
    links = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    return [link for link in links if link.startswith("socket")]


store = dist.TCPStore("localhost", 1234, SIZE, RANK == 0)
assert isinstance(store, dist.Store) and store.port == 1234 and store.host == "localhost"
if RANK == 0:
    time.sleep(0.2)  # the others wait for it
    store.set("key", "value")
assert store.get("key") == b"value"
assert store.add("count", 2) >= 2
store.wait(["key"], datetime.timedelta(seconds=5))
while store.add("count", 0) < 2 * SIZE:
    time.sleep(0.01)
assert store.check(["key", "count"]) and not store.check(["key", "nothing"])
for call in (
    lambda: store.wait(["nothing"], MOMENT),
    lambda: (store.set_timeout(MOMENT), store.get("nothing")),
):
    try:
        call()
    except RuntimeError as error:
        assert "nothing" in str(error) and "timeout" in str(error), error
    else:
        raise AssertionError("a wait for nothing ended")
own = f"own{RANK}"
assert store.compare_set(own, "", "a") == b"a"
assert store.compare_set(own, "b", "c") == b"a"
assert store.compare_set(own, "a", "c") == b"c"
store.append(own, "d")
assert store.get(own) == b"cd"
store.multi_set([f"{own}1", f"{own}2"], ["x", "y"])
assert store.multi_get([f"{own}1", f"{own}2"]) == [b"x", b"y"]
assert store.delete_key(f"{own}1") and not store.delete_key(f"{own}1")
store.queue_push(f"{own}q", "first")
store.queue_push(f"{own}q", "second")
assert store.queue_len(f"{own}q") == 2 and store.queue_pop(f"{own}q") == b"first"
assert store.num_keys() > 2
prefixed = dist.PrefixStore("here", store.clone())
prefixed.set(own, b"\x00\xffbytes")
assert prefixed.get(own) == b"\x00\xffbytes" and store.get(f"here/{own}") == b"\x00\xffbytes"
assert prefixed.add(f"n{RANK}", 3) == 3 and prefixed.check([own]) and prefixed.delete_key(own)
large = os.urandom(300_000)
store.set(f"{own}large", large)
assert store.get(f"{own}large") == large

# Worlds: by store, by address twice in a row, by environment.
dist.init_process_group("gloo", store=store, rank=RANK, world_size=SIZE)
t = torch.ones(1)
dist.all_reduce(t)
assert t.item() == SIZE
dist.destroy_process_group()
for _ in range(2):
    dist.init_process_group("gloo", init_method="tcp://localhost:4321", rank=RANK, world_size=SIZE)
    dist.all_reduce(t.fill_(1))
    assert t.item() == SIZE
    dist.destroy_process_group()
dist.init_process_group()
dist.barrier()
late = dist.new_group(timeout=MOMENT)
if RANK == 0:
    try:
        dist.all_reduce(t, group=late)
    except RuntimeError as error:
        assert "Timed out" in str(error), error
    else:
        raise AssertionError("rank 0 reduced alone")
dist.barrier()
assert not sockets(), sockets()
dist.destroy_process_group()
print(json.dumps("done"))
