"""What can go wrong with a request, named by what helps (amocrm-api.md 1.6). No message ever holds a token."""

from __future__ import annotations


class AmoError(Exception):
    """A request that did not bring what it asked for. `request` is its method, path and query; the message ends with the cure."""

    def __init__(self, message: str, request: str = "", status: int = 0) -> None:
        super().__init__(f"{request}: {message}" if request else message)
        self.request, self.status, self.reason = request, status, message


class Passing(AmoError):
    """Worth another try: 5xx, a broken connection, a body that is not what it should be. Raised when the tries are used up."""


class TooHeavy(Passing):
    """504: the server did not manage the page in time. Ask for a smaller one."""


class Throttled(Passing):
    """429: too many requests. `seconds` is what Retry-After asks for, 0 when it says nothing."""

    def __init__(self, message: str, request: str = "", status: int = 429, seconds: float = 0.0) -> None:
        super().__init__(message, request, status)
        self.seconds = seconds


class NotOffered(AmoError):
    """This account or this token does not have the list (402, 403, 404, 405, 422, 425, 426): skip it, delete nothing."""


class Refused(AmoError):
    """400: the request itself is wrong, or a filter that the account does not have."""


class OutOfReach(AmoError):
    """The list ends for readers before it ends (a limit on page numbers, and no filter to divide it by): it cannot be read whole."""


class AccessLost(AmoError):
    """401 for good: the token is expired, revoked or the integration is off. Only a person can help."""


class Blocked(AmoError):
    """403 with an HTML page: amoCRM has blocked the account or the address. Nothing may be sent any more."""
