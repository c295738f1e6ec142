"""One policy made of several, each with nodes and jobs of its own: clusters, or groups with partitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from midstep.sim.policy import News, Orders, SimPolicy
from midstep.sim.trace import Job


class Split:
    """``key``: the name of a job's part; ``nodes``: of a node's; those that are in none are nobody's."""

    def __init__(
        self,
        name: str,
        parts: Mapping[str, SimPolicy],
        key: Callable[[Job], str],
        nodes: Mapping[int, str],
    ) -> None:
        self.name = name
        self.end_lag_s = max((part.end_lag_s for part in parts.values()), default=0)
        self._parts, self._key, self._nodes = parts, key, nodes
        self._wakes: dict[str, int] = {}

    def decide(self, news: News) -> Orders:
        """Those parts that something happened to, in the order of their names."""
        told: dict[str, News] = {}
        for job, grant in news.ended:
            self._of(told, news, job).ended.append((job, grant))
        for job, grant in news.cut:
            self._of(told, news, job).cut.append((job, grant))
        for job in news.arrived:
            self._of(told, news, job).arrived.append(job)
        if news.back or news.lost or news.noticed:
            self._tell_of_nodes(told, news)
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

    def _tell_of_nodes(self, told: dict[str, News], news: News) -> None:
        for node in news.back:
            if node in self._nodes:
                self._part(told, news, self._nodes[node]).back.append(node)
        for node in news.lost:
            if node in self._nodes:
                self._part(told, news, self._nodes[node]).lost.append(node)
        for node in news.noticed:
            if node in self._nodes:
                self._part(told, news, self._nodes[node]).noticed.append(node)

    def _of(self, told: dict[str, News], news: News, job: Job) -> News:
        return self._part(told, news, self._key(job))

    def _part(self, told: dict[str, News], news: News, name: str) -> News:
        if name not in told:
            told[name] = News(news.now_s, [], [], news.records)
        return told[name]
