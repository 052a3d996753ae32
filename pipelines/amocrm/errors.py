"""Errors of a request, named by the recovery (amocrm-api.md 1.6). `responses.py` decides which answer is
which error. No message contains a token."""

from __future__ import annotations

from pipelines.errors import MirrorError


class AmoError(MirrorError):
    """A request failed. `request` is its method, path and query; the message names the path alone, and ends
    with the cure."""

    def __init__(self, message: str, request: str = "", status: int = 0) -> None:
        self.place = request.partition("?")[0]
        super().__init__(f"{self.place}: {message}" if request else message)
        self.request, self.status, self.reason = request, status, message
        self.retries = 0
        """How often the request was sent again after a passing failure."""


class TransientError(AmoError):
    """Passing: worth another try. 5xx, a broken connection, a web page in place of the API's answer, a system
    error of amoCRM's. Raised to callers of the client when the tries are used up."""


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


class NotPaidError(AmoError):
    """402: amoCRM says that the account is not paid for. Waited for as long as the retry policy says, because
    amoCRM says so of paid accounts, too, while it recounts its bills."""


class NotAvailableError(AmoError):
    """What the request asks for is not there for this account or token. Nothing is marked deleted, except one
    record that is gone."""


class GoneError(NotAvailableError):
    """404 with amoCRM's JSON: the record that the path names does not exist. Of a list that every account
    has, it is a failure."""


class NotOfferedError(NotAvailableError):
    """The account does not have the list, and amoCRM documents this answer for it (`declines`): skip it."""


class NoRightsError(NotAvailableError):
    """403 with amoCRM's JSON: the token may not read this."""


class BadRequestError(AmoError):
    """A refusal that amoCRM does not document for this request: the request itself is wrong, or it uses a
    filter that the account does not have."""


class InterruptedSyncError(AmoError):
    """A person has interrupted the run. What it was reading is neither complete nor failed."""


class ListIncompleteError(AmoError):
    """The list cannot be read completely: amoCRM limits page numbers, and there is no filter to divide the
    list by."""


class AccessRevokedError(AmoError):
    """401 for good: the token is expired or revoked, or the integration is off. Only a person can help."""


class BlockedError(AmoError):
    """403 with an HTML page: amoCRM has blocked the account or this address. Nothing may be sent any more."""
