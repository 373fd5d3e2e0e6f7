"""The HTTP side: distribution-spec 1.1, one handler per endpoint, named by the specification's end-N."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote, urlencode

from aiohttp import web

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ContentMismatch, InvalidDigest, RegistryError
from cri_runtime.images.manifest import MANIFEST_BYTES_MAX, OCI_INDEX, Descriptor
from cri_runtime.registry import errors
from cri_runtime.registry.manifests import Reading, read_manifest, referrers_index
from cri_runtime.registry.mirror import Mirror
from cri_runtime.registry.repositories import Repositories, Repository, is_tag
from cri_runtime.registry.uploads import Upload, Uploads
from cri_runtime.registry.users import Users

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CHUNK_BYTES = 1 << 20
_PAGE_MAX = 1000
_OCTETS = {"Content-Type": "application/octet-stream"}


class Registry:
    """The endpoints over one storage; with ``users`` for these only, with ``mirror`` also what upstream has."""

    def __init__(self, repositories: Repositories, users: Users | None = None, mirror: Mirror | None = None) -> None:
        self._repositories = repositories
        self._blobs = repositories.blobs
        self._uploads = Uploads(repositories.blobs)
        self._users = users
        self._mirror = mirror

    def app(self) -> web.Application:
        """The application, routes and error bodies."""
        middlewares = [_answer_errors, *([self._authenticate] if self._users else [])]
        app = web.Application(middlewares=middlewares, client_max_size=MANIFEST_BYTES_MAX + 1)
        name = "/v2/{name:.+}"
        get, post, put, patch, delete = web.get, web.post, web.put, web.patch, web.delete
        app.add_routes(
            [
                get("/v2/", self.base),
                get("/v2", self.base),
                get("/v2/_catalog", self.catalog),
                post(name + "/blobs/uploads/", self.begin_upload),
                post(name + "/blobs/uploads", self.begin_upload),
                get(name + "/blobs/uploads/{upload}", self.upload_status),
                patch(name + "/blobs/uploads/{upload}", self.upload_chunk),
                put(name + "/blobs/uploads/{upload}", self.finish_upload),
                delete(name + "/blobs/uploads/{upload}", self.cancel_upload),
                get(name + "/blobs/{digest}", self.get_blob),
                delete(name + "/blobs/{digest}", self.delete_blob),
                get(name + "/manifests/{reference}", self.get_manifest),
                put(name + "/manifests/{reference}", self.put_manifest),
                delete(name + "/manifests/{reference}", self.delete_manifest),
                get(name + "/tags/list", self.list_tags),
                get(name + "/referrers/{digest}", self.list_referrers),
            ]
        )
        return app

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Basic authentication of every request (distribution-spec leaves the way to the registry)."""
        if self._users is None or await self._users.allow(request.headers.get("Authorization", "")):
            return await handler(request)
        raise errors.unauthorized()

    def _repository(self, request: web.Request) -> Repository:
        return self._repositories.get(request.match_info["name"])

    async def base(self, request: web.Request) -> web.Response:
        """end-1: says that this is a registry; answers once the service is ready."""
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    async def catalog(self, request: web.Request) -> web.Response:
        """The repositories, paged; not of the specification, but every client knows it."""
        names = [repository.name for repository in await asyncio.to_thread(lambda: [*self._repositories.all()])]
        page, headers = _page(request, names)
        return web.json_response({"repositories": page}, headers=headers)

    # --- blobs

    async def get_blob(self, request: web.Request) -> web.StreamResponse:
        """end-2: a blob or a range of it; HEAD likewise."""
        digest, repository = _digest(request.match_info["digest"]), self._repository(request)
        headers = {"Docker-Content-Digest": str(digest), **_OCTETS}
        if not repository.has_blob(digest):
            return await self._mirrored_blob(request, repository, digest, headers)
        if request.method == "HEAD":
            repository.wish_blob(digest)
        return web.FileResponse(self._blobs.path(digest), headers=headers)

    async def _mirrored_blob(
        self, request: web.Request, repository: Repository, digest: Digest, headers: dict[str, str]
    ) -> web.StreamResponse:
        """A blob from upstream, handed on as it arrives. A range is not cut: whoever asks gets all of it."""
        if self._mirror is None:
            raise errors.blob_unknown(digest)
        try:
            if request.method == "HEAD":
                size = await self._mirror.size(repository, digest)
                return web.Response(headers={**headers, "Content-Length": str(size)})
            download = await self._mirror.download(repository, digest)
        except RegistryError as err:
            raise errors.blob_unknown(digest) from err
        try:
            response = web.StreamResponse(headers={**headers, "Content-Length": str(download.size)})
            await response.prepare(request)
            async for chunk in download.chunks():
                await response.write(chunk)
            return response
        finally:
            download.release()

    async def delete_blob(self, request: web.Request) -> web.Response:
        """end-10."""
        digest = _digest(request.match_info["digest"])
        if not self._repository(request).unlink_blob(digest):
            raise errors.blob_unknown(digest)
        return web.Response(status=202)

    async def begin_upload(self, request: web.Request) -> web.Response:
        """end-4a, end-4b (the whole blob at once), end-11 (mounted from another repository)."""
        repository = self._repository(request)
        if "mount" in request.query:
            digest = _digest(request.query["mount"])
            with self._repositories.linking(digest):
                if await asyncio.to_thread(self._may_mount, digest, request.query.get("from")):
                    await asyncio.to_thread(repository.link_blob, digest)
                    return self._created(request, repository, digest)
        if "digest" in request.query:
            return await self._upload_whole(request, repository)
        algorithm = request.query.get("digest-algorithm", "sha256")
        upload = self._uploads.begin(repository.name, algorithm if algorithm in ("sha256", "sha512") else "sha256")
        return web.Response(status=202, headers=_upload_headers(upload))

    def _may_mount(self, digest: Digest, source: str | None) -> bool:
        """From the named repository; without a name from any: whoever may write one here may read all."""
        if source is None:
            return any(repository.has_blob(digest) for repository in self._repositories.all())
        try:
            return self._repositories.get(source).has_blob(digest)
        except errors.RegistryRefusal:
            return False

    async def _upload_whole(self, request: web.Request, repository: Repository) -> web.Response:
        digest = _digest(request.query["digest"])
        upload = self._uploads.begin(repository.name, digest.algorithm)
        try:
            await self._receive(request, upload)
            return await self._commit(request, repository, upload, digest)
        finally:
            self._uploads.end(upload)

    async def upload_status(self, request: web.Request) -> web.Response:
        """end-13: how far an upload is."""
        upload = self._uploads.get(self._repository(request).name, request.match_info["upload"])
        return web.Response(status=204, headers=_upload_headers(upload))

    async def upload_chunk(self, request: web.Request) -> web.Response:
        """end-5: the next chunk. A stream without Content-Range counts as one chunk."""
        upload = self._uploads.get(self._repository(request).name, request.match_info["upload"])
        _check_range(request, upload)
        await self._receive(request, upload)
        return web.Response(status=202, headers=_upload_headers(upload))

    async def finish_upload(self, request: web.Request) -> web.Response:
        """end-6: the last bytes, if any, and the digest of all."""
        repository = self._repository(request)
        upload = self._uploads.get(repository.name, request.match_info["upload"])
        if "digest" not in request.query:
            raise errors.digest_invalid("the last request of an upload has ?digest=")
        digest = _digest(request.query["digest"])
        _check_range(request, upload)
        await self._receive(request, upload)
        try:
            return await self._commit(request, repository, upload, digest)
        finally:
            self._uploads.end(upload)

    async def cancel_upload(self, request: web.Request) -> web.Response:
        """end-14: throw an upload away."""
        self._uploads.end(self._uploads.get(self._repository(request).name, request.match_info["upload"]))
        return web.Response(status=204)

    async def _receive(self, request: web.Request, upload: Upload) -> None:
        if upload.busy:
            raise errors.upload_invalid("another request is writing to this upload", status=409)
        upload.busy = True
        try:
            async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
                await asyncio.to_thread(upload.writer.write, chunk)
        finally:
            upload.busy = False

    async def _commit(
        self, request: web.Request, repository: Repository, upload: Upload, digest: Digest
    ) -> web.Response:
        with self._repositories.linking(digest):
            try:
                await asyncio.to_thread(upload.writer.commit, digest)
            except ContentMismatch as err:
                raise errors.digest_invalid(str(err)) from err
            await asyncio.to_thread(repository.link_blob, digest)
        return self._created(request, repository, digest)

    @staticmethod
    def _created(request: web.Request, repository: Repository, digest: Digest) -> web.Response:
        headers = {"Location": f"/v2/{repository.name}/blobs/{digest}", "Docker-Content-Digest": digest}
        return web.Response(status=201, headers=headers)

    # --- manifests

    async def get_manifest(self, request: web.Request) -> web.Response:
        """end-3: by tag or digest; HEAD likewise."""
        repository, reference = self._repository(request), request.match_info["reference"]
        if self._mirror is not None and (is_tag(reference) or _digest(reference)):
            await self._mirror.refresh(repository, reference)
        digest = repository.resolve(reference)
        data = await asyncio.to_thread(self._blobs.read, digest)
        headers = {"Docker-Content-Digest": digest, "Content-Type": repository.media_type(digest)}
        return web.Response(body=data, headers={**headers, "ETag": f'"{digest}"'})

    async def put_manifest(self, request: web.Request) -> web.Response:
        """end-7a, end-7b: what it refers to must be here; its subject need not."""
        repository, reference = self._repository(request), request.match_info["reference"]
        data = await _read_bounded(request)
        reading = read_manifest(data, request.content_type if "Content-Type" in request.headers else "")
        expected = None if is_tag(reference) else _digest(reference)
        digest = Digest.of(data, expected.algorithm if expected else "sha256")
        if expected is not None and digest != expected:
            raise errors.digest_invalid(f"the manifest has the digest {digest}, the request says {expected}")
        tags = [reference] if expected is None else _tags(request)
        with self._repositories.linking(digest):
            async with self._repositories.locks(repository.name):
                self._check_references(repository, reading)
                await asyncio.to_thread(self._blobs.put, data, digest)
                await asyncio.to_thread(repository.put_manifest, digest, reading.media_type, tags, reading.subject)
        headers = {"Location": f"/v2/{repository.name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if reading.subject is not None:
            headers["OCI-Subject"] = reading.subject
        if expected is not None and tags:
            headers["OCI-Tag"] = ", ".join(tags)
        log.info("manifest pushed", extra={"repository": repository.name, "reference": reference, "digest": digest})
        return web.Response(status=201, headers=headers)

    def _check_references(self, repository: Repository, reading: Reading) -> None:
        for digest in reading.blobs:
            if not repository.has_blob(digest):
                raise errors.manifest_blob_unknown(digest)
        known = set(repository.manifests()) if reading.manifests else set()
        for digest in reading.manifests:
            if digest not in known:
                raise errors.manifest_blob_unknown(digest)

    async def delete_manifest(self, request: web.Request) -> web.Response:
        """end-9: a tag alone, or a manifest with its tags."""
        repository, reference = self._repository(request), request.match_info["reference"]
        async with self._repositories.locks(repository.name):
            digest = repository.resolve(reference)
            if is_tag(reference):
                repository.delete_tag(reference)
            else:
                reading = read_manifest(self._blobs.read(digest), repository.media_type(digest))
                await asyncio.to_thread(repository.delete_manifest, digest, reading.subject)
        return web.Response(status=202)

    # --- lists

    async def list_tags(self, request: web.Request) -> web.Response:
        """end-8a, end-8b: tags in lexical order, paged by ``n`` and ``last``."""
        repository = self._repository(request)
        if not repository.exists:
            raise errors.name_unknown(repository.name)
        page, headers = _page(request, repository.tags())
        return web.json_response({"name": repository.name, "tags": page}, headers=headers)

    async def list_referrers(self, request: web.Request) -> web.Response:
        """end-12a, end-12b: manifests whose subject this is, perhaps of one artifact type."""
        repository, wanted = self._repository(request), request.query.get("artifactType", "")
        subject = _digest(request.match_info["digest"])
        found = await asyncio.to_thread(lambda: [self._describe(repository, d) for d in repository.referrers(subject)])
        kept = [descriptor for descriptor in found if not wanted or descriptor.artifact_type == wanted]
        headers = {"Content-Type": OCI_INDEX} | ({"OCI-Filters-Applied": "artifactType"} if wanted else {})
        return web.Response(body=referrers_index(kept), headers=headers)

    def _describe(self, repository: Repository, digest: Digest) -> Descriptor:
        data = self._blobs.read(digest)
        reading = read_manifest(data, repository.media_type(digest))
        return Descriptor(
            reading.media_type,
            digest,
            len(data),
            annotations=reading.annotations,
            artifact_type=reading.artifact_type,
        )


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except InvalidDigest as err:
        raise errors.digest_invalid(str(err)) from err


def _tags(request: web.Request) -> list[str]:
    """The tags of end-7b: ``?tag=1.2&tag=latest``."""
    tags = list(dict.fromkeys(request.query.getall("tag", [])))
    for tag in tags:
        if not is_tag(tag):
            raise errors.manifest_invalid(f'"{tag}" is no tag')
    return tags


def _upload_headers(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(upload.writer.size - 1, 0)}",
        "Docker-Upload-UUID": upload.id,
    }


