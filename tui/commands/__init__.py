"""The commands of ``svm-tui``, one module each.

A module has `HELP` (the text above the options in ``svm-tui NAME --help``), `add_arguments(parser)`, and `run(args)`,
which returns the exit status. Imports at its top are light, for a fast ``--help``; heavy imports are inside `run`.
"""

from collections.abc import Mapping

# Each command's name, which is its module's name too, and its line in `svm-tui --help`, which imports no command.
COMMANDS: Mapping[str, str] = {
    "play": "watch a clip with a model's commentary in the terminal",
    "replay": "play a saved session again, without a model",
    "export": "write a saved session as subtitles, as text, or into its clip",
    "infer": "write a model's commentary on a clip, without a screen",
    "convert": "make training records from datasets, or from clips with transcripts",
    "convert-ckpt": "quantize a checkpoint, or write it in Hugging Face's layout",
    "train": "train a model on records, from scratch or from a checkpoint",
    "fuse": "merge a LoRA adapter into its base checkpoint",
    "validate": "measure the quality of a model's commentary on clips it was not trained on",
    "matches": "render simulated matches with commentary, for training and tests",
    "bench": "measure time and memory of a second of the stream on this machine",
    "doctor": "show what MLX computes on here, and how to make it faster",
}
