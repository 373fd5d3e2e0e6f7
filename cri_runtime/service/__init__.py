"""The gRPC and streaming side of the runtime: protocol only."""
