"""What each instruction does to the image's config, and which work in the file system it asks for. Pure.

``apply(state, instruction)`` gives the next state and at most one action; the executor does the action.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cri_runtime.build.errors import DockerfileError
from cri_runtime.build.instructions import (
    Arg,
    Command,
    Copy,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from cri_runtime.build.mounts import RunMount
from cri_runtime.build.parser import Heredoc
from cri_runtime.build.words import WordError, expand, expand_only
from cri_runtime.images.manifest import ImageConfig

PROXY_ARGS = frozenset(
    name
    for base in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (base, base.lower())
)
"""Build arguments that RUN gets without any ARG."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRIPT_PATH = "/dev/pipes/EOF"
"""Where a runner puts a script, out of the image."""
_DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True)
class CopyFiles:
    """Copy into the stage."""

    line: int
    sources: tuple[str, ...]
    target: str
    """Absolute; a final ``/`` means a directory."""
    from_: str
    owner: str
    """``user[:group]`` by name or number; empty: as it is, root from the context."""
    mode: int | None
    exclude: tuple[str, ...]
    documents: tuple[Heredoc, ...]
    """With variables replaced."""
    extract: bool
    checksum: str = ""


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory and those above it, unless they are there."""

    line: int
    path: str
    owner: str


@dataclass(frozen=True)
class RunCommand:
    """Run a process in the stage."""

    line: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: str
    user: str
    shell: bool
    """``argv`` ends with the text for a shell."""
    script: str = ""
    """A program that ``argv`` names by SCRIPT_PATH."""
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"


Action = CopyFiles | MakeDirectory | RunCommand


@dataclass(frozen=True)
class StageState:
    """A stage between two instructions."""

    config: ImageConfig
    given_args: Mapping[str, str]
    """Build arguments of the request."""
    global_args: Mapping[str, str]
    escape: str = "\\"
    args: Mapping[str, str] = field(default_factory=dict)
    """ARGs declared so far, with their values."""
    cmd_is_ours: bool = False
    """CMD was set in this stage, so ENTRYPOINT does not reset it."""

    @property
    def variables(self) -> dict[str, str]:
        """What ``$name`` may mean: the environment wins over arguments."""
        return {**self.args, **self.config.environment}

    def expand(self, text: str) -> str:
        """Replace variables in one word. Raises WordError."""
        return expand(text, self.variables, self.escape)

    def change(self, **fields: object) -> "StageState":
        """With other config fields."""
        return replace(self, config=replace(self.config, **fields))  # type: ignore[arg-type]


Step = tuple[StageState, Action | None]


def begin(state: StageState) -> StageState:
    """A stage at its start: a PATH if the base has none; the base's triggers are used up."""
    env = state.config.env
    if "PATH" not in state.config.environment:
        env = (*env, f"PATH={DEFAULT_PATH}")
    return state.change(env=env, on_build=())


def apply(state: StageState, instruction: Instruction) -> Step:
    """Carry out one instruction on paper. Raises DockerfileError."""
    try:
        return _APPLIERS[type(instruction)](state, instruction)
    except WordError as err:
        raise DockerfileError(instruction.line, str(err)) from err


def _arg(state: StageState, i: Arg) -> Step:
    args = dict(state.args)
    for name, default in i.pairs:
        if name in state.given_args:
            args[name] = state.given_args[name]
        elif default is not None:
            args[name] = expand(default, {**args, **state.config.environment}, state.escape)
        elif name in state.global_args:
            args[name] = state.global_args[name]
    return replace(state, args=args), None


def _env(state: StageState, i: Env) -> Step:
    environment = state.config.environment
    environment |= {state.expand(name): state.expand(value) for name, value in i.pairs}
    return state.change(env=tuple(f"{name}={value}" for name, value in environment.items())), None


def _label(state: StageState, i: Label) -> Step:
    labels = {state.expand(name): state.expand(value) for name, value in i.pairs}
    return state.change(labels={**state.config.labels, **labels}), None


def _copy(state: StageState, i: Copy) -> Step:
    documents = tuple(replace(d, content=_document(state, d)) for d in i.documents)
    return state, CopyFiles(
        i.line,
        tuple(state.expand(source) for source in i.sources),
        _target(state, state.expand(i.target)),
        i.from_,
        state.expand(i.chown),
        _mode(state, i),
        tuple(state.expand(pattern) for pattern in i.exclude),
        documents,
        i.extract,
        state.expand(i.checksum),
    )


def _document(state: StageState, document: Heredoc) -> str:
    return expand_only(document.content, state.variables, state.escape) if document.expand else document.content


def _target(state: StageState, path: str) -> str:
    """Absolute; ends in ``/`` when the text says that it is a directory."""
    absolute = _absolute(state, path)
    says_directory = path.endswith("/") or path.rpartition("/")[2] in (".", "..")
    return absolute + "/" if says_directory and absolute != "/" else absolute


def _mode(state: StageState, i: Copy) -> int | None:
    text = state.expand(i.chmod)
    if not text:
        return None
    if not (text.isdecimal() and len(text) <= 5 and all(c in "01234567" for c in text)):
        raise DockerfileError(i.line, f'--chmod takes an octal mode such as 0755, not "{text}"')
    return int(text, 8) & 0o7777


