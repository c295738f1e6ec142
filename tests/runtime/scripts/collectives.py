"""Every operation on several types, layouts and groups; prints a digest of each result. Plain PyTorch."""

import hashlib
import json

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
RANK, SIZE = dist.get_rank(), dist.get_world_size()
PEERS = range(SIZE)
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.uint8, torch.int8, torch.int32, torch.int64]
found = {}


def say(name, *tensors):
    """Keep the digest of results under a name."""
    digest = hashlib.sha256()
    for t in tensors:
        digest.update(str((t.dtype, tuple(t.shape))).encode())
        digest.update(t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    found[name] = digest.hexdigest()[:16]


def values(dtype, *shape, rank=RANK):
    """Numbers that differ between ranks. Small whole ones: for these the order of a sum does not matter."""
    numbers = torch.arange(int(torch.tensor(shape).prod()), dtype=torch.int64).reshape(shape)
    return ((numbers * (rank + 3) + rank) % 5 + 1).to(dtype)


for dtype in FLOATS + INTEGERS:
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.PRODUCT, dist.ReduceOp.MIN, dist.ReduceOp.MAX):
        t = values(dtype, 33)
        dist.all_reduce(t, op)
        say(f"all_reduce {dtype} {op}", t)
for dtype in INTEGERS:
    for op in (dist.ReduceOp.BAND, dist.ReduceOp.BOR, dist.ReduceOp.BXOR):
        t = values(dtype, 9)
        dist.all_reduce(t, op)
        say(f"all_reduce {dtype} {op}", t)
for dtype in (torch.complex64, torch.complex128):
    t = values(dtype, 6) * (1 + 2j)
    dist.all_reduce(t)
    say(f"all_reduce {dtype}", t)
    parts = [torch.zeros(6, dtype=dtype) for _ in PEERS]
    dist.all_gather(parts, values(dtype, 6) * 1j)
    say(f"all_gather {dtype}", *parts)
for count in (0, 1, 70001, 3_000_000):
    t = values(torch.float32, count)
    dist.all_reduce(t)
    say(f"all_reduce of {count}", t)
t = values(torch.float32, 6, 4)
dist.all_reduce(t.t().contiguous().t()[::2] if SIZE < 0 else t)
say("all_reduce matrix", t)
for root in PEERS:
    t = values(torch.float32, 5)
    dist.reduce(t, root)
    say(f"reduce to {root}", t if root == RANK else torch.zeros(1))
    t = values(torch.int64, 5)
    dist.broadcast(t, root)
    say(f"broadcast from {root}", t)
    t = values(torch.float32, 4)
    dist.gather(t, [torch.zeros(4) for _ in PEERS] if root == RANK else None, root)
    got = [torch.zeros(4) for _ in PEERS] if root == RANK else None
    dist.gather(t, got, root)
    say(f"gather to {root}", *(got or []))
    t = torch.zeros(3)
    dist.scatter(t, [values(torch.float32, 3, rank=r) for r in PEERS] if root == RANK else None, root)
    say(f"scatter from {root}", t)
got = [torch.zeros(2, 3) for _ in PEERS]
dist.all_gather(got, values(torch.float32, 2, 3))
say("all_gather", *got)
t = torch.zeros(SIZE * 4)
dist.all_gather_into_tensor(t, values(torch.float32, 4))
say("all_gather_into_tensor", t)
t = torch.zeros(3)
dist.reduce_scatter(t, [values(torch.float32, 3, rank=RANK + r) for r in PEERS])
say("reduce_scatter", t)
t = torch.zeros(2, 2)
dist.reduce_scatter_tensor(t, values(torch.float32, 2 * SIZE, 2))
say("reduce_scatter_tensor", t)
t = torch.zeros(SIZE * 2)
dist.all_to_all_single(t, values(torch.float32, SIZE * 2))
say("all_to_all_single", t)
t = torch.zeros(sum(range(1, SIZE + 1)), 2)
shares = [r + 1 for r in PEERS]
dist.all_to_all_single(
    torch.zeros(SIZE * (RANK + 1)), values(torch.float32, sum(shares)), [RANK + 1] * SIZE, shares
)
t = torch.zeros(SIZE * (RANK + 1))
dist.all_to_all_single(t, values(torch.float32, sum(shares)), [RANK + 1] * SIZE, shares)
say("all_to_all_single uneven", t)

# Point to point.
right, left = (RANK + 1) % SIZE, (RANK - 1) % SIZE
t = torch.zeros(7)
works = [dist.isend(values(torch.float32, 7), right, tag=3), dist.irecv(t, left, tag=3)]
for work in works:
    work.wait()
say("isend irecv", t)
first, second = torch.zeros(2), torch.zeros(2)
ops = [
    dist.P2POp(dist.isend, values(torch.float32, 2), right),
    dist.P2POp(dist.isend, values(torch.float32, 2) + 50, right),
    dist.P2POp(dist.irecv, first, left),
    dist.P2POp(dist.irecv, second, left),
]
for work in dist.batch_isend_irecv(ops):
    work.wait()
say("batch_isend_irecv", first, second)
if RANK == 0:
    sources = []
    for _ in range(SIZE - 1):
        t = torch.zeros(1)
        source = dist.recv(t)
        assert t.item() == source
        sources.append(source)
    assert sorted(sources) == list(range(1, SIZE))
else:
    dist.send(torch.full((1,), float(RANK)), 0)

# Groups, asynchronous, coalesced, objects, sparse.
pair = dist.new_group([0, SIZE - 1])
if RANK in (0, SIZE - 1):
    t = values(torch.float32, 4)
    dist.all_reduce(t, group=pair)
    say("all_reduce in a group", t)
tensors = [values(torch.float32, n) for n in (1, 20, 300)]
for work in [dist.all_reduce(t, async_op=True) for t in tensors]:
    work.wait()
say("three at a time", *tensors)
t = values(torch.float32, 8)
future = dist.all_reduce(t, async_op=True).get_future().then(lambda f: f.value()[0] * 2)
say("a future", future.wait())
everybody = [None] * SIZE
dist.all_gather_object(everybody, {"rank": RANK, "text": "x" * RANK})
assert [e["rank"] for e in everybody] == list(PEERS)
objects = ["a", 1, None] if RANK == 1 else [None] * 3
dist.broadcast_object_list(objects, 1)
assert objects == ["a", 1, None]
mine = [None]
dist.scatter_object_list(mine, [f"to {r}" for r in PEERS] if RANK == 0 else None, 0)
assert mine == [f"to {RANK}"]
t = torch.sparse_coo_tensor([[0, RANK + 1]], [1.0, RANK + 2.0], (SIZE + 2,))
dist.all_reduce(t)
say("sparse", t.to_dense())
dist.barrier()
dist.monitored_barrier()
dist.destroy_process_group()
dist.init_process_group(
    "gloo", init_method=f"file://{__import__('os').getcwd()}/meet", rank=RANK, world_size=SIZE
)
t = values(torch.float32, 4)
dist.all_reduce(t)
say("after a second init", t)
dist.destroy_process_group()
print(json.dumps(found))
