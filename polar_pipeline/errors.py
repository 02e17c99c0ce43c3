"""The one exception that means "your input is wrong": the command line prints it and exits with code 2."""


class InputError(ValueError):
    """Bad input from outside: a file, a row, a setting. The message is one sentence that says where, what and the remedy."""
