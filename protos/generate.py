"""Generate the Python code of every .proto file, at build time or by hand: ``python protos/generate.py``.

The generated modules lie beside their .proto files and are never committed. setuptools calls :class:`BuildPy` (see
``[tool.setuptools.cmdclass]`` in pyproject.toml) for wheels and for editable installs.
"""

from pathlib import Path

from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent.parent


def generate(root: Path = ROOT) -> None:
    """Run protoc over ``protos/*/*.proto`` below ``root``. Raises SystemExit with protoc's status on a bad file."""
    import grpc_tools
    from grpc_tools import protoc

    files = sorted(str(path.relative_to(root)) for path in root.glob("protos/*/*.proto"))
    include = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={root}" for kind in ("python", "pyi", "grpc_python")]
    status = protoc.main(["protoc", f"-I{root}", f"-I{include}", *outputs, *(str(root / file) for file in files)])
    if status:
        raise SystemExit(f"protoc failed with status {status}")


class BuildPy(build_py):
    """setuptools' build_py, with the generated code made first so that it is packaged like any module."""

    def run(self) -> None:
        generate()
        super().run()


if __name__ == "__main__":
    generate()
