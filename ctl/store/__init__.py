"""Work on the store's data as a whole."""
