"""Errors of a request, named by the recovery (amocrm-api.md 1.6). No message contains a token."""

from __future__ import annotations

from pipelines.errors import MirrorError


class AmoError(MirrorError):
    """A request failed. `request` is its method, path and query; the message ends with the cure."""

    def __init__(self, message: str, request: str = "", status: int = 0) -> None:
        super().__init__(f"{request}: {message}" if request else message)
        self.request, self.status, self.reason = request, status, message


class TransientError(AmoError):
    """Worth another try: 5xx, a broken connection, an unexpected body. Raised to callers of the client when
    the tries are used up."""


class ConnectionSetupError(AmoError):
    """This machine's settings of proxy or certificates cannot be used: no request was sent."""

    exit_code = 2


class PageTooLargeError(TransientError):
    """504: the server did not produce the page in time. Ask for a smaller page."""


class ThrottledError(TransientError):
    """429: too many requests. `seconds` is what Retry-After asks for, 0 when it is absent."""

    def __init__(self, message: str, request: str = "", status: int = 429, seconds: float = 0.0) -> None:
        super().__init__(message, request, status)
        self.seconds = seconds


class NotAvailableError(AmoError):
    """This account or this token does not have the list (402, 403, 404, 405, 422, 425, 426): skip it,
    delete nothing."""


class BadRequestError(AmoError):
    """400: the request itself is wrong, or it uses a filter that the account does not have."""


class InterruptedSyncError(AmoError):
    """A person has interrupted the run. What it was reading is neither complete nor failed."""


class ListIncompleteError(AmoError):
    """The list cannot be read completely: amoCRM limits page numbers, and there is no filter to divide the
    list by."""


class AccessRevokedError(AmoError):
    """401 for good: the token is expired or revoked, or the integration is off. Only a person can help."""


class BlockedError(AmoError):
    """403 with an HTML page: amoCRM has blocked the account or this address. Nothing may be sent any more."""
