"""What a machine without a usable driver is told; runs everywhere."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from midstep.agent.drivers.cuda import CudaBusy, CudaDriver, CudaUnavailable, Libcuda, is_stopped


def test_a_missing_library_is_named():
    with pytest.raises(CudaUnavailable, match="libno-such-cuda"):
        Libcuda("libno-such-cuda.so.1")


def test_a_library_without_checkpoint_is_too_old():
    with pytest.raises(CudaUnavailable, match="570"):
        Libcuda("libc.so.6")


def test_support_says_why_not_and_raises_nothing():
    support = CudaDriver().available()
    assert support.ok == (support.reason == "")


def test_a_stopped_rank_is_refused_before_the_driver_is_asked():
    rank = subprocess.Popen(["sleep", "60"])
    try:
        rank.send_signal(signal.SIGSTOP)
        end_s = time.monotonic() + 5
        while not is_stopped(rank.pid):
            assert time.monotonic() < end_s
            time.sleep(0.01)
        with pytest.raises(CudaBusy) as caught:
            CudaDriver().lock([rank.pid], 1000)
        assert caught.value.codes == {rank.pid: "STOPPED"}
    finally:
        rank.kill()
        rank.wait()
