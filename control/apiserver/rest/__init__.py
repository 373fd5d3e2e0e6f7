"""The REST gateway: Kubernetes' HTTP API over the same registry, for kubectl and the client libraries."""
