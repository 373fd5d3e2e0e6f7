"""kubectl's verbs, a file each."""
