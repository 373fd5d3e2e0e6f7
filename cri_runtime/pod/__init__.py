"""Pod sandboxes and containers: their rules, their records on disk, and the shell that makes the kernel follow them."""
