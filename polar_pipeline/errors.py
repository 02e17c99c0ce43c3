"""What a user or an operator can mend: the command line prints it in one sentence, and each kind has an exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended, for a scheduler."""

    DONE = 0
    SOME_FAILED = 1  # or a requested language is missing from the submission
    WRONG_INPUT = 2
    BROKEN_ENVIRONMENT = 3
    INTERRUPTED = 130


class InputError(ValueError):
    """Bad input from outside: a file, a row, a setting. The message is one sentence: where, what, and the remedy."""

    exit_code = ExitCode.WRONG_INPUT


class EnvironmentProblem(InputError):
    """The machine or the home keeps a command from working: a full disk, a damaged database, a missing package.

    Nothing is wrong with the command or its input: once the environment is repaired, the same command works.
    """

    exit_code = ExitCode.BROKEN_ENVIRONMENT
