"""``accelerate launch``: its options and configuration file as a Launch, where its meaning can be carried
over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from midstep.model.launch.base import (
    AccelerateConfig,
    Launch,
    LauncherParser,
    LaunchError,
    plain_command,
    positive,
)

_VALUES = (
    "config-file num-processes num-machines machine-rank main-process-ip main-process-port mixed-precision "
    "num-cpu-threads-per-process gradient-accumulation-steps dynamo-backend dynamo-mode rdzv-backend "
    "rdzv-conf max-restarts monitor-interval role log-dir same-network gpu-ids main-training-function "
    "deepspeed-config-file"
)
_FLAGS = (
    "multi-gpu cpu no-python quiet debug dynamo-use-fullgraph dynamo-use-dynamic enable-cpu-affinity use-cpu "
    "use-deepspeed use-fsdp use-megatron-lm use-parallelism-config tpu use-xpu ipex"
)
_UNSUPPORTED = ("use_deepspeed", "use_fsdp", "use_megatron_lm", "use_parallelism_config", "tpu")
_UNSUPPORTED_CONFIG = (
    "deepspeed_config",
    "fsdp_config",
    "megatron_lm_config",
    "parallelism_config",
    "tpu_name",
)
_DISTRIBUTED_TYPES = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU")


def unwrap_accelerate(python: str, arguments: list[str], read_config: AccelerateConfig) -> Launch:
    """Options win over the configuration file, as in accelerate.

    Raises LaunchError for what needs accelerate's own launcher (DeepSpeed, FSDP and Megatron plugins, TPUs).
    """
    parser = LauncherParser(prog="accelerate launch", add_help=False)
    parser.values(*_VALUES.split())
    parser.flags(*_FLAGS.split())
    parser.script()
    asked = vars(parser.parse_args(arguments))
    for option in _UNSUPPORTED:
        if asked[option]:
            raise _needs_accelerate("--" + option)
    config = read_config(cast("str | None", asked["config_file"]))
    _check_config(config)
    options = {**config, **{name: value for name, value in asked.items() if value not in (None, False)}}
    processes = _number(options, "num_processes")
    machines = _number(options, "num_machines") or 1
    return Launch(
        plain_command(
            python, asked["script"], asked["script_arguments"], asked["module"], asked["no_python"]
        ),
        world_size=processes,
        ranks_per_node=processes // machines if processes and processes % machines == 0 else processes,
        environment=_environment(options),
    )


def _check_config(config: Mapping[str, object]) -> None:
    for name in _UNSUPPORTED_CONFIG:
        if config.get(name):
            raise _needs_accelerate(f"{name} in the configuration file")
    kind = str(config.get("distributed_type", "NO"))
    if kind not in _DISTRIBUTED_TYPES:
        raise _needs_accelerate(f"distributed_type {kind} in the configuration file")


def _needs_accelerate(what: str) -> LaunchError:
    return LaunchError(
        f"accelerate launch: {what} is set up by accelerate's own launcher and cannot be carried over; "
        "set it up in the script (Accelerator(fsdp_plugin=...)) and use torchrun, or give the plain command"
    )


def _number(options: Mapping[str, object], name: str) -> int | None:
    value = options.get(name)
    return None if value is None else positive(f"--{name}", str(value))


def _environment(options: Mapping[str, object]) -> dict[str, str]:
    """The variables by which accelerate's launcher tells the library what was chosen."""
    environment = {"ACCELERATE_MIXED_PRECISION": str(options.get("mixed_precision", "no")).lower()}
    if options.get("cpu") or options.get("use_cpu"):
        environment["ACCELERATE_USE_CPU"] = "true"
    if options.get("debug"):
        environment["ACCELERATE_DEBUG_MODE"] = "true"
    if "gradient_accumulation_steps" in options:
        environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] = str(options["gradient_accumulation_steps"])
    if "num_cpu_threads_per_process" in options:
        environment["OMP_NUM_THREADS"] = str(options["num_cpu_threads_per_process"])
    if "dynamo_backend" in options:
        environment["ACCELERATE_DYNAMO_BACKEND"] = str(options["dynamo_backend"]).upper()
        environment["ACCELERATE_DYNAMO_MODE"] = str(options.get("dynamo_mode", "default"))
        for name in ("fullgraph", "dynamic"):
            flag = options.get(f"dynamo_use_{name}", False)
            environment[f"ACCELERATE_DYNAMO_USE_{name.upper()}"] = str(flag)
    return environment
