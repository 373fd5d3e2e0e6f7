"""Images: a content-addressed store, layers as overlay snapshots, transfer from and to registries and archives."""
