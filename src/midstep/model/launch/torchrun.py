"""``torchrun`` and ``torch.distributed.launch`` as a Launch."""

from __future__ import annotations

from midstep.model.launch.base import Launch, LauncherParser, LaunchError, plain_command, positive

_TORCHRUN_VALUES = [
    "nnodes",
    "nproc-per-node",
    "rdzv-backend",
    "rdzv-endpoint",
    "rdzv-id",
    "rdzv-conf",
    "max-restarts",
    "monitor-interval",
    "start-method",
    "event-log-handler",
    "role",
    "log-dir",
    "redirects",
    "tee",
    "local-ranks-filter",
    "node-rank",
    "master-addr",
    "master-port",
    "local-addr",
    "logs-specs",
    "numa-binding",
    "signals-to-handle",
    "duplicate-stdout-filters",
    "duplicate-stderr-filters",
    "shutdown-timeout",
]
_TORCHRUN_FLAGS = ("standalone", "no-python", "run-path", "virtual-local-rank", "use-env")


def unwrap_torchrun(python: str, arguments: list[str], legacy: bool) -> Launch:
    """``legacy``: torch.distributed.launch, whose script is told its local rank by an argument.

    Raises LaunchError for a number of nodes that varies, and for ``--run-path``.
    """
    parser = LauncherParser(prog="torch.distributed.launch" if legacy else "torchrun", add_help=False)
    parser.values(*_TORCHRUN_VALUES)
    parser.flags(*_TORCHRUN_FLAGS)
    parser.script()
    asked = parser.parse_args(arguments)
    if asked.run_path:
        raise LaunchError("torchrun --run-path cannot be unwrapped: give the script itself")
    nodes = _fixed_nodes(asked.nnodes or "1")
    per_node = _processes(asked.nproc_per_node)
    command = plain_command(python, asked.script, asked.script_arguments, asked.module, asked.no_python)
    return Launch(
        command,
        world_size=None if per_node is None else nodes * per_node,
        ranks_per_node=per_node,
        local_rank_at=len(command) - len(asked.script_arguments) if legacy and not asked.use_env else None,
    )


def _fixed_nodes(text: str) -> int:
    """``--nnodes``: a number, or a range whose ends are equal."""
    least, _, most = text.partition(":")
    if most and most != least:
        raise LaunchError(
            f"--nnodes {text}: a job's world size never changes under Midstep; give one number "
            "(Midstep itself shrinks and grows the devices under it)"
        )
    return positive("--nnodes", least)


def _processes(text: str | None) -> int | None:
    if text is None:
        return 1
    return None if text in ("auto", "gpu", "cpu", "xpu") else positive("--nproc-per-node", text)
