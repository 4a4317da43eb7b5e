"""Several machines that work on one model in step."""
