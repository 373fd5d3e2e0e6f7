"""Volumes: host directories made from a pod's spec before its containers start.

``files_of`` is pure: it says which files a configMap, secret, downwardAPI or projected volume holds. ``Volumes``
writes them, the way Kubernetes does: into a new timestamped directory, then one rename of the ``..data`` link, so
readers see all or nothing.
"""

import os
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from control.kubelet.env import ConfigError, Sources, field_value, resource_value
from protos.k8s import core_v1_pb2 as core

DEFAULT_MODE = 0o644


@dataclass(frozen=True)
class File:
    """One file of a volume."""

    path: str
    content: bytes
    mode: int


def files_of(pod: core.Pod, volume: core.Volume, sources: Sources) -> list[File] | None:
    """The files of a volume that is made of objects; None for other kinds of volume. Raises ConfigError."""
    source = volume.volumeSource
    if source.HasField("configMap"):
        ref = source.configMap
        data = _config_map(ref.localObjectReference.name, ref.optional, sources)
        return _chosen(data, ref.items, _mode(ref), f"configmap {ref.localObjectReference.name}", ref.optional)
    if source.HasField("secret"):
        secret_ref = source.secret
        secret_data = _secret(secret_ref.secretName, secret_ref.optional, sources)
        return _chosen(
            secret_data, secret_ref.items, _mode(secret_ref), f"secret {secret_ref.secretName}", secret_ref.optional
        )
    if source.HasField("downwardAPI"):
        return _downward(pod, source.downwardAPI.items, _mode(source.downwardAPI), sources)
    if source.HasField("projected"):
        return _projected(pod, source.projected, sources)
    return None


def _mode(source: object) -> int:
    mode = getattr(source, "defaultMode", 0)
    return mode or DEFAULT_MODE


def _config_map(name: str, optional: bool, sources: Sources) -> dict[str, bytes]:
    found = sources.config_maps.get(name)
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'configmap "{name}" not found')
    return {**{key: text.encode() for key, text in found.data.items()}, **found.binaryData}


def _secret(name: str, optional: bool, sources: Sources) -> dict[str, bytes]:
    found = sources.secrets.get(name)
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'secret "{name}" not found')
    return dict(found.data)


def _chosen(
    data: Mapping[str, bytes], items: Iterable[core.KeyToPath], mode: int, what: str, optional: bool
) -> list[File]:
    chosen = list(items)
    if not chosen:
        return [File(key, content, mode) for key, content in sorted(data.items())]
    files = []
    for item in chosen:
        if item.key in data:
            files.append(File(_inside(item.path), data[item.key], item.mode or mode))
        elif not optional:
            raise ConfigError(f"{what} references non-existent key: {item.key}")
    return files


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ConfigError(f"volume path {path} must be relative and stay inside the volume")
    return path


def _downward(pod: core.Pod, items: Iterable[core.DownwardAPIVolumeFile], mode: int, sources: Sources) -> list[File]:
    files = []
    for item in items:
        if item.HasField("fieldRef"):
            text = field_value(pod, item.fieldRef.fieldPath, sources)
        else:
            text = resource_value(pod, pod.spec.containers[0], item.resourceFieldRef, sources.allocatable)
        files.append(File(_inside(item.path), text.encode(), item.mode or mode))
    return files


def _projected(pod: core.Pod, projected: core.ProjectedVolumeSource, sources: Sources) -> list[File]:
    mode = _mode(projected)
    files: list[File] = []
    for source in projected.sources:
        if source.HasField("configMap"):
            name, optional = source.configMap.localObjectReference.name, source.configMap.optional
            files += _chosen(
                _config_map(name, optional, sources), source.configMap.items, mode, f"configmap {name}", optional
            )
        elif source.HasField("secret"):
            name, optional = source.secret.localObjectReference.name, source.secret.optional
            files += _chosen(_secret(name, optional, sources), source.secret.items, mode, f"secret {name}", optional)
        elif source.HasField("downwardAPI"):
            files += _downward(pod, source.downwardAPI.items, mode, sources)
        else:
            kind = source.ListFields()[0][0].name if source.ListFields() else "empty"
            raise ConfigError(f"projected volume source {kind} is not supported by this kubelet")
    return files


