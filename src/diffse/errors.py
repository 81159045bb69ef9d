"""The one exception that a user is meant to read."""


class DiffseError(Exception):
    """A mistake that the user can mend. Its text is one line: what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class GateFailed(DiffseError):
    """An artifact broke a rule of its gate. The artifact stays where it is."""

    exit_code = 1
