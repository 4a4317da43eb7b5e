"""The engine: video in, timestamped commentary out; knows nothing of a screen."""
