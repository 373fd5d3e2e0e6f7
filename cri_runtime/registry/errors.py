"""The error codes of distribution-spec 1.1 ("Error Codes"), each with its HTTP status."""

import json


class RegistryRefusal(Exception):
    """A request that is answered with an error body. ``code`` is the specification's."""

    def __init__(
        self, status: int, code: str, message: str, detail: object = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.headers = headers
        self.status = status
        self.code = code
        self.detail = detail

    def body(self) -> bytes:
        """The JSON body."""
        error = {"code": self.code, "message": str(self), "detail": self.detail}
        return json.dumps({"errors": [error]}).encode()


def blob_unknown(digest: str) -> RegistryRefusal:
    """The repository has no such blob."""
    return RegistryRefusal(404, "BLOB_UNKNOWN", "the repository has no such blob", {"digest": digest})


def upload_unknown() -> RegistryRefusal:
    """No such upload: ended, or lost by a restart. Begin anew."""
    return RegistryRefusal(404, "BLOB_UPLOAD_UNKNOWN", "no such upload; begin it again")


def upload_invalid(message: str, status: int = 400) -> RegistryRefusal:
    """An upload request that cannot be."""
    return RegistryRefusal(status, "BLOB_UPLOAD_INVALID", message)


def digest_invalid(message: str) -> RegistryRefusal:
    """Not a digest, or not the content's."""
    return RegistryRefusal(400, "DIGEST_INVALID", message)


def manifest_invalid(message: str) -> RegistryRefusal:
    """A manifest that breaks the image specification."""
    return RegistryRefusal(400, "MANIFEST_INVALID", message)


def manifest_blob_unknown(digest: str) -> RegistryRefusal:
    """A manifest that speaks of a blob or manifest that the repository lacks: push that first."""
    return RegistryRefusal(
        404, "MANIFEST_BLOB_UNKNOWN", "the manifest refers to content that is not here", {"digest": digest}
    )


def manifest_unknown(reference: str) -> RegistryRefusal:
    """The repository has no such tag or manifest."""
    return RegistryRefusal(404, "MANIFEST_UNKNOWN", "the repository has no such manifest", {"reference": reference})


def name_unknown(name: str) -> RegistryRefusal:
    """There is no such repository."""
    return RegistryRefusal(404, "NAME_UNKNOWN", "there is no such repository", {"name": name})


def name_invalid(name: str) -> RegistryRefusal:
    """Not a repository's name."""
    return RegistryRefusal(400, "NAME_INVALID", "a repository is lower-case words joined by /", {"name": name})


def size_invalid(message: str) -> RegistryRefusal:
    """Too large."""
    return RegistryRefusal(413, "SIZE_INVALID", message)


def unauthorized() -> RegistryRefusal:
    """No login, or a wrong one."""
    challenge = {"WWW-Authenticate": 'Basic realm="knarr registry", charset="UTF-8"'}
    return RegistryRefusal(401, "UNAUTHORIZED", "log in with the name and password of a user", headers=challenge)
