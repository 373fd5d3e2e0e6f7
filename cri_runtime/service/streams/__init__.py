"""What the streaming server is made of: HTTP upgrades, WebSocket, SPDY, and the protocols that run over them."""
