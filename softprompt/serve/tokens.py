"""Bearer tokens: who may ask, and who may load and remove artifacts."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ..errors import ConfigError


def check_tokens(*tokens: str | None) -> None:
    """
    Raises:
        ConfigError: a token that nobody could send, or that is empty, so that everybody would.
    """
    for secret in tokens:
        if secret is not None and not re.fullmatch("[!-~]+", secret):
            raise ConfigError("a token is empty, or holds what no header can; use printable ASCII without spaces")


def bearer(token: str, name: str) -> Callable[..., Awaitable[None]]:
    """A dependency that lets those pass who send `Authorization: Bearer TOKEN` (RFC 6750).

    Args:
        name: what the token is called in messages and in the schema.
    """
    scheme = HTTPBearer(auto_error=False, scheme_name=name.lower())
    sent_with = Depends(scheme)

    async def check(given: HTTPAuthorizationCredentials | None = sent_with) -> None:
        sent = "" if given is None else given.credentials.strip()
        # in constant time: how long it takes says nothing of the token
        if not hmac.compare_digest(sent.encode(), token.encode()):
            asked = "Bearer" if given is None else 'Bearer error="invalid_token"'
            message = f"this needs a token; send the header Authorization: Bearer {name}"
            raise HTTPException(401, message, {"WWW-Authenticate": asked})

    return check


async def nobody() -> None:
    """A dependency that lets nobody pass: there is no token."""
    raise HTTPException(
        403, "artifacts come and go only with a token of their own; start the server with --admin-token"
    )
