"""The one exception that is meant for the person at the keyboard."""


class CompanionError(Exception):
    """One line for the user: what was wrong, where, and what to do about it.

    The command line and the notebook runner print it as `error: …` and exit with status 2, without a
    traceback. Metric functions raise ValueError instead, with the offending value and the shapes.
    """
