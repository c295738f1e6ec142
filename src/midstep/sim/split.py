"""One policy made of several, each with nodes and jobs of its own: clusters, or groups with partitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from midstep.sim.policy import News, Orders, SimPolicy
from midstep.sim.trace import Job


class Split:
    """``key``: the name of a job's part."""

    def __init__(self, name: str, parts: Mapping[str, SimPolicy], key: Callable[[Job], str]) -> None:
        self.name = name
        self.end_lag_s = max((part.end_lag_s for part in parts.values()), default=0)
        self._parts, self._key = parts, key
        self._wakes: dict[str, int] = {}

    def decide(self, news: News) -> Orders:
        """Those parts that something happened to, in the order of their names."""
        told: dict[str, News] = {}
        for job, grant in news.ended:
            self._of(told, news, job).ended.append((job, grant))
        for job in news.arrived:
            self._of(told, news, job).arrived.append(job)
        for name, wake_s in self._wakes.items():
            if wake_s <= news.now_s and name not in told:
                told[name] = News(news.now_s, [], [], news.records)
        orders = Orders()
        for name in sorted(told):
            part = self._parts[name].decide(told[name])
            orders.actions += part.actions
            self._wakes.pop(name, None)
            if part.wake_s is not None:
                self._wakes[name] = part.wake_s
        orders.wake_s = min(self._wakes.values(), default=None)
        return orders

    def _of(self, told: dict[str, News], news: News, job: Job) -> News:
        name = self._key(job)
        if name not in told:
            told[name] = News(news.now_s, [], [], news.records)
        return told[name]
