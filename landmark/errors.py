"""The error that is the user's to fix."""


class UserError(Exception):
    """Something the user can fix: the message is one line that names it and says what to do.

    Scripts print the message and exit with code 1 (see cli.command). Any other exception is a bug of ours and keeps
    its traceback.
    """
