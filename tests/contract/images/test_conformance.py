"""The community's conformance suite of distribution-spec, while garbage is collected all the time.

``OCI_CONFORMANCE`` names the program: ``go build`` in the specification's ``conformance`` directory.
"""

import asyncio
import os
from pathlib import Path

import pytest

from cri_runtime.registry.collect import Policy
from cri_runtime.registry.serve import Options, running

SUITE = os.environ.get("OCI_CONFORMANCE", "")


@pytest.mark.skipif(not SUITE, reason="OCI_CONFORMANCE does not name a conformance suite")
@pytest.mark.parametrize("version", ["1.1", "dev"])
async def test_the_suite_finds_no_fault(tmp_path: Path, version: str) -> None:
    async with running(tmp_path / "root", "127.0.0.1:0", Options(collect=Policy(interval_s=0.05))) as address:
        settings = {
            "OCI_REGISTRY": address,
            "OCI_TLS": "disabled",
            "OCI_VERSION": version,
            "OCI_RESULTS_DIR": str(tmp_path / "results"),
            "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
            "OCI_API_BLOBS_DIGEST_HEADER": "true",
            "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
        }
        suite = await asyncio.create_subprocess_exec(
            SUITE, cwd=tmp_path, env={**os.environ, **settings}, stdout=asyncio.subprocess.PIPE
        )
        output = (await suite.communicate())[0].decode()
    assert suite.returncode == 0, output[-4000:]
