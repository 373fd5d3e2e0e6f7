"""The node runtime: pods, containers and images behind the Container Runtime Interface (CRI v1)."""
