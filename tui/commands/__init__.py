"""The commands of ``svm-tui``, one module each.

A module has `HELP` (the text above the options in ``svm-tui NAME --help``), `add_arguments(parser)`, and `run(args)`,
which returns the exit status. Imports at its top are light, for a fast ``--help``; heavy imports are inside `run`.
`tui.cli.COMMANDS` lists the commands.
"""
