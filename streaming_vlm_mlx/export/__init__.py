"""Files that a session leaves: WebVTT, SRT, JSON."""