def _absolute(state: StageState, path: str) -> str:
    """``path`` below the working directory, without ``.`` and ``..``."""
    base = "" if path.startswith("/") else state.config.working_dir or "/"
    done: list[str] = []
    for name in f"{base}/{path}".split("/"):
        if name == "..":
            del done[-1:]
        elif name not in ("", "."):
            done.append(name)
    return "/" + "/".join(done)


def _run(state: StageState, i: Run) -> Step:
    shell = not isinstance(i.command, tuple)
    script = _program(i)
    if isinstance(i.command, tuple):
        argv = i.command
    else:
        argv = (SCRIPT_PATH,) if script else (*_shell(state), _script(i.command, i.documents))
    proxies = {name: value for name, value in state.given_args.items() if name in PROXY_ARGS}
    config = state.config
    variables = {**proxies, **state.variables}
    mounts = tuple(_mount(state, mount) for mount in i.mounts)
    directory = config.working_dir or "/"
    return state, RunCommand(i.line, argv, variables, directory, config.user, shell, script, mounts, i.network)


def _mount(state: StageState, mount: RunMount) -> RunMount:
    found = mount.expand(state.expand)
    return replace(found, target=_absolute(state, found.target) if found.target else "")


def _is_document(text: str, documents: tuple[Heredoc, ...]) -> bool:
    """Whether a command is nothing but one document: ``RUN <<EOF``."""
    return len(documents) == 1 and text.startswith("<<") and len(text.split()) == 1


def _program(i: Run) -> str:
    """The document of ``RUN <<EOF`` that names its own interpreter by ``#!``; empty if there is none."""
    if isinstance(i.command, tuple) or not _is_document(i.command, i.documents):
        return ""
    return i.documents[0].content if i.documents[0].content.startswith("#!") else ""


def _script(text: str, documents: tuple[Heredoc, ...]) -> str:
    """The shell's text: of ``RUN <<EOF`` the document itself, else the command with its documents behind it."""
    if _is_document(text, documents):
        return documents[0].content
    return "".join([text, *(f"\n{d.content}{d.name}" for d in documents)])


def _shell(state: StageState) -> tuple[str, ...]:
    return state.config.shell or _DEFAULT_SHELL


def _command(state: StageState, i: Command) -> Step:
    words = i.command if isinstance(i.command, tuple) else (*_shell(state), i.command)
    if i.keyword == "CMD":
        return replace(state.change(cmd=words), cmd_is_ours=True), None
    cmd = state.config.cmd if state.cmd_is_ours else None
    return state.change(entrypoint=words, cmd=cmd), None


def _shell_changed(state: StageState, i: Shell) -> Step:
    return state.change(shell=i.command), None


def _workdir(state: StageState, i: Workdir) -> Step:
    path = _absolute(state, state.expand(i.path))
    return state.change(working_dir=path), MakeDirectory(i.line, path, state.config.user)


def _user(state: StageState, i: User) -> Step:
    return state.change(user=state.expand(i.user)), None


def _expose(state: StageState, i: Expose) -> Step:
    ports = set(state.config.exposed_ports)
    for word in i.ports:
        for port in state.expand(word).split():
            ports |= set(_ports(i.line, port))
    return state.change(exposed_ports=tuple(sorted(ports))), None


def _ports(line: int, text: str) -> list[str]:
    """``8080``, ``8080/udp`` or ``8000-8003``."""
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    last = last or first
    good = first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= 65535
    if not good or (protocol or "tcp").lower() not in ("tcp", "udp", "sctp"):
        raise DockerfileError(line, f'EXPOSE takes ports such as 8080 or 53/udp, not "{text}"')
    return [f"{number}/{(protocol or 'tcp').lower()}" for number in range(int(first), int(last) + 1)]


def _volume(state: StageState, i: Volume) -> Step:
    paths = {state.expand(path) for path in i.paths}
    return state.change(volumes=tuple(sorted({*state.config.volumes, *paths}))), None


def _stop_signal(state: StageState, i: StopSignal) -> Step:
    return state.change(stop_signal=state.expand(i.signal)), None


def _healthcheck(state: StageState, i: Healthcheck) -> Step:
    return state.change(healthcheck=i.check), None


def _on_build(state: StageState, i: OnBuild) -> Step:
    return state.change(on_build=(*state.config.on_build, i.trigger)), None


def _maintainer(state: StageState, i: Maintainer) -> Step:
    return state.change(author=i.name), None


_APPLIERS: dict[type[Instruction], Callable[..., Step]] = {
    Arg: _arg,
    Env: _env,
    Label: _label,
    Copy: _copy,
    Run: _run,
    Command: _command,
    Shell: _shell_changed,
    Workdir: _workdir,
    User: _user,
    Expose: _expose,
    Volume: _volume,
    StopSignal: _stop_signal,
    Healthcheck: _healthcheck,
    OnBuild: _on_build,
    Maintainer: _maintainer,
}
