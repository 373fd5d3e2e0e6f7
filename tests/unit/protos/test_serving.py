"""The server that all services share: reflection answers, and is loaded only then."""

import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.serving import new_server, open_channel, running


async def test_reflection_lists_the_services(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/s"
    async with running(new_server(), [address], services=["x.Y"]), open_channel(address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        async with aclosing(aiter(call)) as answers:
            names = {service.name for service in (await anext(answers)).list_services_response.service}
    assert {"x.Y", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= names


def test_a_client_loads_neither_health_nor_reflection() -> None:
    program = "import sys, protos.serving; print([name for name in sys.modules if name.startswith('grpc_')])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "grpc_health.v1" not in loaded
    assert "grpc_reflection.v1alpha" not in loaded
