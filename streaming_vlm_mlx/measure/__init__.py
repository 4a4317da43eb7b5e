"""Figures: scores against the truth, timings, memory, benchmarks, reports."""
