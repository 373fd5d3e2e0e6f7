"""What ``ctl describe`` prints, one function per kind: objects in, lines with tabs out. Pure.

Reading order: parts (what kinds share), then pod, workload, service, node, generic.
"""
