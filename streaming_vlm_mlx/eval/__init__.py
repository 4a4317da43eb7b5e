"""Measures: text metrics, validation runs, their report, and the benchmark of the stream."""
