"""Which images there are and what they are called: a small table, one JSON file, replaced whole.

``catalog.json`` is written aside, fsynced and renamed, so a kill leaves the old table or the new one. What the table
names is on disk before it is written; what it no longer names is removed after.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cri_runtime.images.blobs import fsync_directory
from cri_runtime.images.digest import Digest
from cri_runtime.images.manifest import Descriptor, parse_descriptor

_VERSION = 1


@dataclass(frozen=True)
class ImageRow:
    """An image: its manifest, and whether it was removed while a container used it."""

    manifest: Descriptor
    removed: bool = False


@dataclass(frozen=True)
class NameRow:
    """What a full reference stands for: the image, and what the registry calls it (an index or its manifest)."""

    image_id: Digest
    target: Descriptor


@dataclass(frozen=True)
class Table:
    """All images by id (digest of the config) and all names. Immutable: a change is a new table.

    Invariant: every name's image is in ``images``, and not removed.
    """

    images: Mapping[Digest, ImageRow] = field(default_factory=dict)
    names: Mapping[str, NameRow] = field(default_factory=dict)

    def names_of(self, image_id: Digest) -> list[str]:
        """The sorted names of an image."""
        return sorted(name for name, row in self.names.items() if row.image_id == image_id)

    def with_image(self, image_id: Digest, manifest: Descriptor, names: Mapping[str, Descriptor]) -> "Table":
        """With an image and more names for it; a name that was another image's moves.

        An image that is here keeps the manifest it has: the same layers may travel in several compressions.
        """
        rows = {name: NameRow(image_id, target) for name, target in names.items()}
        kept = self.images.get(image_id, ImageRow(manifest)).manifest
        return Table({**self.images, image_id: ImageRow(kept)}, {**self.names, **rows})

    def without_names(self, doomed: set[str]) -> "Table":
        """Without these names."""
        return replace(self, names={name: row for name, row in self.names.items() if name not in doomed})

    def without_image(self, image_id: Digest, keep_removed: bool) -> "Table":
        """Without an image and its names; ``keep_removed`` keeps a row that only says so."""
        names = {name: row for name, row in self.names.items() if row.image_id != image_id}
        images = dict(self.images)
        row = images.pop(image_id)
        if keep_removed:
            images[image_id] = replace(row, removed=True)
        return Table(images, names)


def load(path: Path) -> Table:
    """Read the table; an absent file is an empty one. Raises OSError, ValueError for a file that is not ours."""
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Table()
    if body.get("version") != _VERSION:
        raise ValueError(f"{path}: version {body.get('version')} of the catalog is not known to this release")
    images = {
        Digest(key): ImageRow(parse_descriptor(row["manifest"]), bool(row.get("removed")))
        for key, row in body["images"].items()
    }
    names = {
        name: NameRow(Digest(row["image"]), parse_descriptor(row["target"])) for name, row in body["names"].items()
    }
    return Table(images, names)


def save(path: Path, table: Table) -> None:
    """Replace the table durably. Blocks for two fsyncs. Raises OSError."""
    body: dict[str, Any] = {
        "version": _VERSION,
        "images": {
            str(key): {"manifest": row.manifest.to_json(), "removed": row.removed} for key, row in table.images.items()
        },
        "names": {
            name: {"image": str(row.image_id), "target": row.target.to_json()} for name, row in table.names.items()
        },
    }
    scratch = path.with_suffix(".new")
    with scratch.open("w") as file:
        json.dump(body, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    fsync_directory(path.parent)
