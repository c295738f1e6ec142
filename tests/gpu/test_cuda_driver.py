"""The device driver on a real GPU: nothing else tells whether NVIDIA's driver does what we rely on."""

from __future__ import annotations

import pytest

from midstep.agent.drivers.cuda import CudaBroken, CudaBusy, CudaRefused, State

pytestmark = pytest.mark.gpu


def test_a_job_is_suspended_and_resumed_with_the_same_bits(driver, start):
    job = start()
    driver.lock([job.pid], 10_000)
    report = driver.checkpoint([job.pid])
    assert driver.state(job.pid) is State.CHECKPOINTED
    assert report.moved_bytes > 0
    assert job.stands_still()
    driver.restore([job.pid])
    driver.unlock([job.pid])
    assert driver.state(job.pid) is State.RUNNING
    job.goes_on()


def test_it_can_be_done_again_and_again(driver, start):
    job = start()
    for _ in range(5):
        driver.lock([job.pid], 10_000)
        driver.checkpoint([job.pid])
        driver.restore([job.pid])
        driver.unlock([job.pid])
        job.goes_on(1)


def test_two_ranks_of_one_device_in_one_pass(driver, start):
    jobs = [start(), start()]
    pids = [job.pid for job in jobs]
    driver.lock(pids, 10_000)
    report = driver.checkpoint(pids)
    assert [rank.pid for rank in report.ranks] == pids
    driver.restore(pids)
    driver.unlock(pids)
    for job in jobs:
        job.goes_on()


def test_only_processes_with_cuda_are_found(driver, start):
    job = start()
    assert driver.find_cuda_pids([1, job.pid, 4_000_000]) == (job.pid,)


def test_a_long_kernel_makes_it_busy_and_everything_runs_again(driver, start):
    quick, slow = start(), start(kernel_s=4.0)
    with pytest.raises(CudaBusy):
        for _ in range(5):  # the slow one may be between two kernels
            driver.lock([quick.pid, slow.pid], 200)
            driver.unlock([quick.pid, slow.pid])
    for job in (quick, slow):
        assert driver.state(job.pid) is State.RUNNING
        job.goes_on(1)


def test_a_rank_that_cannot_be_locked_rolls_the_others_back(driver, start):
    job = start()
    with pytest.raises((CudaRefused, CudaBroken)) as caught:
        driver.lock([job.pid, 4_000_000], 5_000)
    assert set(caught.value.codes) == {4_000_000}
    assert driver.state(job.pid) is State.RUNNING
    job.goes_on()


@pytest.mark.parametrize("reached", [State.RUNNING, State.LOCKED, State.CHECKPOINTED])
def test_rollback_from_every_state(driver, start, reached):
    job = start()
    if reached is not State.RUNNING:
        driver.lock([job.pid], 10_000)
    if reached is State.CHECKPOINTED:
        driver.checkpoint([job.pid])
    driver.rollback([job.pid])
    assert driver.state(job.pid) is State.RUNNING
    job.goes_on()


def test_checkpoint_without_lock_is_refused(driver, start):
    job = start()
    with pytest.raises(CudaRefused):
        driver.checkpoint([job.pid])
    job.goes_on()


def test_it_can_be_told_which_gpu_to_restore_to(driver, start):
    """Its own one, here: that needs no second GPU, but all of the call."""
    job = start()
    driver.lock([job.pid], 10_000)
    driver.checkpoint([job.pid])
    uuids = driver.gpu_uuids()
    driver.restore([job.pid], {job.pid: [(uuid, uuid) for uuid in uuids]})
    driver.unlock([job.pid])
    job.goes_on()
