"""Two ranks with a piece of device memory in common: pair.py ipc|vmm owner|guest FOLDER MB

The controller writes a word into FOLDER/ROLE.command; the answer is in the log. Both check their sums.
"""

import os
import pickle
import sys
import time
from pathlib import Path

import torch
import vmm

KIND, ROLE, FOLDER, SIZE = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) << 20
COUNT = SIZE // 4
held = {}


def content():
    return torch.arange(COUNT, device="cuda", dtype=torch.float32).remainder_(1009)


def publish(value):
    (FOLDER / "handle.tmp").write_bytes(pickle.dumps(value))
    (FOLDER / "handle.tmp").rename(FOLDER / "handle")


def handle():
    while not (FOLDER / "handle").exists():
        time.sleep(0.01)
    return pickle.loads((FOLDER / "handle").read_bytes())


def open_shared():
    """Owner: make the memory and export it. Guest: map the owner's."""
    if KIND == "ipc" and ROLE == "owner":
        held["tensor"] = held.pop("private", None) if "private" in held else content()
        publish(held["tensor"].untyped_storage()._share_cuda_())
    elif KIND == "ipc":
        storage = torch.UntypedStorage._new_shared_cuda(*handle())
        held["tensor"] = torch.empty(0, device="cuda", dtype=torch.float32).set_(storage)[:COUNT]
    else:
        made = vmm.create(SIZE) if ROLE == "owner" else vmm.import_(vmm.fetch_fd(*handle()))
        pointer = vmm.reserve(SIZE)
        vmm.map_(pointer, SIZE, made)
        held.update(made=made, pointer=pointer, tensor=vmm.tensor(pointer, SIZE))
        if ROLE == "owner":
            held["tensor"].copy_(held.pop("private", None) if "private" in held else content())
            held["fd"] = vmm.export(made)
            publish((os.getpid(), held["fd"]))
    torch.cuda.synchronize()


def privatise():
    """An own copy of what is shared, and the mapping given up."""
    private = held.pop("tensor").clone()
    torch.cuda.synchronize()
    close()
    held["private"] = private


def close():
    if KIND == "vmm":
        vmm.unmap(held.pop("pointer"), SIZE)
        vmm.release(held.pop("made"))
        if "fd" in held:
            os.close(held.pop("fd"))
    elif ROLE == "guest":
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()


def close_fd():
    if "fd" in held:
        os.close(held.pop("fd"))


def export_again():
    """Owner: another handle of the same memory."""
    if KIND == "ipc":
        publish(held["tensor"].untyped_storage()._share_cuda_())
    else:
        held["fd"] = vmm.export(held["made"])
        publish((os.getpid(), held["fd"]))


def move():
    """Owner: the content into memory that was never exported, the exported memory freed."""
    if KIND == "vmm":
        privatise()
        return
    private = held.pop("tensor").clone()
    torch.cuda.synchronize()
    torch.cuda.ipc_collect()
    torch.cuda.empty_cache()
    held["private"] = private


def write():
    held["tensor"].add_(1.0)
    torch.cuda.synchronize()


def read():
    return f"sum {float(held['tensor'].double().sum()):.1f}"


def main():
    torch.zeros(1, device="cuda")
    commands = {
        "open": open_shared,
        "privatise": privatise,
        "close_fd": close_fd,
        "move": move,
        "export": export_again,
        "write": write,
        "read": read,
    }
    expected, state, i = None, torch.ones(1 << 16, device="cuda"), 0
    while True:
        file = FOLDER / f"{ROLE}.command"
        if file.exists():
            word = file.read_text()
            file.unlink()
            begun = time.perf_counter()
            try:
                result = commands[word]()
                print("answer", word, f"{time.perf_counter() - begun:.6f}", result or "", flush=True)
                expected = None if word in ("write", "read") else expected
            except Exception as error:
                print("answer", word, "failed", repr(error)[:300], flush=True)
        shared = held.get("tensor", held.get("private"))
        if shared is not None:
            total = float(shared.double().sum())
            expected = total if expected is None else expected
            state = state * 0.999 + 0.001
            print(
                "step",
                i,
                "ok" if total == expected and float(state[0]) > 0.9 else f"DIFFERENT {total}",
                flush=True,
            )
            i += 1
        time.sleep(0.02)


main()
