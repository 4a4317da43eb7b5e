"""Loss and trainer."""
