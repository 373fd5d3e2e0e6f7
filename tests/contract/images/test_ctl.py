"""``ctl image`` as people use it: docker's session, and what goes wrong."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root
APP = 'print("hello")\n'


@pytest.fixture
def kubia(tmp_path: Path) -> Path:
    """A build context."""
    folder = tmp_path / "kubia"
    (folder / "node_modules").mkdir(parents=True)
    (folder / "Dockerfile").write_text('FROM base\nADD app.py /app.py\nENTRYPOINT ["python3", "/app.py"]\n')
    (folder / "app.py").write_text(APP)
    (folder / "node_modules/big").write_text("big")
    (folder / ".dockerignore").write_text("node_modules\n")
    return folder


async def test_the_session_of_the_book(runtime: Any, registry: str, kubia: Path, tmp_path: Path) -> None:
    made = await runtime.ctl("from-host", "sh", "--tag", "base")
    assert (made.code, made.out.splitlines()[-1]) == (0, "Successfully tagged base:latest")
    built = await runtime.ctl("build", "-t", "kubia", kubia)
    assert built.code == 0, built.err
    assert "Step 2/3 : ADD app.py /app.py\n" in built.out
    assert built.out.endswith("Successfully tagged kubia:latest\n")
    again = await runtime.ctl("build", "-q", "-t", "kubia", kubia)
    image_id = again.out.strip()
    assert image_id == runtime.room.store.get("kubia").id
    listed = (await runtime.ctl("ls")).out.splitlines()
    assert listed[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert listed[1].split()[:3] == ["kubia", "latest", image_id[7:19]]
    assert (await runtime.ctl("ls", "-q", "kubia")).out == image_id[7:19] + "\n"
    history = (await runtime.ctl("history", "kubia")).out.splitlines()
    assert history[1].startswith(image_id[7:19])
    assert "ADD app.py /app.py" in history[2]
    name = f"{registry}/luksa/kubia:v1"
    assert (await runtime.ctl("tag", "kubia", name)).code == 0
    pushed = await runtime.ctl("push", name)
    assert pushed.out.startswith(f"The push refers to repository [{registry}/luksa/kubia]\n")
    assert "digest: sha256:" in pushed.out.splitlines()[-1]
    assert "Already exists" in (await runtime.ctl("push", name)).out
    removed = await runtime.ctl("rm", "kubia", name)
    assert removed.out.splitlines()[0] == "Untagged: kubia:latest"
    assert removed.out.splitlines()[-1] == f"Deleted: {image_id}"
    pulled = await runtime.ctl("pull", name)
    assert (pulled.code, pulled.out.splitlines()[-1]) == (0, name)
    (inspected,) = json.loads((await runtime.ctl("inspect", name)).out)
    assert (inspected["Id"], inspected["RepoTags"], inspected["Config"]["Entrypoint"]) == (
        image_id,
        [name],
        ["python3", "/app.py"],
    )
    assert (await runtime.ctl("save", "-o", tmp_path / "k.tar", name)).code == 0
    assert (await runtime.ctl("prune", "-a", "-f")).out.splitlines()[-1].startswith("Total reclaimed space: ")
    loaded = await runtime.ctl("load", stdin=(tmp_path / "k.tar").read_bytes())
    assert loaded.out == f"Loaded image: {name}\n"


async def test_the_ignored_is_not_sent(runtime: Any, kubia: Path) -> None:
    (kubia / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    assert (await runtime.ctl("build", "-t", "x", kubia)).code == 0
    (lower,) = await runtime.room.store.lower_dirs("x")
    assert sorted(p.name for p in lower.iterdir()) == [".dockerignore", "Dockerfile", "app.py"]


async def test_other_contexts(runtime: Any, kubia: Path, tmp_path: Path) -> None:
    text = b"FROM scratch\nLABEL a=b\n"
    assert (await runtime.ctl("build", "-t", "one", "-", stdin=text)).code == 0
    (kubia / "Other").write_text("FROM scratch\nARG X\nLABEL x=$X\nCOPY app.py /\n")
    done = await runtime.ctl(
        "build", "-t", "two", "-f", "Other", "--build-arg", "X=1", "--label", "l=m", ".", cwd=kubia
    )
    assert done.code == 0, done.err
    assert runtime.room.store.get("two").config.labels == {"x": "1", "l": "m"}
    done = await runtime.ctl("build", "-t", "three", "-f", "-", kubia, stdin=b"FROM scratch\nCOPY app.py /three\n")
    assert done.code == 0, done.err
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        tar.add(kubia / "Other", "Dockerfile")
        tar.add(kubia / "app.py", "app.py")
    assert (await runtime.ctl("build", "-t", "four", tmp_path / "c.tar.gz")).code == 0
    assert (await runtime.ctl("build", "-t", "five", "-", stdin=(tmp_path / "c.tar.gz").read_bytes())).code == 0
    assert {n for i in runtime.room.store.images() for n in i.repo_tags} >= {
        f"docker.io/library/{name}:latest" for name in ("one", "two", "three", "four", "five")
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["build", "DIR/nosuch"], "there is no directory or archive"),
        (["build", "DIR/node_modules"], "cannot read the Dockerfile DIR/node_modules/Dockerfile: No such file"),
        (["build", "-f", "DIR/nosuch", "DIR"], "cannot read the Dockerfile DIR/nosuch"),
        (["build", "-t", "Bad", "DIR"], 'invalid image name "Bad": a repository is lower case'),
        (["build", "DIR"], "Dockerfile:1: base: no such image here, and base:latest: registry registry-1.docker.io"),
        (["build", "--build-arg", "NO_SUCH_VARIABLE", "DIR"], "--build-arg NO_SUCH_VARIABLE: give it a value"),
        (["from-host", "no-such-program", "-t", "x"], 'no program "no-such-program" in '),
        (["pull", "127.0.0.1:1/x"], "127.0.0.1:1/x:latest: registry 127.0.0.1:1 does not answer (connection refused)"),
        (["pull", "REGISTRY/x"], "REGISTRY/x:latest: not found in registry REGISTRY (MANIFEST_UNKNOWN"),
        (["push", "nosuch"], 'no image "nosuch" here; pull or build it first'),
        (["tag", "nosuch", "x"], 'no image "nosuch" here'),
        (["rm", "nosuch"], 'no image "nosuch" here'),
        (["history", "nosuch"], 'no image "nosuch" here'),
        (["inspect", "nosuch"], 'no image "nosuch" here'),
        (["save", "-o", "DIR/x", "nosuch"], 'no image "nosuch" here'),
        (["load", "-i", "DIR/app.py"], "this is no archive of images"),
        (["load", "-i", "DIR/nosuch"], "No such file"),
    ],
)
async def test_mistakes_get_a_sentence_and_exit_code_1(
    runtime: Any, registry: str, kubia: Path, words: list[str], says: str
) -> None:
    def fill(text: str) -> str:
        return text.replace("DIR", str(kubia)).replace("REGISTRY", registry)

    done = await runtime.ctl(*map(fill, words))
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert fill(says) in done.err
    assert "Traceback" not in done.err
    assert runtime.room.store.images() == []
    assert not (kubia / "x").exists()


async def test_an_unknown_instruction_is_named_with_its_line(runtime: Any, kubia: Path) -> None:
    (kubia / "Dockerfile").write_text("FROM scratch\n\nCOPPY app.py /\n")
    done = await runtime.ctl("build", "-t", "x", kubia)
    assert (done.code, done.err) == (1, "error: Dockerfile:3: unknown instruction COPPY; did you mean COPY?\n")


async def test_without_a_runtime_there_is_a_way_out(runtime: Any, short_dir: Path) -> None:
    runtime.endpoint = f"unix://{short_dir}/none.sock"
    done = await runtime.ctl("ls")
    assert done.code == 1
    assert f"no container runtime answers at {runtime.endpoint}" in done.err
    assert "ctl up" in done.err


async def test_a_build_is_written_out(runtime: Any, kubia: Path, tmp_path: Path) -> None:
    (kubia / "Dockerfile").write_text("FROM scratch\nCOPY app.py /d/app.py\n")
    out = tmp_path / "out"
    done = await runtime.ctl(
        "build", "--explain", "-t", "x", kubia, "-o", out, "-o", f"type=tar,dest={tmp_path}/x.tar",
        "-o", f"type=oci,dest={tmp_path}/x.oci",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert " ---> Done anew: no step at this place was built before\n" in done.out
    assert (out / "d/app.py").read_text() == APP
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == ["d", "d/app.py"]
    with tarfile.open(tmp_path / "x.oci") as tar:
        assert "oci-layout" in tar.getnames()
    piped = await runtime.ctl("build", "-t", "x", kubia, "-o", "-")
    with tarfile.open(fileobj=io.BytesIO(piped.raw)) as tar:
        assert tar.getnames() == ["d", "d/app.py"]
    assert "Using cache" in piped.err