def wanted_objects(pod: core.Pod) -> tuple[set[str], set[str]]:
    """(ConfigMap names, Secret names) that the pod's environment and volumes refer to, optional ones included."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for spec in (*pod.spec.initContainers, *pod.spec.containers):
        for source in spec.envFrom:
            maps.add(source.configMapRef.localObjectReference.name)
            secrets.add(source.secretRef.localObjectReference.name)
        for variable in spec.env:
            maps.add(variable.valueFrom.configMapKeyRef.localObjectReference.name)
            secrets.add(variable.valueFrom.secretKeyRef.localObjectReference.name)
    for volume in pod.spec.volumes:
        maps.add(volume.volumeSource.configMap.localObjectReference.name)
        secrets.add(volume.volumeSource.secret.secretName)
        for projection in volume.volumeSource.projected.sources:
            maps.add(projection.configMap.localObjectReference.name)
            secrets.add(projection.secret.localObjectReference.name)
    return maps - {""}, secrets - {""}


class Volumes:
    """The volumes of this node's pods, below ``root``: ``<root>/<pod uid>/volumes/<volume name>``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def pod_dir(self, uid: str) -> Path:
        """Everything the kubelet keeps on disk for a pod."""
        return self.root / uid

    def mount(self, pod: core.Pod, sources: Sources) -> dict[str, str]:
        """Make every volume of ``pod`` and return their host paths by name. Raises ConfigError, OSError."""
        return {volume.name: str(self._mount_one(pod, volume, sources)) for volume in pod.spec.volumes}

    def _mount_one(self, pod: core.Pod, volume: core.Volume, sources: Sources) -> Path:
        source = volume.volumeSource
        if source.HasField("hostPath"):
            return _host_path(source.hostPath, volume.name)
        path = self.pod_dir(pod.metadata.uid) / "volumes" / volume.name
        files = files_of(pod, volume, sources)
        if files is not None:
            write_files(path, files)
        elif source.HasField("emptyDir") or not source.ListFields():
            _make_empty_dir(path, pod)
        else:
            kind = source.ListFields()[0][0].name
            raise ConfigError(f"volume {volume.name}: {kind} is not supported by this kubelet")
        return path

    def hosts_file(self, pod: core.Pod, hostname: str, ips: tuple[str, ...], domain: str = "cluster.local") -> Path:
        """The pod's /etc/hosts."""
        path = self.pod_dir(pod.metadata.uid) / "etc-hosts"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(hosts_text(pod, hostname, ips, domain))
        return path

    def message_file(self, pod: core.Pod, container: str, attempt: int) -> Path:
        """Where instance ``attempt`` of a container may leave its last words."""
        path = self.pod_dir(pod.metadata.uid) / "messages" / f"{container}.{attempt}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o666)
        return path

    def remove(self, uid: str) -> None:
        """Remove everything kept for a pod."""
        shutil.rmtree(self.pod_dir(uid), ignore_errors=True)


def _make_empty_dir(path: Path, pod: core.Pod) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    if pod.spec.securityContext.HasField("fsGroup"):
        os.chown(path, -1, pod.spec.securityContext.fsGroup)
        path.chmod(0o2777)


HOST_PATH_TESTS = {
    "Directory": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


def _host_path(source: core.HostPathVolumeSource, name: str) -> Path:
    path, kind = Path(source.path), source.type
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch()
    test = HOST_PATH_TESTS.get(kind.removesuffix("OrCreate"))
    if test is not None and not (path.exists() and test(path.stat().st_mode)):
        raise ConfigError(f"volume {name}: hostPath type check failed: {path} is not a {kind}")
    return path


def write_files(path: Path, files: Iterable[File]) -> None:
    """Replace the content of a volume at once; files that are equal already are left alone."""
    path.mkdir(parents=True, exist_ok=True)
    wanted = list(files)
    data = path / "..data"
    if data.is_symlink() and _holds(data, wanted):
        return
    fresh = path / f"..{time.time_ns()}"
    for file in wanted:
        target = fresh / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    fresh.mkdir(exist_ok=True)
    old = path / data.readlink() if data.is_symlink() else None
    link = path / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(data)
    _link_names(path, wanted)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _holds(data: Path, files: list[File]) -> bool:
    there = {str(found.relative_to(data)): found for found in data.rglob("*") if found.is_file()}
    return set(there) == {file.path for file in files} and all(
        there[file.path].read_bytes() == file.content for file in files
    )


def _link_names(path: Path, files: list[File]) -> None:
    """The visible names: links into ``..data`` that stay when the data changes."""
    wanted = {file.path.split("/")[0] for file in files}
    for name in wanted:
        link = path / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    for entry in path.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()


def hosts_text(pod: core.Pod, hostname: str, ips: tuple[str, ...], domain: str) -> str:
    """The text of a pod's hosts(5) file."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    full = f"{hostname}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{domain}\t" if pod.spec.subdomain else ""
    lines += [f"{ip}\t{full}{hostname}" for ip in ips]
    if pod.spec.hostAliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias.ip, *alias.hostnames]) for alias in pod.spec.hostAliases]
    return "\n".join(lines) + "\n"
