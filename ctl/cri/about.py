"""The runtime itself: version, info, runtime-config, events."""

import click

from ctl.cri import options, show
from ctl.cri.client import Cri, cri_command
from ctl.cri.group import cri


@cri_command(cri, "version")
async def version(cri: Cri) -> None:
    """Display runtime version information."""
    from protos.cri import runtime_pb2 as pb

    answer = await cri.call(cri.runtime.Version(pb.VersionRequest(version="v1")), "getting the runtime version")
    show.print_fields(
        [
            ("Version", answer.version),
            ("RuntimeName", answer.runtime_name),
            ("RuntimeVersion", answer.runtime_version),
            ("RuntimeApiVersion", answer.runtime_api_version),
        ]
    )


@cri_command(cri, "info")
@options.quiet_info
@options.output(default="json", formats=("json", "yaml"))
async def info(cri: Cri, quiet: bool, form: str) -> None:
    """Display information of the container runtime."""
    from protos.cri import runtime_pb2 as pb

    answer = await cri.call(cri.runtime.Status(pb.StatusRequest(verbose=not quiet)), "getting the status of runtime")
    data = show.to_dict(answer)
    data.pop("info", None)
    show.print_data({**data, **show.info_of(answer.info)}, form, sort=True)


@cri_command(cri, "runtime-config")
@options.output(formats=("json", "yaml", "table"))
async def runtime_config(cri: Cri, form: str) -> None:
    """Retrieve the container runtime configuration."""
    from protos.cri import runtime_pb2 as pb

    answer = await cri.call(cri.runtime.RuntimeConfig(pb.RuntimeConfigRequest()), "getting the runtime config")
    if form == "table":
        driver = pb.CgroupDriver.Name(answer.linux.cgroup_driver)
        click.echo(show.table([["cgroup driver:", driver]]), nl=False)
    else:
        show.print_data(show.to_dict(answer), form)


@cri_command(cri, "events")
@options.output(default="json", formats=("json", "yaml"))
async def events(cri: Cri, form: str) -> None:
    """Stream the events of containers, until Ctrl-C."""
    import grpc

    from protos.cri import runtime_pb2 as pb

    try:
        async for event in cri.runtime.GetContainerEvents(pb.GetEventsRequest()):
            show.print_data(show.to_dict(event), form)
    except grpc.aio.AioRpcError as err:
        raise cri.failure(err, "streaming container events") from err
