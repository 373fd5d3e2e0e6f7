"""What can go wrong in a build. Every error knows its line of the Dockerfile where there is one.

::

    ImageError (cri_runtime.images.errors)
    └── ImageInputError
        └── BuildError            has .line; its text begins "Dockerfile:3: "
            ├── DockerfileError   the text of the Dockerfile is wrong
            ├── PlanError         stages that do not exist or need one another, a target that is none
            └── StepFailed        an instruction could not be carried out
"""

from cri_runtime.images.errors import ImageInputError


class BuildError(ImageInputError):
    """Something is wrong at ``line`` (1-based; 0: nowhere in particular) of the Dockerfile."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"Dockerfile:{line}: {message}" if line else message)
        self.line = line


class DockerfileError(BuildError):
    """The Dockerfile cannot be understood."""


class PlanError(BuildError):
    """The stages do not fit together."""


class StepFailed(BuildError):
    """An instruction could not be carried out."""
