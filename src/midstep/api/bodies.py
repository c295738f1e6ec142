"""JSON bodies as the wire's dataclasses, strict about names: a misspelt field is an error, not a default."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from midstep.api.problems import from_validation
from midstep.control.errors import Rejected, invalid
from midstep.wire.api import JobRequest, MigrateRequest, ResizeRequest
from midstep.wire.plan import PlanRequest
from midstep.wire.schedule import DrainRequest, QuotaRequest

T = TypeVar("T")
_adapter = cache(TypeAdapter[Any])


async def job_request(request: Request) -> JobRequest:
    """The body of a submission; raises Rejected."""
    return await parsed(JobRequest, request)


async def migrate_request(request: Request) -> MigrateRequest:
    """The body of a migration; raises Rejected."""
    return await parsed(MigrateRequest, request)


async def resize_request(request: Request) -> ResizeRequest:
    """The body of a resize; raises Rejected."""
    return await parsed(ResizeRequest, request)


async def drain_request(request: Request) -> DrainRequest:
    """The body of a drain; raises Rejected."""
    return await parsed(DrainRequest, request)


async def quota_request(request: Request) -> QuotaRequest:
    """The body of a quota; raises Rejected."""
    return await parsed(QuotaRequest, request)


async def plan_request(request: Request) -> PlanRequest:
    """The body of a dry run; raises Rejected."""
    return await parsed(PlanRequest, request)


async def parsed(kind: type[T], request: Request) -> T:
    """The body as any of the wire's dataclasses; raises Rejected."""
    body = await _json(request)
    names = [field.name for field in fields(cast("Any", kind))]
    known = f"the fields are {', '.join(names)}"
    if not isinstance(body, dict):
        raise invalid("the request", "a JSON object is expected", known)
    values = cast("dict[str, Any]", body)
    if unknown := sorted(set(values) - set(names)):
        raise invalid(unknown[0], "there is no such field", known)
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise from_validation(error) from None


async def _json(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Rejected(400, "bad_request", "the body is not JSON", str(error)) from None
