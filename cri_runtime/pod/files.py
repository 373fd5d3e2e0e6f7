"""Pure: the small files a pod's containers get: hostname, hosts, resolv.conf."""

from collections.abc import Sequence

from protos.cri import runtime_pb2 as cri

LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def hosts(ips: Sequence[str], hostname: str) -> str:
    """/etc/hosts of a pod with its own network."""
    return LOCALHOST + "".join(f"{ip}\t{hostname}\n" for ip in ips)


def resolv_conf(dns: cri.DNSConfig) -> str:
    """/etc/resolv.conf as resolv.conf(5) has it."""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines)
