"""What can go wrong with images. No gRPC here; ``service/images.py`` maps the tree to status codes.

::

    ImageError
    ├── ImageInputError             what we were given is wrong; asking again does not help
    │   ├── InvalidReference        a name that is no Docker reference
    │   ├── InvalidDigest           a digest that is not algorithm:hex
    │   ├── InvalidManifest         a manifest, index or config that breaks the OCI image specification
    │   ├── UnsafeLayer             a layer that leaves its root or exceeds the bounds
    │   ├── InvalidArchive          a save archive that is none
    │   └── HostProgramError        a program of this host that cannot be packed
    ├── ImageNotFound               no such image in the store
    ├── AmbiguousId                 an id prefix that several images share
    ├── ImageInUse                  a container uses it
    ├── BlobNotFound                no such blob in the store
    ├── ContentMismatch             bytes that do not have the promised digest or size
    └── RegistryError               a registry's answer
        ├── RegistryUnavailable     it does not answer, or says to try later
        ├── RegistryDenied          it wants another login
        └── NotInRegistry           it does not have the image or repository
"""


class ImageError(Exception):
    """Root of the tree."""


class ImageInputError(ImageError):
    """What the caller or the image's author gave is wrong; the same request fails again."""


class InvalidReference(ImageInputError):
    """The text is no image reference."""


class InvalidDigest(ImageInputError):
    """The text is no digest, or of an algorithm we do not know."""


class InvalidManifest(ImageInputError):
    """A manifest, index or config breaks the OCI image specification."""


class UnsafeLayer(ImageInputError):
    """A layer names a place outside its root, or exceeds the bounds of :class:`~.unpack.Limits`."""


class InvalidArchive(ImageInputError):
    """A stream is neither a docker-archive nor an oci-archive."""


class HostProgramError(ImageInputError):
    """A program of this host is absent, or is not one that can be packed."""


class ImageNotFound(ImageError):
    """No image of the store has this name or id. ``reference`` is what was asked for."""

    def __init__(self, reference: str) -> None:
        super().__init__(f'no image "{reference}" here; pull or build it first')
        self.reference = reference


class AmbiguousId(ImageError):
    """Several images' ids begin so; give more digits."""


class ImageInUse(ImageError):
    """A container uses the image."""


class BlobNotFound(ImageError):
    """The blob is not in the store."""


class ContentMismatch(ImageError):
    """Bytes do not have the digest or size that was promised for them; they were thrown away."""


class RegistryError(ImageError):
    """A registry refused. ``registry`` is its host[:port]."""

    def __init__(self, registry: str, message: str) -> None:
        super().__init__(message)
        self.registry = registry


class RegistryUnavailable(RegistryError):
    """The registry does not answer, or asks to come back later; trying again may help."""


class RegistryDenied(RegistryError):
    """The registry does not let this login do that."""


class NotInRegistry(RegistryError):
    """The registry does not have the repository, tag or blob."""
