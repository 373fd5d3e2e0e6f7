"""The ``ctl`` command: one table of commands, loaded when used, and the global flags.

Exit codes: 0 done; 1 anything that went wrong, a wrong flag too (kubectl's habit); ``ctl exec`` and ``ctl run --rm``
give the command's own code; 130 after Ctrl-C.
"""

import sys
from pathlib import Path

import click

from ctl.context import DEFAULT_STATE_DIR, Context
from ctl.lazy import LazyGroup, Section

SECTIONS = (
    Section(
        "The lab",
        {
            "up": ("ctl.lab.up:up", "Start the cluster of the state directory, or what is missing of it"),
            "down": ("ctl.lab.down:down", "Stop the cluster and remove what it left in the kernel"),
            "status": ("ctl.lab.status:status", "Show components, their health, uptime and memory"),
            "env": ("ctl.verbs.env:env", "Print the endpoints as variables for other tools"),
            "demo": ("ctl.demo:demo", "Tell the whole story, step by step, and check each step"),
        },
    ),
    Section(
        "Objects",
        {
            "get": ("ctl.verbs.get:get", "Display one or many objects"),
            "describe": ("ctl.verbs.describe:describe", "Show details of objects, with their events"),
            "create": ("ctl.verbs.create:create", "Create objects from a file or from flags"),
            "apply": ("ctl.verbs.apply:apply", "Make objects be as a file says"),
            "delete": ("ctl.verbs.delete:delete", "Delete objects by name, selector or file"),
            "edit": ("ctl.verbs.edit:edit", "Edit an object in your editor"),
            "patch": ("ctl.verbs.patch:patch", "Change fields of an object"),
            "label": ("ctl.verbs.label:label", "Set, change or remove labels"),
            "annotate": ("ctl.verbs.label:annotate", "Set, change or remove annotations"),
            "wait": ("ctl.verbs.wait:wait", "Wait for a condition, a field's value, or a deletion"),
            "events": ("ctl.verbs.events:events", "List events in the order they happened"),
            "explain": ("ctl.verbs.explain:explain", "Show the fields of a kind"),
            "api-resources": ("ctl.verbs.api_resources:api_resources", "List the kinds that the server serves"),
        },
    ),
    Section(
        "Workloads and services",
        {
            "run": ("ctl.verbs.run:run", "Run an image, replicated or as one pod"),
            "expose": ("ctl.verbs.expose:expose", "Make a service for a controller, pod or service"),
            "scale": ("ctl.verbs.scale:scale", "Set the number of replicas"),
            "rollout": ("ctl.verbs.rollout:rollout", "Follow, restart, hold and undo rollouts"),
            "logs": ("ctl.verbs.logs:logs", "Print what a container wrote"),
            "exec": ("ctl.verbs.exec:exec_", "Run a command in a container"),
            "attach": ("ctl.verbs.attach:attach", "Join the streams of a container's first process"),
            "port-forward": ("ctl.verbs.port_forward:port_forward", "Forward local ports to a pod"),
            "top": ("ctl.verbs.top:top", "Show CPU and memory in use"),
            "cordon": ("ctl.verbs.cordon:cordon", "Keep new pods off a node"),
            "uncordon": ("ctl.verbs.cordon:uncordon", "Let new pods onto a node again"),
        },
    ),
    Section(
        "The seams",
        {
            "cri": ("ctl.cri:cri", "Look at the node runtime: pods, containers, images, stats"),
            "container": ("ctl.container:container", "Run containers on this node: docker's verbs"),
            "image": ("ctl.image:image", "Build, tag, push, pull and inspect images"),
            "store": ("ctl.verbs.store:store", "Read and write the store directly"),
            "version": ("ctl.verbs.version:version", "Print the versions of ctl and of the server"),
            "completion": ("ctl.verbs.completion:completion", "Print the shell's completion script"),
        },
    ),
)


@click.group(cls=LazyGroup, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Contexts, as in a kubeconfig.")
@click.option("--context", "context_name", metavar="NAME", help="Which context of the config to use.")
@click.option("--server", "-s", metavar="ADDR", help="The apiserver, host:port, instead of the context's.")
@click.option("--namespace", "-n", metavar="NAME", help="The namespace; default the context's, else default.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    envvar="KNARR_STATE_DIR",
    default=DEFAULT_STATE_DIR,
    show_default=True,
    show_envvar=True,
    metavar="DIR",
    help="Where the cluster of up and down lives.",
)
@click.option(
    "--runtime-endpoint", "-r", "runtime_flag", metavar="URL", help="The CRI socket for cri and image, unix:///path."
)
@click.option("--endpoints", metavar="URLS", help="The store's client URLs, comma separated.")
@click.pass_context
def app(ctx: click.Context, **flags: object) -> None:
    """A Kubernetes you can read: a complete container cluster, from one command."""
    ctx.obj = Context(**flags)  # type: ignore[arg-type]


def main() -> None:
    """Entry point of the console script."""
    from ctl.errors import report

    try:
        code = app.main(prog_name="ctl", standalone_mode=False)
    except BaseException as err:  # the edge: every failure becomes one line and an exit code
        code = report(err)
    sys.exit(code if isinstance(code, int) else 0)
