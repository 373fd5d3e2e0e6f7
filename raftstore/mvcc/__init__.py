"""Multi-version storage: every write is a new revision, and old revisions stay readable until compacted."""
