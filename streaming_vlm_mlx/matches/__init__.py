"""Simulated matches: clips with commentary and a truth that is known to the frame."""
