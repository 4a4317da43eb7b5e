"""The commands of ``svm-tui``, one module each.

A module offers `HELP` (what ``svm-tui NAME --help`` says above the options), `add_arguments(parser)`, and `run(args)`,
which returns the exit status. Its own imports at the top are light; the heavy ones are inside `run`.
"""

from collections.abc import Mapping

# Name, which is its module's name too, to the line in `svm-tui --help`, which must not import the module.
COMMANDS: Mapping[str, str] = {
    "play": "watch a clip with a model's commentary in the terminal",
    "replay": "play a session again, without a model",
    "export": "write a session as subtitles, as text, or into its clip",
    "infer": "write a model's commentary on a clip, without a screen",
    "convert": "make records for training, of datasets or of clips with a transcript",
    "convert-ckpt": "make a checkpoint smaller, or lay it out as Hugging Face does",
    "train": "train a model on records, from nothing or from a checkpoint",
    "fuse": "make an adapter part of the weights that it was trained on",
    "validate": "measure how good a model's commentary is, on matches it has never seen",
    "matches": "film simulated matches with commentary, to train and test on",
    "bench": "measure what a second of the stream costs on this machine",
    "doctor": "say what this machine computes with, and what would make it faster",
}
