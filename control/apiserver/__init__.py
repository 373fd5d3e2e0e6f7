"""The cluster API: objects on the etcd protocol, a watch cache, the rules of each kind, and the gRPC service."""
