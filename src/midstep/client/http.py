"""One request: send it, read the answer into its type, or raise what went wrong."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from midstep.client.errors import ClientError, Conflict, FleetFault, NoFleet, NotAllowed, NotFound, Refused
from midstep.client.locate import Address
from midstep.wire.api import CUT_OFF, CUT_OFF_HEADER, Problem

T = TypeVar("T")
RETRY_EVERY_S = 0.3
_PASSES = (*CUT_OFF, "is_migrating")  # as while a controller restarts

_BY_STATUS: dict[int, type[ClientError]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
}


class Transport:
    """Requests to one fleet. ``patience_s``: how long GETs are repeated while the controller does not answer,
    as when it is just restarting."""

    def __init__(self, address: Address, timeout_s: float = 30.0, patience_s: float = 0.0) -> None:
        self.address = address
        self.patience_s = patience_s
        self.cut_off = ""  # regions that the last answer lacks
        self._http = httpx.Client(
            base_url=address.url,
            headers={"Authorization": f"Bearer {address.token}"},
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            trust_env=False,  # a proxy of the user's does not lead to a fleet on this machine
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def get(self, path: str, kind: type[T] | Any, **params: object) -> Any:
        """GET, repeated for ``patience_s`` while nothing answers."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return self._read(self._send("GET", path, params=_given(params)), kind)
            except ClientError as error:
                passes = isinstance(error, NoFleet) or error.code in _PASSES
                if not passes or time.monotonic() >= deadline:
                    raise
                time.sleep(RETRY_EVERY_S)

    def post(self, path: str, kind: type[T] | Any, body: object = None, **extra: Any) -> Any:
        """POST, once. ``extra`` goes to httpx (`content`, `headers`)."""
        json = TypeAdapter(type(body)).dump_python(body, mode="json") if body is not None else None
        return self._read(
            self._send("POST", path, **({"json": json} if json is not None else {}), **extra), kind
        )

    def put(self, path: str, kind: type[T] | Any, body: object) -> Any:
        """PUT, once."""
        json = TypeAdapter(type(body)).dump_python(body, mode="json")
        return self._read(self._send("PUT", path, json=json), kind)

    def delete(self, path: str) -> None:
        """DELETE, once."""
        self._send("DELETE", path)

    def stream(self, path: str) -> AbstractContextManager[httpx.Response]:
        """GET whose body the caller reads piece by piece; check it with `expect`."""
        return self._http.stream("GET", path)

    def expect(self, response: httpx.Response) -> httpx.Response:
        """Raise what the answer's status says, if it is not a success."""
        if response.is_success:
            return response
        response.read()
        raise _problem(response)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
            self.cut_off = response.headers.get(CUT_OFF_HEADER, "")
            return self.expect(response)
        except httpx.HTTPError as error:
            raise no_answer(self.address, error) from None

    def _read(self, response: httpx.Response, kind: Any) -> Any:
        try:
            return _adapter(kind).validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise FleetFault(
                f"the answer to {response.request.url.path} is not understood: {where}: {first['msg']}",
                "controller and client are of different versions: `midstep version`",
            ) from None


def no_answer(address: Address, error: Exception) -> NoFleet:
    """The error for a controller that cannot be reached."""
    what = str(error) or type(error).__name__
    return NoFleet(f"the fleet at {address.url} does not answer ({what})", "`midstep up` starts it")


def _problem(response: httpx.Response) -> ClientError:
    try:
        problem = _adapter(Problem).validate_json(response.content)
    except ValidationError:
        what = f"{response.request.url} answers {response.status_code}, but not as a controller does"
        return FleetFault(what, "something else is in its place; `midstep up` starts a fleet")
    fallback = FleetFault if problem.status >= 500 else Refused
    kind = _BY_STATUS.get(response.status_code, fallback)
    message = problem.title
    if problem.detail and kind is not Conflict:  # a conflict's title names the state already
        message += f": {problem.detail}"
    return kind(message, problem.hint, problem.code)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _given(params: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None}
