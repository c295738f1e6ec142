"""JSON bodies as the wire's dataclasses, strict about names: a misspelt field is an error, not a default."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, TypeVar, cast

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from midstep.api.problems import from_validation
from midstep.control.errors import Rejected, invalid
from midstep.wire.api import JobRequest, MigrateRequest, ResizeRequest
from midstep.wire.plan import PlanRequest
from midstep.wire.schedule import DrainRequest, QuotaRequest

T = TypeVar("T")
_JOB = TypeAdapter(JobRequest)
_MIGRATE = TypeAdapter(MigrateRequest)
_RESIZE = TypeAdapter(ResizeRequest)
_DRAIN = TypeAdapter(DrainRequest)
_QUOTA = TypeAdapter(QuotaRequest)
_PLAN = TypeAdapter(PlanRequest)


async def job_request(request: Request) -> JobRequest:
    """The body of a submission; raises Rejected."""
    return _parse(_JOB, [field.name for field in fields(JobRequest)], await _json(request))


async def migrate_request(request: Request) -> MigrateRequest:
    """The body of a migration; raises Rejected."""
    return _parse(_MIGRATE, [field.name for field in fields(MigrateRequest)], await _json(request))


async def resize_request(request: Request) -> ResizeRequest:
    """The body of a resize; raises Rejected."""
    return _parse(_RESIZE, [field.name for field in fields(ResizeRequest)], await _json(request))


async def drain_request(request: Request) -> DrainRequest:
    """The body of a drain; raises Rejected."""
    return _parse(_DRAIN, [field.name for field in fields(DrainRequest)], await _json(request))


async def quota_request(request: Request) -> QuotaRequest:
    """The body of a quota; raises Rejected."""
    return _parse(_QUOTA, [field.name for field in fields(QuotaRequest)], await _json(request))


async def plan_request(request: Request) -> PlanRequest:
    """The body of a dry run; raises Rejected."""
    return _parse(_PLAN, [field.name for field in fields(PlanRequest)], await _json(request))


def _parse(adapter: TypeAdapter[T], names: list[str], body: object) -> T:
    known = f"the fields are {', '.join(names)}"
    if not isinstance(body, dict):
        raise invalid("the request", "a JSON object is expected", known)
    values = cast("dict[str, Any]", body)
    if unknown := sorted(set(values) - set(names)):
        raise invalid(unknown[0], "there is no such field", known)
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise from_validation(error) from None


async def _json(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Rejected(400, "bad_request", "the body is not JSON", str(error)) from None
