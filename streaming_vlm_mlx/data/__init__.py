"""Datasets: annotations and transcripts to records, records to batches."""
