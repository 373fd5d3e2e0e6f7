"""Proxied requests, connections and bytes: ``python -m proxy`` against haproxy, nginx behind both, wrk before."""

import re
import subprocess
from pathlib import Path

from bench.processes import PYTHON, folder, need, need_root, network_namespace, process, wait_until
from bench.report import Row, Section, Skip, median
from bench.section_memory import pss_mib

NAME = "proxy"

NGINX = """daemon off; pid {dir}/nginx.pid; error_log /dev/null; worker_processes 1;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; sendfile on;
  server {{ listen 127.0.0.1:8080 backlog=8192; location / {{ return 200 "hello\\n"; }}
            location /big {{ root {dir}; }} }} }}
"""

HAPROXY = """global
  maxconn 8000
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen web
  bind 127.0.0.1:8082
  server one 127.0.0.1:8080
"""

SERVICE = """apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{port: 8081}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{port: 8080}]
"""

TARGETS = {"ours": "10.96.0.10:8081", "peer": "127.0.0.1:8082", "direct": "127.0.0.1:8080"}
BIG_BYTES = 64 << 20

# (key, measure, unit, wrk's flags)
LOADS = [
    ("keep", "keep-alive requests, 64 connections", ["-c64"], "/"),
    ("new", "new connections, one request each, 64 at a time", ["-c64", "-H", "Connection: close"], "/"),
    ("bulk", "64 MiB responses, 2 connections", ["-c2"], "/big"),
]


def run(rounds: int, seconds: float) -> Section:
    """Measure. Raises Skip."""
    need_root()
    need("nginx", "haproxy", "wrk", "unshare", "nsenter", "ip")
    section = Section(
        NAME,
        "Service proxy",
        facts=(
            "One network namespace; nginx (one worker) behind both proxies, wrk (one thread) before; "
            "`python -m proxy` serves a ClusterIP with one endpoint, haproxy runs one thread in tcp mode."
        ),
    )
    with folder() as path, network_namespace() as inside:
        samples = _measure(path, inside, rounds, seconds)
    section.rows = _rows(samples)
    return section


def _measure(path: Path, inside: list[str], rounds: int, seconds: float) -> dict[tuple[str, str, str], list[float]]:
    (path / "nginx.conf").write_text(NGINX.format(dir=path))
    (path / "haproxy.cfg").write_text(HAPROXY)
    (path / "services.yaml").write_text(SERVICE)
    (path / "big").write_bytes(bytes(BIG_BYTES))
    path.chmod(0o755)  # nginx's worker drops root
    log = path / "log"
    samples: dict[tuple[str, str, str], list[float]] = {}
    ours = [PYTHON, "-m", "proxy", "--services", f"{path}/services.yaml", "--listen", f"unix://{path}/proxy.sock"]
    with (
        process([*inside, "nginx", "-c", f"{path}/nginx.conf", "-p", str(path)], log) as nginx,
        process([*inside, "haproxy", "-db", "-f", f"{path}/haproxy.cfg"], log) as haproxy,
        process([*inside, *ours], log) as proxy,
    ):
        for child, what in ((nginx, "direct"), (haproxy, "peer"), (proxy, "ours")):
            wait_until(lambda what=what: _wrk(inside, TARGETS[what], ["-c1"], "/", 0.1), what, child, log)
        for number in range(rounds):
            order = ["ours", "peer", "direct"]
            for load, _, flags, url in LOADS:
                for who in order if number % 2 == 0 else reversed(order):
                    for figure, value in _wrk(inside, TARGETS[who], flags, url, seconds).items():
                        samples.setdefault((load, who, figure), []).append(value)
        for who, child in (("ours", proxy), ("peer", haproxy)):
            samples["memory", who, "pss"] = [_pss_of_tree(child.pid)]
    return samples


def _wrk(inside: list[str], address: str, flags: list[str], url: str, seconds: float) -> dict[str, float]:
    """One run of wrk: requests/s, bytes/s, p99 in ms. Raises OSError when nobody answers."""
    command = [*inside, "wrk", "-t1", f"-d{seconds:g}s" if seconds >= 1 else "-d1s", "--latency", *flags]
    done = subprocess.run([*command, f"http://{address}{url}"], capture_output=True, text=True)
    if done.returncode or "Requests/sec" not in done.stdout:
        raise ConnectionRefusedError(done.stderr.strip())
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", done.stdout)
    if errors and any(int(each) for each in errors.groups()[:1]):
        raise Skip(f"wrk met errors on {address}: {errors[0]}")
    scale = {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
    p99 = re.search(r"99%\s+([\d.]+)(\w+)", done.stdout)
    rate = re.search(r"Transfer/sec:\s+([\d.]+)(\w+)", done.stdout)
    requests = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert p99 and rate and requests
    return {
        "requests": float(requests[1]),
        "bytes": float(rate[1]) * scale[rate[2]],
        "p99": float(p99[1]) * scale[p99[2]],
    }


def _pss_of_tree(pid: int) -> float:
    """PSS of a process and its children, MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pss_mib(pid) + sum(pss_mib(int(child)) for child in children)


def _rows(samples: dict[tuple[str, str, str], list[float]]) -> list[Row]:
    def medians(load: str, figure: str, scale: float = 1.0) -> tuple[float, float, float]:
        ours, peer, direct = (median(samples[load, who, figure]) * scale for who in ("ours", "peer", "direct"))
        return ours, peer, direct

    rows = []
    for load, measure, _, _ in LOADS:
        if load == "bulk":
            ours, peer, direct = medians(load, "bytes", 8 / 1e9)
            rows.append(Row(measure, "Gbit/s", ours, peer, "haproxy", note=f"no proxy: {direct:.3g}"))
            continue
        ours, peer, direct = medians(load, "requests")
        rows.append(Row(measure, "per s", ours, peer, "haproxy", note=f"no proxy: {direct:,.0f}"))
        ours, peer, direct = medians(load, "p99")
        rows.append(Row(f"{measure}, p99", "ms", ours, peer, "haproxy", False, note=f"no proxy: {direct:.3g}"))
    memory = [samples["memory", who, "pss"][0] for who in ("ours", "peer")]
    rows.append(Row("memory after the load, PSS", "MiB", *memory, "haproxy", False))
    return rows
