"""Exception class to status: one table. The text of a refusal is the body of the answer."""

from pubky_homeserver.core import errors

STATUS: dict[type[errors.Refused], int] = {
    errors.InvalidPath: 400,
    errors.InvalidCapability: 400,
    errors.InvalidAuthToken: 400,
    errors.MalformedGrant: 400,
    errors.InvalidSignupToken: 400,
    errors.InvalidCursor: 400,
    errors.InvalidRequest: 400,
    errors.StreamBroken: 400,
    errors.SignupTokenRequired: 400,
    errors.NoSession: 401,
    errors.Unauthorized: 401,
    errors.GrantRefused: 401,
    errors.SignupTokenUnknown: 401,
    errors.SignupTokenUsed: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.UserExists: 409,
    errors.Collision: 409,
    errors.LockUnknown: 409,
    errors.NotErased: 409,
    errors.PreconditionFailed: 412,
    errors.LockLost: 412,
    errors.BodyTooLarge: 413,
    errors.UnsupportedContentType: 415,
    errors.NotPrimary: 421,
    errors.UnprocessableRequest: 422,
    errors.Locked: 423,
    errors.TooManyRequests: 429,
    errors.TakenDown: 451,
    errors.StoreAway: 503,
    errors.RevocationsAway: 503,
    errors.NotHereYet: 503,
    errors.NotOpenYet: 503,
    errors.NotThisProcess: 503,
    errors.QuotaExceeded: 507,
    errors.StorageFull: 507,
}
"""Status of each refusal; a class that is not here has its nearest ancestor's."""

RETRY_AFTER = 1
"""Seconds that a client is asked to wait while the store is away: Redis is back as soon as it has read its files."""


_PASSING = (
    errors.StoreAway,
    errors.RevocationsAway,
    errors.NotHereYet,
    errors.NotOpenYet,
)  # what may be over in a moment


def status_of(refusal: errors.Refused) -> int:
    """The HTTP status of a refusal."""
    for known in type(refusal).__mro__:
        if known in STATUS:
            return STATUS[known]
    return 500


def retry_after(refusal: errors.Refused) -> int | None:
    """Whole seconds after which the same request may succeed; None if nobody knows."""
    if isinstance(refusal, errors.TooManyRequests):
        return refusal.retry_after
    return RETRY_AFTER if isinstance(refusal, _PASSING) else None
