"""Screens of the player, each with its style sheet beside it."""
