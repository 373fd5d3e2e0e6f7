"""The etcd v3 services, one file each."""
