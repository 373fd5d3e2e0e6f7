"""The node agent: pods in, CRI calls out, status back."""
