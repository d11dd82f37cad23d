"""The error tree: one root; one layer raises, one layer handles."""


class AppointmentsError(Exception):
    """Root of everything that this project raises on purpose."""


class CommandRefused(AppointmentsError):
    """The caller's fault; nothing was recorded. `problem` is the stable name, `errors` the fields at fault."""

    problem = "command-refused"
    status = 422

    def __init__(self, detail: str, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class InvalidFields(CommandRefused):
    """Fields are missing, malformed or over a limit; `errors` holds (pointer, detail)."""

    problem = "invalid-fields"


class UnknownLabel(CommandRefused):
    """A UI event carries no action label, or one that is not in the list."""

    problem = "unknown-action-label"


class KeyReused(CommandRefused):
    """The idempotency key was used before with another payload."""

    problem = "idempotency-key-reused"


class IllegalTransition(CommandRefused):
    """The command is not legal in the appointment's state."""

    problem = "illegal-transition"
    status = 409


class StaleVersion(CommandRefused):
    """The caller expected another version of the appointment."""

    problem = "stale-version"
    status = 412


class UnknownAppointment(CommandRefused):
    """No appointment has this id for this tenant."""

    problem = "unknown-appointment"
    status = 404


class StoreUnavailable(AppointmentsError):
    """The store takes no writes now (disk full, locked, closed); nothing was acknowledged. Try again later."""

    problem = "store-unavailable"
    status = 503


class StoreLocked(StoreUnavailable):
    """Another process holds this store file."""


class StoreRefused(StoreUnavailable):
    """The store is not ours, of another version, or would lose what it has acknowledged: it is left untouched."""


class LeaseLost(StoreUnavailable):
    """This worker was silent for so long that others have its work: nothing was written. It comes back by itself."""


class ConcurrencyConflict(AppointmentsError):
    """The stream has moved on since it was loaded: reload and decide again."""


class HistoryError(AppointmentsError):
    """A stored event cannot be decoded, or replay diverges: this stream is parked, the others go on."""


class ProviderUnavailable(AppointmentsError):
    """A provider could not be listed."""
