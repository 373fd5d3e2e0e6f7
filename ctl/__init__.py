"""The command line: kubectl's verbs, the lab that brings a cluster up and down, and windows on each seam."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this line is for the interpreter that the metadata could not stop
    sys.exit(
        "error: knarr needs Python 3.11 or newer, this is %d.%d (%s)" % (*sys.version_info[:2], sys.executable)  # noqa: UP031
    )
