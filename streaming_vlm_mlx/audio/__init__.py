"""Sound: reading a clip's sound, keeping it in step with the playhead, mixing speech into it, and playing it."""
