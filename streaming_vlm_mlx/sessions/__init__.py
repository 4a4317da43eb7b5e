"""A session on disk: its record, the journal while it runs, subtitles, an MP4."""
