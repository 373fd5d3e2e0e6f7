"""The runtime itself: version, info, runtime-config, update-runtime-config, metricdescs, metricsp, events."""

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


@cri_command(cri, "update-runtime-config")
@click.option("-p", "--pod-cidr", required=True, metavar="CIDR", help="Where pod addresses come from.")
async def update_runtime_config(cri: Cri, pod_cidr: str) -> None:
    """Update the runtime configuration."""
    from protos.cri import runtime_pb2 as pb

    config = pb.RuntimeConfig(network_config=pb.NetworkConfig(pod_cidr=pod_cidr))
    rpc = cri.runtime.UpdateRuntimeConfig(pb.UpdateRuntimeConfigRequest(runtime_config=config))
    await cri.call(rpc, "updating the runtime config")


@cri_command(cri, "metricdescs")
@options.output(default="json", formats=("json", "yaml"))
async def metricdescs(cri: Cri, form: str) -> None:
    """List the descriptors of the metrics that metricsp lists."""
    from protos.cri import runtime_pb2 as pb

    rpc = cri.runtime.ListMetricDescriptors(pb.ListMetricDescriptorsRequest())
    show.print_data(show.to_dict(await cri.call(rpc, "listing metric descriptors")), form)


@cri_command(cri, "metricsp")
@options.output(default="json", formats=("json", "yaml"))
async def metricsp(cri: Cri, form: str) -> None:
    """List pod metrics."""
    from protos.cri import runtime_pb2 as pb

    rpc = cri.runtime.ListPodSandboxMetrics(pb.ListPodSandboxMetricsRequest())
    show.print_data(show.to_dict(await cri.call(rpc, "listing pod metrics")), form)


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
