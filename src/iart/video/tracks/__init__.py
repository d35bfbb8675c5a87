"""Sound, subtitles and attachments: what becomes of each in the output."""
