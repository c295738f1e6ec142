"""Launchers come off, and a rank's environment is torchrun's."""

import pytest

from midstep.model.launch import LaunchError, RankPlace, rank_environment, unwrap


def test_a_plain_command_stays_as_it_is() -> None:
    launch = unwrap(["python", "train.py", "--x", "1"])
    assert launch.command == ("python", "train.py", "--x", "1")
    assert launch.world_size is None


@pytest.mark.parametrize(
    ("command", "plain", "world"),
    [
        ("torchrun --nproc_per_node=4 train.py --lr 0.1", "python3 -u train.py --lr 0.1", 4),
        ("torchrun --nnodes 2 --nproc-per-node 3 -m pkg.train -m x", "python3 -u -m pkg.train -m x", 6),
        ("/v/bin/torchrun --standalone --nproc-per-node 2 a.py", "/v/bin/python3 -u a.py", 2),
        ("torchrun --no-python --nproc-per-node=2 ./run.sh a", "./run.sh a", 2),
        ("torchrun --rdzv-backend c10d --rdzv-endpoint h:1 --nproc-per-node 8 a.py", "python3 -u a.py", 8),
        ("torchrun a.py", "python3 -u a.py", 1),
        ("torchrun --nproc-per-node gpu a.py", "python3 -u a.py", None),
        ("torchrun -r 3 -t 1 --nproc-per-node 2 a.py", "python3 -u a.py", 2),
        ("python3.11 -u -m torch.distributed.run --nproc_per_node 2 a.py", "python3.11 -u a.py", 2),
        ("python -m torch.distributed.launch --use_env --nproc_per_node=2 a.py", "python -u a.py", 2),
        ("accelerate launch --num_processes 2 a.py --x", "python3 -u a.py --x", 2),
        ("accelerate launch --num-processes=2 --cpu -m pkg.a", "python3 -u -m pkg.a", 2),
        ("python -m accelerate.commands.launch --num_processes 4 a.py", "python -u a.py", 4),
    ],
)
def test_launchers_are_unwrapped(command: str, plain: str, world: int | None) -> None:
    launch = unwrap(command.split())
    assert " ".join(launch.rank_command(0)) == plain
    assert launch.world_size == world


def test_the_old_launcher_hands_the_script_its_local_rank() -> None:
    launch = unwrap(["python", "-m", "torch.distributed.launch", "--nproc_per_node=2", "a.py", "--x"])
    assert launch.rank_command(1) == ("python", "-u", "a.py", "--local-rank=1", "--x")
    launch = unwrap(["python", "-m", "torch.distributed.launch", "-m", "pkg.a", "--x"])
    assert launch.rank_command(0) == ("python", "-u", "-m", "pkg.a", "--local-rank=0", "--x")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("torchrun --nnodes 1:4 a.py", "never changes"),
        ("torchrun --nproc-per-node two a.py", "at least 1"),
        ("torchrun --no-such-option a.py", "torchrun:"),
        ("torchrun --nproc-per-node 2", "script"),
        ("torchrun --run-path a.py", "--run-path"),
        ("accelerate launch --use_deepspeed a.py", "accelerate's own launcher"),
        ("accelerate launch --config_file c.yaml a.py", "c.yaml"),
    ],
)
def test_what_cannot_be_unwrapped_is_said(command: str, says: str) -> None:
    with pytest.raises(LaunchError, match=says):
        unwrap(command.split())


def test_accelerate_reads_its_configuration() -> None:
    config = {
        "num_processes": 6,
        "num_machines": 2,
        "mixed_precision": "bf16",
        "distributed_type": "MULTI_GPU",
    }
    launch = unwrap(["accelerate", "launch", "--config_file", "c.yaml", "a.py"], lambda path: config)
    assert (launch.world_size, launch.ranks_per_node) == (6, 3)
    assert launch.environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    command = ["accelerate", "launch", "--num_processes", "2", "a.py"]
    assert unwrap(command, lambda path: config).world_size == 2
    with pytest.raises(LaunchError, match="fsdp_config"):
        unwrap(["accelerate", "launch", "a.py"], lambda path: {"fsdp_config": {"a": 1}})


def test_the_environment_of_a_rank() -> None:
    environment = rank_environment(RankPlace(rank=4, world_size=5, ranks_per_node=2), run_id="j1")
    expected = {
        "RANK": "4",
        "WORLD_SIZE": "5",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": "2",
        "GROUP_WORLD_SIZE": "3",
        "MASTER_ADDR": "localhost",
        "TORCHELASTIC_RUN_ID": "j1",
        "OMP_NUM_THREADS": "1",
    }
    assert expected.items() <= environment.items()
