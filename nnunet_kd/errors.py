"""The one exception that is a user's mistake and not a bug of ours."""


class UsageError(Exception):
    """Something the user can put right.

    Its text is one line that names what was expected, what came and what to type.
    The command line prints it and ends with status 2; inside nnU-Net's own commands
    the trainer prints it and raises ``SystemExit(2)``.
    """
