"""Sums along our tree over buffers of other processes, by CUDA IPC: equal bits everywhere? How fast?"""

from __future__ import annotations

import pickle
import statistics
import sys

from common import HERE, Rank, emit

sys.path.insert(0, str(HERE / "jobs"))
import torch
import tree

MB = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
PLACEMENTS = [[[0, 1, 2, 3]], [[0, 1], [2, 3]], [[0], [1], [2, 3]], [[0, 1], [2], [3]], [[0], [1], [2], [3]]]


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int32)


def median_s(work, repeat: int = 15) -> float:
    times = []
    for number in range(repeat + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        if number >= 3:
            times.append(begin.elapsed_time(end) / 1000)
    return statistics.median(times)


def partial(parts: list[tuple[int, torch.Tensor]]) -> list[tuple[int, torch.Tensor]]:
    """Add neighbours that form an aligned pair, until none is left: (first rank, width, sum) each."""
    width, level = 1, [(first, 1, x) for first, x in parts]
    while width < 4:
        joined, i = [], 0
        while i < len(level):
            first, size, x = level[i]
            mate = level[i + 1] if i + 1 < len(level) else None
            if (
                mate
                and size == width
                and mate[1] == width
                and first % (2 * width) == 0
                and mate[0] == first + width
            ):
                joined.append((first, 2 * width, x + mate[2]))
                i += 2
            else:
                joined.append((first, size, x))
                i += 1
        level, width = joined, 2 * width
    return level


def placed(xs: list[torch.Tensor], placement: list[list[int]]) -> torch.Tensor:
    """Each device reduces what it holds; then the largest aligned subtrees are put together."""
    pieces = [piece for ranks in placement for piece in partial([(r, xs[r].float()) for r in ranks])]
    level = sorted(pieces, key=lambda piece: piece[0])
    while len(level) > 1:
        for i, (first, size, x) in enumerate(level[:-1]):
            other, width, y = level[i + 1]
            if size == width and first % (2 * size) == 0 and other == first + size:
                level[i : i + 2] = [(first, 2 * size, x + y)]
                break
    return level[0][2]


def mapped(rank: int, count: int, dtype: torch.dtype, folder) -> torch.Tensor:
    storage = torch.UntypedStorage._new_shared_cuda(*pickle.loads((folder / f"{rank}.handle").read_bytes()))
    return torch.empty(0, device="cuda", dtype=dtype).set_(storage)[:count]


def reduction(dtype_name: str) -> None:
    dtype = getattr(torch, dtype_name)
    count = (MB << 20) // dtype.itemsize
    ranks = [Rank("reduce-0", "holder.py", 0, count, dtype_name, ".", pid_ns=False)]
    folder = ranks[0].folder
    ranks += [Rank(f"reduce-{r}", "holder.py", r, count, dtype_name, folder, pid_ns=False) for r in (1, 2, 3)]
    try:
        for rank in ranks:
            rank.wait_lines(1)
        xs = [mapped(r, count, dtype, folder) for r in range(4)]
        own = [tree.inputs(r, count, dtype) for r in range(4)]
        reference = tree.by_torch(own)
        equal = {str(p): torch.equal(bits(placed(xs, p)), bits(reference)) for p in PLACEMENTS}
        host = tree.by_torch([x[: 1 << 22].cpu() for x in own])
        equal["torch on the host (4 Mi values)"] = torch.equal(bits(host), bits(reference[: 1 << 22].cpu()))
        fused = torch.empty(count, device="cuda")
        tree.by_triton(xs, [fused])
        equal["one Triton kernel"] = torch.equal(bits(fused), bits(reference))
        chain = ((own[0].float() + own[1].float()) + own[2].float()) + own[3].float()
        equal["another order (should differ)"] = torch.equal(bits(chain), bits(reference))
        del reference, chain
        emit("exp4.bits", dtype=dtype_name, mb=MB, equal=equal)
        speeds(dtype_name, xs, own, fused)
    finally:
        for rank in ranks:
            rank.kill()


def speeds(name: str, xs: list[torch.Tensor], own: list[torch.Tensor], fused: torch.Tensor) -> None:
    size = xs[0].numel() * xs[0].element_size()
    out = torch.empty_like(own[0])
    ways = {
        "device copy": (lambda: out.copy_(own[0]), 2 * size),
        "copy from a mapped buffer": (lambda: out.copy_(xs[0]), 2 * size),
    }
    ways["Triton, 4 own to 1"] = (lambda: tree.by_triton(own, [out]), 5 * size)
    ways["Triton, 4 mapped to 1"] = (lambda: tree.by_triton(xs, [out]), 5 * size)
    ways["torch, 4 mapped to 1"] = (lambda: tree.by_torch(xs), 5 * size)
    ways["Triton, 4 mapped to all 4 in place"] = (lambda: tree.by_triton(xs, xs), 8 * size)
    times = {way: median_s(work) for way, (work, _) in ways.items()}
    rates = {way: round(bytes_ / times[way] / 1e9) for way, (_, bytes_) in ways.items()}
    emit("exp4.speed", dtype=name, mb=MB, median_s=times, gb_per_s=rates)


def nccl() -> None:
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29571", "WORLD_SIZE": "2"}
    ranks = [Rank(f"nccl-{r}", "two_on_one.py", pid_ns=False, RANK=str(r), **env) for r in (0, 1)]
    for rank in ranks:
        try:
            emit("exp4.nccl", said=rank.wait_lines(1, timeout_s=60)[0])
        except Exception as error:
            emit("exp4.nccl", said=repr(error)[:500])
    for rank in ranks:
        rank.kill()


def main() -> None:
    torch.cuda.init()  # mapping a handle before this is a segmentation fault
    for dtype in ("float32", "bfloat16"):
        try:
            reduction(dtype)
        except Exception as error:
            emit("exp4.failed", dtype=dtype, error=repr(error)[:900])
    nccl()


if __name__ == "__main__":
    main()
