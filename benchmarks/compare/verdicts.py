"""Whether the servers do what they are measured at: let good tokens in, and no others."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.compare.credentials import AUDIENCE, ISSUER, Signer
from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.loads import Load
from benchmarks.compare.peers import Running


def check(load: Load, server: Running, signer: Signer, folder: Path) -> None:
    """Show a server a good token, and one of each bad kind.

    Args:
        load: the load generator.
        server: whom they are shown to; one that does not verify is only shown the good one.
        signer: whose tokens the server accepts.
        folder: where the files of the tokens may be written.

    Raises:
        MeasurementError: it refuses the good one, or lets a bad one in.
    """
    if not _lets_in(load, server, signer.token(0), folder):
        raise MeasurementError(f"{server.peer.title} refuses a good token")
    if not server.peer.verifies:
        return
    now = int(time.time())
    bad = {
        "of another key": Signer.new(signer.algorithm).token(0),
        "that has expired": signer.token(0, exp=now - 10),
        "without an end": signer.token(0, exp=None),
        "of another issuer": signer.token(0, iss=ISSUER + ".evil"),
        "for another audience": signer.token(0, aud=AUDIENCE + "-other"),
    }
    for kind, token in bad.items():
        if _lets_in(load, server, token, folder):
            raise MeasurementError(f"{server.peer.title} lets a token in {kind}: its figures would be worth nothing")


def _lets_in(load: Load, server: Running, token: str, folder: Path) -> bool:
    file = folder / "shown"
    file.touch(mode=0o600)
    file.write_text(token + "\n")
    try:
        with load.hold(port=server.port, tokens=file, connections=1):
            return True
    except MeasurementError as error:
        if "44{" in str(error):  # Socket.IO's error packet: it is a verdict, and not some accident.
            return False
        raise
