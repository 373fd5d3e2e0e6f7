"""The node's service proxy: a userspace layer-4 load balancer for Kubernetes services. See README.md."""
