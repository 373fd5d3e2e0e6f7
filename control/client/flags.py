"""The flags by which a component finds the apiserver and shows who it is."""

import argparse
from pathlib import Path

from protos.serving import TLS


def add_client_flags(parser: argparse.ArgumentParser) -> None:
    """``--server`` and the three files of mutual TLS; without the files the connection is plaintext."""
    add = parser.add_argument
    add("--server", default="127.0.0.1:7443", metavar="ADDR", help="the apiserver (default %(default)s)")
    add("--client-certificate", type=Path, metavar="FILE", help="our certificate for the apiserver")
    add("--client-key", type=Path, metavar="FILE", help="key of --client-certificate")
    add("--certificate-authority", type=Path, metavar="FILE", help="CA that signed the apiserver's certificate")


def client_tls(args: argparse.Namespace) -> TLS | None:
    """The TLS files that the flags name. Exits with a sentence when one is missing."""
    files = (args.client_certificate, args.client_key, args.certificate_authority)
    if not any(files):
        return None
    if not all(files):
        raise SystemExit("error: --client-certificate, --client-key and --certificate-authority are needed together")
    return TLS(*files)
