"""What giving memory back and taking it again costs, and what a context takes: memory_cost.py GB"""

import json
import statistics
import sys
import time

import torch
import vmm

GB, PIECE = int(sys.argv[1]), 64 << 20


def timed(work):
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def caching_allocator():
    held = []

    def take():
        held.extend(torch.empty(PIECE, dtype=torch.uint8, device="cuda") for _ in range((GB << 30) // PIECE))

    found = {"first": [], "cached": [], "empty_cache": [], "again": []}
    for _ in range(5):
        found["first"].append(timed(take))
        held.clear()
        found["cached"].append(timed(take))
        held.clear()
        found["empty_cache"].append(timed(torch.cuda.empty_cache))
        found["again"].append(timed(take))
        held.clear()
        torch.cuda.empty_cache()
    return {name: statistics.median(times) for name, times in found.items()}


def mapping(piece):
    """One physical pool, created once; each turn maps it and unmaps it."""
    count = (GB << 30) // piece
    handles = [vmm.create(piece) for _ in range(count)]
    base = vmm.reserve(GB << 30)
    maps, unmaps = [], []
    for _ in range(5):
        maps.append(timed(lambda: [vmm.map_(base + i * piece, piece, h) for i, h in enumerate(handles)]))
        unmaps.append(timed(lambda: [vmm.unmap(base + i * piece, piece) for i in range(count)]))
    for handle in handles:
        vmm.release(handle)
    return {"map": statistics.median(maps), "unmap": statistics.median(unmaps)}


torch.zeros(1, device="cuda")
result = {"caching_allocator_s": caching_allocator()}
result |= {f"pool_of_{piece >> 20}_MB_s": mapping(piece) for piece in (64 << 20, 1 << 30)}
print("result", json.dumps(result), flush=True)
