"""The contracts between knarr's services: .proto files, and the Python code generated from them at install.

Import generated modules by their path: ``from protos.etcd import rpc_pb2``. ``protos.serving`` holds what every process
that speaks these contracts shares: logging, signals, TLS, health and reflection.
"""
