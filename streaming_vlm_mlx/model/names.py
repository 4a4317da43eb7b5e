"""What parameters are called: in our modules, in hub folders old and new, in MLX's."""

_PREFIXES = (
    # transformers from 4.52 on, in memory and in some folders.
    ("model.visual.", "visual."),
    ("model.language_model.", "model."),
    # mlx-vlm, which the folders of mlx-community are written by.
    ("vision_tower.", "visual."),
    ("language_model.model.", "model."),
    ("language_model.lm_head", "lm_head"),
)


def hub_name(name: str) -> str:
    """Return the name of a parameter or layer in the first hub folders: ``visual.…``, ``model.…``, ``lm_head.…``.

    Our modules have the same names.
    """
    for prefix, ours in _PREFIXES:
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    return name
