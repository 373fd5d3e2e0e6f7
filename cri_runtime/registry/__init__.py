"""An OCI registry: the distribution-spec 1.1 server that a lab starts with, also alone."""
