"""What NCCL takes and gloo does not, and layouts that need a copy; checked against sums made here."""

import json
import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

backend = os.environ.get("ASK_FOR", "cpu:gloo,cuda:nccl")
dist.init_process_group(backend)
RANK, SIZE = dist.get_rank(), dist.get_world_size()
PEERS = range(SIZE)


def same(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


assert dist.get_backend() == backend, dist.get_backend()
assert dist.is_gloo_available() and dist.is_initialized()
t = torch.full((5,), RANK + 1.0)
dist.all_reduce(t, dist.ReduceOp.AVG)
same(t, torch.full((5,), sum(range(1, SIZE + 1)) / SIZE))
premul = (
    dist.ReduceOp.PREMUL_SUM(0.5) if callable(dist.ReduceOp.PREMUL_SUM) else dist._make_nccl_premul_sum(0.5)
)
t = torch.full((5,), RANK + 1.0)
dist.all_reduce(t, premul)
same(t, torch.full((5,), sum(range(1, SIZE + 1)) / 2))

# Layouts: what is written lands in the caller's own memory.
base = torch.zeros(6, 4)
view = base.t()[::2]
view += RANK + 1
dist.all_reduce(view)
expected = torch.zeros(6, 4)
expected.t()[::2] = sum(range(1, SIZE + 1))
same(base, expected)
column = torch.zeros(SIZE, 3)
dist.all_gather([column[:, 0][r : r + 1] for r in PEERS], torch.tensor([RANK + 5.0]))
same(column[:, 0], torch.arange(SIZE) + 5.0)
z = torch.zeros(3, dtype=torch.complex64).conj() + (RANK + 1) * (1 + 1j)
dist.broadcast(z, 1)
same(z.resolve_conj(), torch.full((3,), 2 + 2j))
t = torch.tensor([True, RANK == 0, False])
dist.all_reduce(t, dist.ReduceOp.MAX)
assert t.tolist() == [True, True, False]
e = torch.arange(4).to(torch.float8_e4m3fn)
dist.broadcast(e, 0)

# Lists of tensors, also of different sizes.
got = [torch.zeros(RANK + 1) for _ in PEERS]
dist.all_to_all(got, [torch.full((r + 1,), RANK * 10.0 + r) for r in PEERS])
for r in PEERS:
    same(got[r], torch.full((RANK + 1,), r * 10.0 + RANK))
got = [torch.zeros(r + 1) for r in PEERS]
dist.all_gather(got, torch.full((RANK + 1,), float(RANK)))
for r in PEERS:
    same(got[r], torch.full((r + 1,), float(r)))
out = torch.zeros(RANK + 1)
dist.reduce_scatter(out, [torch.full((r + 1,), 1.0 + r) for r in PEERS])
same(out, torch.full((RANK + 1,), SIZE * (RANK + 1.0)))

# Coalescing.
tensors = [torch.full((n,), RANK + 1.0) for n in (1, 2, 3)]
with dist._coalescing_manager():
    for t in tensors:
        dist.all_reduce(t)
for t in tensors:
    same(t, torch.full_like(t, sum(range(1, SIZE + 1))))
outs = [torch.zeros(SIZE * n) for n in (1, 2)]
with dist._coalescing_manager(async_ops=True) as manager:
    for n, out in enumerate(outs, 1):
        dist.all_gather_into_tensor(out, torch.full((n,), float(RANK)))
manager.wait()
same(outs[1], torch.arange(SIZE).repeat_interleave(2).float())

# Groups.
mesh = init_device_mesh("cpu", (SIZE,), mesh_dim_names=("dp",))
assert dist.get_backend(mesh.get_group("dp")) in (backend, "gloo")
half = dist.split_group(split_ranks=[[r] for r in PEERS])
assert half.size() == 1 and dist.get_world_size(half) == 1
mine, _ = dist.new_subgroups(1)
t = torch.ones(2)
dist.all_reduce(t, group=mine)
same(t, torch.ones(2))
for _ in range(3):  # destroyed and made again under the same name
    group = dist.new_group(list(PEERS), use_local_synchronization=True)
    t = torch.ones(3)
    dist.all_reduce(t, group=group)
    same(t, torch.full((3,), float(SIZE)))
    dist.destroy_process_group(group)


# Mistakes raise what torch raises.
def raises(kind, text, call):
    try:
        call()
    except kind as error:
        assert text in str(error), str(error)
    else:
        raise AssertionError(f"nothing was raised: {text}")


if backend != "nccl":  # on a build without CUDA, torch's own error log fails for that name
    raises(ValueError, "Invalid destination rank", lambda: dist.send(torch.ones(1), RANK))
    raises(ValueError, "single-element", lambda: dist.group.WORLD.allreduce([torch.ones(1), torch.ones(1)]))
    raises(ValueError, "invalid root rank", lambda: dist.group.WORLD.broadcast(torch.ones(1), 99))
    raises(ValueError, "non-integral", lambda: dist.all_reduce(torch.ones(1), dist.ReduceOp.BAND))
    raises(
        ValueError,
        "does not support",
        lambda: dist.all_reduce(torch.ones(1, dtype=torch.cfloat), dist.ReduceOp.MAX),
    )
    raises(RuntimeError, "dim 0", lambda: dist.all_to_all_single(torch.ones(SIZE + 1), torch.ones(SIZE + 1)))
    raises(ValueError, "twice", lambda: dist.init_process_group("gloo"))
dist.barrier()
dist.destroy_process_group()
print(json.dumps("done"))
