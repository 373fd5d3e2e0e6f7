"""``ctl env``: where everything listens, for other tools."""

import shlex

import click

from ctl.context import Context, pass_obj
from ctl.lab.settings import read_settings


@click.command()
@pass_obj
def env(context: Context) -> None:
    """Print endpoints and credentials as shell variables: eval "$(ctl env)"; etcdctl get --prefix /registry."""
    layout = context.layout
    settings, tls = read_settings(layout), layout.admin_tls()
    variables = {
        "KNARR_STATE_DIR": str(layout.state_dir),
        "ETCDCTL_API": "3",
        "ETCDCTL_ENDPOINTS": f"https://{settings.address('store')}",
        "ETCDCTL_CACERT": str(tls.ca),
        "ETCDCTL_CERT": str(tls.cert),
        "ETCDCTL_KEY": str(tls.key),
        "CONTAINER_RUNTIME_ENDPOINT": layout.runtime_endpoint,
        "IMAGE_SERVICE_ENDPOINT": layout.runtime_endpoint,
        "KNARR_SERVER": settings.address("apiserver"),
        "KNARR_REGISTRY": settings.address("registry"),
    }
    if settings.rest:
        variables["KUBECONFIG"] = str(layout.kubeconfig)
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
