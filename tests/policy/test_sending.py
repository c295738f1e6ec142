"""Which waiting jobs the fleet sends to another region, by what the regions tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midstep.policy.levels.sending import AT_ONCE, Waiter, send
from midstep.policy.levels.summary import Need, Summary

FAR = 1e8


def region(name: str, free: int, size: int = 8, waiting: float = 0.0, room: float = 8.0) -> Summary:
    return Summary(name, "main", "gpu", size, free, min(size, 8), room, room, waiting)


def waiter(devices: int, waited_s: float = 60.0, job_id: str = "j", **more: object) -> Waiter:
    least = more.pop("least", devices)
    stranded = bool(more.pop("stranded", False))
    need = {"types": (), "region": "", "data": "", "snapshot_bytes": 0, "guaranteed": 0.0, **more}
    return Waiter(job_id, "here", Need(devices, **need), int(str(least)), waited_s, stranded)  # type: ignore[arg-type]


def where(*waiters: Waiter, patience_s: float = 5.0, **told: Summary) -> list[tuple[str, str]]:
    regions = {name: [summary] for name, summary in told.items()}
    return [(one.job_id, one.there) for one in send(waiters, regions, FAR, patience_s)]


def test_to_where_devices_are_free_that_nobody_there_can_use() -> None:
    full = region("here", 0)
    assert where(waiter(4), here=full, there=region("there", 4)) == [("j", "there")]
    assert where(waiter(4), here=full, there=region("there", 3)) == []
    assert where(waiter(4, least=2), here=full, there=region("there", 3)) == [("j", "there")]
    assert where(waiter(4), here=full, there=region("there", 4, waiting=1.0)) == []
    assert where(waiter(4), here=region("here", 8)) == [], "it is not sent to where it is"


def test_not_before_it_has_waited_for_as_long_as_carrying_takes() -> None:
    there = region("there", 8)
    assert where(waiter(4, 4.0), there=there) == []
    heavy = {"data": "here", "snapshot_bytes": int(60 * FAR)}
    assert where(waiter(4, 50.0, **heavy), there=there) == []
    assert where(waiter(4, 70.0, **heavy), there=there) == [("j", "there")]
    light = region("light", 8)
    away = {"data": "light", "snapshot_bytes": int(60 * FAR)}
    assert where(waiter(4, 70.0, **away), there=there, light=light) == [("j", "light")], "its data is there"


def test_a_guarantee_goes_only_where_it_can_stand() -> None:
    there = region("there", 8, room=2.0)
    assert where(waiter(4, guaranteed=4.0), there=there) == []
    assert where(waiter(4, guaranteed=4.0), there=there, other=region("other", 4)) == [("j", "other")]
    stranded = waiter(4, 0.0, guaranteed=4.0, stranded=True)
    assert where(stranded, there=there) == [("j", "there")], "better without than never"
    assert where(waiter(9, 0.0, stranded=True), there=there) == []


def test_a_free_device_is_given_once() -> None:
    there = region("there", 4)
    jobs = [waiter(2, job_id=f"j{number}") for number in range(4)]
    assert where(*jobs, there=there) == [("j0", "there"), ("j1", "there")]
    many = [waiter(1, job_id=str(n)) for n in range(99)]
    assert len(where(*many, there=region("there", 99, 99))) == AT_ONCE


SUMMARIES = st.builds(
    lambda size, share, waiting: (size, int(size * share), waiting),
    st.integers(1, 64),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.0, 3.0]),
)


@given(
    st.lists(SUMMARIES, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 16), st.floats(0, 100), st.booleans()), max_size=12),
)
def test_never_more_than_is_free_but_for_the_stranded(
    regions: list[tuple[int, int, float]], jobs: list[tuple[int, float, bool]]
) -> None:
    told = {
        f"r{at}": [region(f"r{at}", free, size, waiting)] for at, (size, free, waiting) in enumerate(regions)
    }
    waiters = [waiter(d, w, f"j{at}", stranded=s) for at, (d, w, s) in enumerate(jobs)]
    found = send(waiters, told, FAR, 5.0)
    by_id = {one.job_id: one for one in waiters}
    assert len({one.job_id for one in found}) == len(found)
    for name, (summary,) in told.items():
        sent = [by_id[one.job_id] for one in found if one.there == name]
        taken = sum(one.need.devices for one in sent if not one.stranded)
        assert taken <= summary.free and (not taken or not summary.waiting)
    assert found == send(waiters, dict(reversed(told.items())), FAR, 5.0), "whatever order they are told in"
