"""Pictures: sources, one-second chunks, pixels to patches."""
