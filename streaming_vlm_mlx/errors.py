"""The one family of errors that a user is meant to read."""


class SvmError(Exception):
    """What went wrong and the way out, in one line.

    The command line prints the text on stderr and exits with 2; a traceback appears only with ``--debug``.
    Everything else that is raised is a defect of this program.
    """
