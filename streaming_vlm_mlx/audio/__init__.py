"""Sound: reading a clip's sound, keeping it in step with the playhead, speaking commentary, mixing and playing both."""
