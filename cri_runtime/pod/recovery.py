"""What happens at every start: read the records, look at the kernel, and make both agree.

There is no other recovery. In order: records; state directories that no record names; supervisors that still live;
sandboxes whose supervisor died; half-made containers; cgroups; addresses.
"""

import logging
import shutil

from cri_runtime.pod import machine
from cri_runtime.pod.client import Supervisor
from cri_runtime.pod.containers import Containers, read_status
from cri_runtime.pod.records import ContainerRecord, SandboxRecord
from cri_runtime.pod.sandboxes import Sandboxes
from cri_runtime.pod.world import Container, Sandbox, World, container_name, sandbox_name

log = logging.getLogger(__name__)


async def recover(world: World, sandboxes: Sandboxes, containers: Containers) -> None:
    """Converge. Raises OSError, NetworkError."""
    world.ancestors.load()
    sandbox_records, container_records, unreadable = world.records.load()
    for path in unreadable:
        log.warning("dropping what is no record", extra={"path": str(path)})
        path.unlink()
    _fill_tables(world, sandbox_records, container_records)
    await _discard_leftover_sandboxes(world, sandboxes)
    for sandbox in list(world.sandboxes.values()):
        await _meet(world, sandboxes, containers, sandbox)
    await _discard_half_made(world, containers)
    world.ancestors.sweep()
    live = {s.record.id for s in world.sandboxes.values() if s.record.ready and not s.record.host_network}
    await world.network.reconcile(live)


def _fill_tables(world: World, sandboxes: list[SandboxRecord], containers: list[ContainerRecord]) -> None:
    for record in sorted(sandboxes, key=lambda r: r.created_at):
        world.sandboxes[record.id] = Sandbox(record)
        world.names.add(sandbox_name(record))
    for container in sorted(containers, key=lambda r: r.created_at):
        world.containers[container.id] = Container(container)
        world.names.add(container_name(container))
        try:
            world.images.pin(container.image_id, container.id)
        except Exception as err:  # whatever the store says: the container is there all the same
            log.warning("image of a container is gone", extra={"container": container.id[:13], "cause": str(err)})


async def _discard_leftover_sandboxes(world: World, sandboxes: Sandboxes) -> None:
    home = world.state / "pods"
    for state in sorted(home.iterdir()) if home.exists() else ():
        if state.name not in world.sandboxes:
            log.info("discarding a half-made sandbox", extra={"sandbox": state.name[:13]})
            await sandboxes.discard_leftover(state)


async def _meet(world: World, sandboxes: Sandboxes, containers: Containers, sandbox: Sandbox) -> None:
    """Find the sandbox's supervisor, or end the sandbox."""
    record = sandbox.record
    found = await Supervisor.find(world.sandbox_state(record.id), *sandboxes.callbacks(sandbox))
    reports = {c.record.id: read_status(world.container_home(c.record.id)) for c in world.containers_of(record.id)}
    if found is not None:
        sandbox.supervisor = found[0]
        reports |= found[1]
    for container_id, report in reports.items():
        container = world.containers.get(container_id)
        if container is not None and report is not None:
            container.set(machine.observed(container.record, report))
    if found is None or not record.ready:
        if record.ready:
            log.warning("sandbox died while nobody looked", extra={"sandbox": record.id[:13]})
        await sandboxes.end(sandbox)


async def _discard_half_made(world: World, containers: Containers) -> None:
    """Containers without a spec were never announced; directories without a record are removed, or never were."""
    for container in list(world.containers.values()):
        record = container.record
        whole = (world.container_home(record.id) / "spec.json").exists()
        if not whole or record.sandbox_id not in world.sandboxes:
            log.info("discarding a half-made container", extra={"container": record.id[:13]})
            await containers.remove(record.id)
    home = world.root / "containers"
    for directory in home.iterdir() if home.exists() else ():
        if directory.name not in world.containers:
            shutil.rmtree(directory, ignore_errors=True)
