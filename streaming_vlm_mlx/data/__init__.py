"""Datasets: records, annotations, transcripts, batches."""
