"""The lab: lays a cluster out in a state directory, brings it up and takes it down without a trace."""
