"""The one exception a user can cause: a sentence that says what was wrong, what is allowed, what to do."""


class KinemaError(ValueError):
    """Bad input. The command line prints its message alone and exits with 2."""
