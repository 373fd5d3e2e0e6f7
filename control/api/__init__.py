"""The scheme: which kinds exist, how they look as JSON, what is defaulted and what is refused. Pure: no I/O."""
