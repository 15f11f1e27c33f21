"""Rate limits of an API, counted separately for each token, user or network.

Responses show them in the fields `RateLimit-Policy` and `RateLimit`, as in the draft
of the IETF's HTTPAPI group, draft-ietf-httpapi-ratelimit-headers-10.
"""

import time
from collections.abc import Callable
from typing import Any

from flask import Response, request
from flask_login import current_user

from bulwark.identity.hashed_tokens import hash_of
from bulwark.web.rate_limits import limiter, network


def limited(view: Callable[..., Any], limit: str, scope: str) -> Callable[..., Any]:
    """Return a view with a limit that it shares with others.

    Args:
        view: the view.
        limit: how many requests in which time, such as `600 per minute`.
        scope: the name of the views that share it.
    """
    shared = limiter.shared_limit(limit, f"api {scope}", key_func=caller)
    decorated: Callable[..., Any] = shared(view)
    return decorated


def caller() -> str:
    """Return who sent the request: a token, a user or, for a visitor, a network."""
    if (user := user_id()) is None:
        return network()
    if current_user.token_permissions is None:
        return f"user {user}"
    token = request.authorization and request.authorization.token
    return f"token {hash_of(token or '')}"


def user_id() -> int | None:
    """Return the id of the user who sent the request; None for a visitor."""
    return current_user.id if current_user.is_authenticated else None


def show(response: Response) -> Response:
    """Add the fields about the limits that applied to this request."""
    policies, states = [], []
    for one in limiter.current_limits:
        window = one.limit.get_expiry()
        name = f'"{one.limit.amount}-per-{window}s"'
        seconds = max(0, int(one.reset_at - time.time()))
        policies.append(f"{name};q={one.limit.amount};w={window}")
        states.append(f"{name};r={max(0, one.remaining)};t={seconds}")
    if policies:
        response.headers["RateLimit-Policy"] = ", ".join(policies)
        response.headers["RateLimit"] = ", ".join(states)
    return response