def _check_range(request: web.Request, upload: Upload) -> None:
    """A chunk begins where the last one ended ("Pushing a blob in chunks")."""
    text = request.headers.get("Content-Range")
    if text is None:
        return
    start, dash, end = text.removeprefix("bytes").strip().partition("/")[0].partition("-")
    if not (dash and start.isdecimal() and end.isdecimal()):
        raise errors.upload_invalid(f'Content-Range is written <start>-<end>, not "{text}"')
    length = int(end) - int(start) + 1
    wrong_length = request.content_length is not None and request.content_length != length
    if int(start) != upload.writer.size or wrong_length:
        raise errors.upload_invalid(f"the next chunk begins at {upload.writer.size}", status=416)


async def _read_bounded(request: web.Request) -> bytes:
    data = bytearray()
    async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
        data += chunk
        if len(data) > MANIFEST_BYTES_MAX:
            raise errors.size_invalid(f"a manifest has at most {MANIFEST_BYTES_MAX} bytes")
    return bytes(data)


def _page(request: web.Request, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What ``n`` and ``last`` ask for, and the Link to the rest."""
    last = request.query.get("last", "")
    rest = [name for name in names if name > last] if last else list(names)
    text = request.query.get("n")
    if text is None:
        return rest, {}
    if not text.isdecimal():
        raise errors.RegistryRefusal(400, "PAGINATION_NUMBER_INVALID", f'n is a number, not "{text}"')
    count = min(int(text), _PAGE_MAX)
    page = rest[:count]
    if not page or len(rest) <= count:
        return page, {}
    query = urlencode({"n": count, "last": page[-1]})
    return page, {"Link": f'<{quote(request.path)}?{query}>; rel="next"'}


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the specification's body; the text is for people, the code for programs."""
    try:
        return await handler(request)
    except errors.RegistryRefusal as refusal:
        return web.Response(
            status=refusal.status, body=refusal.body(), content_type="application/json", headers=refusal.headers
        )
    except web.HTTPException as err:
        if err.status < 400:
            raise
        code = {404: "NAME_UNKNOWN", 405: "UNSUPPORTED", 413: "SIZE_INVALID"}.get(err.status, "UNSUPPORTED")
        body = {"errors": [{"code": code, "message": err.reason, "detail": None}]}
        return web.Response(status=err.status, body=json.dumps(body).encode(), content_type="application/json")
    except OSError as err:
        log.error("storage failed", extra={"path": request.path, "cause": str(err)})
        failure = errors.RegistryRefusal(500, "UNKNOWN", f"the registry's storage failed: {err.strerror}")
        return web.Response(status=500, body=failure.body(), content_type="application/json")
