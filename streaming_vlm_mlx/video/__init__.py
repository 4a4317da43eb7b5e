"""Video: sources, one-second chunks, frames to patches."""
