"""From the scheduler's thread back to the event loop."""

from __future__ import annotations

import asyncio

from .request import Request, Writing
from .scheduler import Late
from .service import Service


async def waited(service: Service, request: Request | Writing) -> None:
    """Wait for a request's outcome.

    Raises:
        Late: it took too long. It is not run if it has not begun, and a text is not written to its end.
    """
    try:
        await asyncio.wait_for(asyncio.wrap_future(request.outcome), service.limits.seconds)
    except (TimeoutError, asyncio.TimeoutError):
        service.scheduler.cancel(request)
        raise Late from None
    except asyncio.CancelledError:  # whoever asked is gone
        service.scheduler.cancel(request)
        raise
