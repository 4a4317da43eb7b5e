"""Checkpoint folders as a whole: from one kind to another, held to another program, and what they take in memory."""
