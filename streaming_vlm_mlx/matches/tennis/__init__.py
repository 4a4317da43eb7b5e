"""Tennis: rules, play, arena, words."""
