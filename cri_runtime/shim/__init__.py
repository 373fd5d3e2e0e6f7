"""The shim: a warm parent (zygote), one supervisor per pod, and the way into a container.

Small and single-threaded. It imports nothing that a pod does not need: no gRPC, asyncio, pathlib, typing or logging.
"""
