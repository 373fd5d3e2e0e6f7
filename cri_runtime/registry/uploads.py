"""Blob uploads under way: distribution-spec 1.1, "Pushing blobs"."""

import time
import uuid
from dataclasses import dataclass

from cri_runtime.images.blobs import BlobStore, BlobWriter
from cri_runtime.registry import errors

_IDLE_S_MAX = 3600.0


@dataclass
class Upload:
    """One upload."""

    id: str
    repository: str
    writer: BlobWriter
    used_at: float
    busy: bool = False
    """A request is writing to it; a second one at once is refused."""


class Uploads:
    """Uploads by id, in memory: a restart loses them, and their client is told to begin again.

    One that nobody continued for an hour is dropped when the next begins.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._uploads: dict[str, Upload] = {}

    def begin(self, repository: str, algorithm: str = "sha256") -> Upload:
        """Start one."""
        self._drop_idle()
        upload = Upload(str(uuid.uuid4()), repository, self._blobs.writer(algorithm), time.monotonic())
        self._uploads[upload.id] = upload
        return upload

    def get(self, repository: str, key: str) -> Upload:
        """Find one. Raises the refusal BLOB_UPLOAD_UNKNOWN."""
        upload = self._uploads.get(key)
        if upload is None or upload.repository != repository:
            raise errors.upload_unknown()
        upload.used_at = time.monotonic()
        return upload

    def end(self, upload: Upload) -> None:
        """Forget one, and throw away what was not committed."""
        self._uploads.pop(upload.id, None)
        upload.writer.__exit__()

    def _drop_idle(self) -> None:
        now = time.monotonic()
        for upload in [u for u in self._uploads.values() if not u.busy and now - u.used_at > _IDLE_S_MAX]:
            self.end(upload)
