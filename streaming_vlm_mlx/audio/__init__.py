"""Sound: speech from text."""
