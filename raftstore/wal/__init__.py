"""The write-ahead log on disk: what was promised, in order, until the database holds it."""
