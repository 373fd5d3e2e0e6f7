"""``python -m tests.bench``: measure knarr against the real peers, here and now. See README.md."""

import argparse
import compileall
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests are no package: name this folder ``bench``

from bench import section_ctl, section_memory, section_pods, section_proxy, section_store
from bench.report import Section, Skip, machine, markdown, table

SECTIONS = {
    section.NAME: section.run for section in (section_proxy, section_store, section_pods, section_memory, section_ctl)
}
PACKAGES = ("protos", "raftstore", "control", "cri_runtime", "proxy", "ctl")


def main() -> None:
    """Run the chosen sections and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (all)")
    parser.add_argument("--rounds", type=int, default=3, help="times that ours and the peer alternate (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of one load (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write the tables as Markdown")
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no section named {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    facts = machine()
    print(facts)
    compile_sources()
    done = [measure(name, options.rounds, options.seconds) for name in options.sections or SECTIONS]
    print(table(done))
    if options.markdown is not None:
        options.markdown.write_text(markdown(facts, done))


def compile_sources() -> None:
    """Bytecode beside the sources, as installing a package makes it, even where the environment forbids that: measured
    is the program, not its compilation at each start (which also leaves memory behind)."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in PACKAGES:
        compileall.compile_dir(package, quiet=2)


def measure(name: str, rounds: int, seconds: float) -> Section:
    """One section; a skipped one says why."""
    print(f"measuring: {name} …", file=sys.stderr, flush=True)
    try:
        return SECTIONS[name](rounds, seconds)
    except Skip as err:
        return Section(name, name.capitalize(), skipped=str(err))


if __name__ == "__main__":
    main()
