"""Lifecycle hooks: what a container wants done right after its start and right before its end."""

import asyncio

from control.kubelet.http import Http, http_error
from control.kubelet.probes import http_url, port_number
from control.kubelet.runtime import Runtime, RuntimeFailed
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core


class HookFailed(Exception):
    """The hook did not succeed; the text says how."""


async def run_hook(
    handler: core.LifecycleHandler,
    spec: core.Container,
    container_id: str,
    ip: str,
    runtime: Runtime,
    http: Http,
) -> None:
    """Do what ``handler`` says; the caller limits the time. Raises HookFailed.

    exec runs in the container, httpGet is asked of the pod, sleep waits.
    """
    try:
        if handler.HasField("exec"):
            await _exec(list(handler.exec.command), container_id, runtime)
        elif handler.HasField("httpGet"):
            url = http_url(handler.httpGet, ip, port_number(spec, handler.httpGet.port))
            headers = {header.name: header.value for header in handler.httpGet.httpHeaders}
            async with http.get(url, headers=headers, ssl=False) as response:
                if response.status >= 400:
                    raise HookFailed(f"HTTP hook failed with statuscode: {response.status}")
        elif handler.HasField("sleep"):
            await asyncio.sleep(handler.sleep.seconds)
    except (RuntimeFailed, OSError, http_error()) as err:
        raise HookFailed(str(err)) from err


async def _exec(command: list[str], container_id: str, runtime: Runtime) -> None:
    answer = await runtime.call("ExecSync", cri.ExecSyncRequest(container_id=container_id, cmd=command), None)
    if answer.exit_code:
        output = (answer.stderr or answer.stdout)[:1024].decode(errors="replace").strip()
        raise HookFailed(f"command '{' '.join(command)}' exited with {answer.exit_code}: {output}")
