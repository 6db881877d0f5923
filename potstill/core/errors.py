"""Errors that a user can mend; every other exception is a bug and keeps its traceback."""


class UserError(Exception):
    """One sentence for the user: where it is, what was found, what was expected, what to do."""
