"""The error that a user can mend."""


class UserError(Exception):
    """Something is wrong with what the user gave: the message is one line that names it and says what to do.

    Scripts print the message and exit with code 1 (see cli.command). Any other exception is a bug of ours and keeps
    its traceback.
    """
