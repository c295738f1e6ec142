"""Which of a node's GPUs a rank sees."""

from __future__ import annotations

from collections.abc import Sequence

from midstep.agent.config import AgentConfig
from midstep.model.job import RankPlace


def gpus_of(config: AgentConfig, place: RankPlace, on_node: Sequence[RankPlace]) -> tuple[int, ...]:
    """The numbers of the GPUs that a rank is to see, in CUDA's order for it; none on CPU devices.

    Scripts take `cuda:LOCAL_RANK`, so a rank sees the GPUs of all ranks of its home, in the order of their
    local ranks. Where ranks share a GPU, CUDA cannot be told so (no GPU may be named twice): then each sees
    its own alone, as `cuda:0`.
    """
    kinds = {device.index: device.device_type for device in config.devices}
    if not any(kinds.get(number, "").startswith("nvidia-") for number in place.devices):
        return ()
    home = sorted((r for r in on_node if r.home == place.home), key=lambda r: r.local_rank)
    numbers = [number for r in home for number in r.devices]
    if len(set(numbers)) < len(numbers) or len(place.devices) != 1:
        return place.devices
    return tuple(numbers)


def gpu_environment(config: AgentConfig, place: RankPlace, on_node: Sequence[RankPlace]) -> dict[str, str]:
    """What makes CUDA show a rank those GPUs and no others."""
    numbers = gpus_of(config, place, on_node)
    if not numbers:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
