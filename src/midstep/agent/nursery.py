"""Where proxies come from: a process that has imported all that they need forks one in milliseconds."""

from __future__ import annotations

import logging

from midstep.proxy.config import ProxyConfig
from midstep.proxy.errors import ProxyError
from midstep.proxy.handle import ProxyHandle
from midstep.proxy.zygote import Zygote

_log = logging.getLogger(__name__)


class Nursery:
    """Keeps a zygote, and makes another one when it is gone."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    @classmethod
    async def open(cls) -> Nursery:
        """Start the zygote; its imports go on meanwhile."""
        return cls(await Zygote.start())

    async def proxy(self, config: ProxyConfig) -> ProxyHandle:
        """A proxy that listens. Raises ProxyError."""
        try:
            return await ProxyHandle.start(config, self._zygote)
        except ProxyError as error:
            _log.warning("job %s: %s; trying with a new fork server", config.job_id, error)
        self._zygote = await Zygote.start()
        return await ProxyHandle.start(config, self._zygote)
