"""Simulated matches: clips with commentary and a ground truth for every frame."""
