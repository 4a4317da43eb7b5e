"""The terminal face: the command line and the player."""
