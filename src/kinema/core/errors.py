"""The exception a user can cause: a sentence that says what was wrong, what is allowed, what to do."""


class KinemaError(ValueError):
    """Bad input. The command line prints its message alone and exits with 2."""


class Unreachable(KinemaError):
    """The weights of a network are neither on this machine nor to be fetched."""
