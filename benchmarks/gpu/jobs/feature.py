"""A loop that uses one feature of CUDA or torch; its first pass is the reference of its second.

usage: feature.py NAME; prints 'step I ok' or 'step I DIFFERENT'
"""

import os
import sys
import time

NAME = sys.argv[1]
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
SETTINGS = {"expandable": "expandable_segments:True", "malloc_async": "backend:cudaMallocAsync"}
if NAME in SETTINGS:
    os.environ["PYTORCH_ALLOC_CONF"] = os.environ["PYTORCH_CUDA_ALLOC_CONF"] = SETTINGS[NAME]
import torch  # noqa: E402
import torch.nn as nn  # noqa: E402

torch.use_deterministic_algorithms(True)
torch.backends.cuda.matmul.allow_tf32 = False
STEPS = 400


def model():
    torch.manual_seed(0)
    with torch.device("cuda"):
        net = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 512))
    return net, torch.optim.AdamW(net.parameters(), lr=1e-3, capturable=True)


def plain(wrap=lambda f: f):
    net, optimizer = model()

    def body(x):
        loss = (net(x) - x).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss.detach()

    return lambda i: body(torch.full((32, 512), 0.01 * (i % 7 + 1), device="cuda"))


def pinned():
    inner, host = plain(), torch.zeros(1 << 20).pin_memory()

    def step(i):
        host.fill_(i % 5)
        return inner(i) + host.to("cuda", non_blocking=True).sum() * 1e-6

    return step


def streams():
    inner, others = plain(), [torch.cuda.Stream() for _ in range(8)]
    xs = [torch.ones(1 << 18, device="cuda") for _ in others]

    def step(i):
        for stream, x in zip(others, xs, strict=True):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                x.mul_(0.999)
            torch.cuda.current_stream().wait_stream(stream)
        return inner(i) + sum(x[0] for x in xs)

    return step


def graphs():
    net, optimizer = model()
    x = torch.zeros(32, 512, device="cuda")

    def body():
        optimizer.zero_grad(set_to_none=False)
        loss = (net(x) - x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            body()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = body()

    def step(i):
        x.fill_(0.01 * (i % 7 + 1))
        graph.replay()
        return out.clone()

    return step


def compiled(mode=None):
    net, optimizer = model()
    fast = torch.compile(net, mode=mode)

    def step(i):
        x = torch.full((32, 512), 0.01 * (i % 7 + 1), device="cuda")
        loss = (fast(x) - x).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach().clone()

    return step


def convolution():
    torch.manual_seed(0)
    torch.backends.cudnn.deterministic = True
    with torch.device("cuda"):
        net = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=2)
        )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def step(i):
        x = torch.full((8, 3, 64, 64), 0.1 * (i % 7 + 1), device="cuda").bfloat16().float()
        loss = (net(x) - x).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def nccl():
    import torch.distributed as dist

    if not dist.is_initialized():
        store = dist.HashStore()
        dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=torch.device("cuda:0"))
    inner = plain()

    def step(i):
        out = inner(i).reshape(1)
        dist.all_reduce(out)
        return out[0]

    return step


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 1 << 20

    def __getitem__(self, i):
        return torch.full((512,), 0.01 * (i % 7 + 1))


def close_device_files():
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/dev/nvidia"):
                os.close(int(fd))
        except OSError:
            pass


def unmap_device():
    close_device_files()
    import ctypes

    with open("/proc/self/maps") as maps:
        found = [line.split() for line in maps if "/dev/nvidia" in line]
    for words in found:
        low, high = (int(word, 16) for word in words[0].split("-"))
        ctypes.CDLL(None).munmap(ctypes.c_void_p(low), ctypes.c_size_t(high - low))


def dataloader():
    torch.zeros(1, device="cuda")  # the workers are forked from a process that already uses the device
    if NAME == "dataloader_closed":
        os.register_at_fork(after_in_child=close_device_files)
    if NAME == "dataloader_unmapped":
        os.register_at_fork(after_in_child=unmap_device)
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=32, num_workers=2, pin_memory=True)
    batches, inner = iter(loader), plain()
    return lambda i: inner(i) + next(batches).to("cuda", non_blocking=True).sum()


def managed():
    import ctypes

    pointer = ctypes.c_void_p()
    inner = plain()
    code = ctypes.CDLL("libcuda.so.1").cuMemAllocManaged(ctypes.byref(pointer), ctypes.c_size_t(1 << 20), 1)
    assert code == 0, code
    return inner


FEATURES = {
    "plain": plain,
    "expandable": plain,
    "malloc_async": plain,
    "pinned": pinned,
    "streams": streams,
    "graphs": graphs,
}
FEATURES |= {
    "compiled": compiled,
    "compiled_graphs": lambda: compiled("reduce-overhead"),
    "convolution": convolution,
}
FEATURES |= {
    "nccl": nccl,
    "dataloader": dataloader,
    "dataloader_closed": dataloader,
    "dataloader_unmapped": dataloader,
    "managed": managed,
}


def main():
    make = FEATURES[NAME]
    step = make()
    expected = [float(step(i)).hex() for i in range(STEPS)]
    del step
    step = make()
    for i in range(STEPS):
        value = float(step(i)).hex()
        print("step", i, "ok" if value == expected[i] else f"DIFFERENT {value} {expected[i]}", flush=True)
        time.sleep(0.05)
    print("done", flush=True)


main()
