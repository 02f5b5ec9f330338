"""Models on the hub: only weights as safetensors, configs and tokenizers are fetched, never code or pickles."""

from __future__ import annotations

import sys
from pathlib import Path

from thriftune import traffic
from thriftune.errors import BadInput

WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]
UNWANTED = ["*/*", "*.bin", "*.py", "adapter_model*", "consolidated*"]


def hub_folder(name: str, revision: str | None = None) -> Path:
    """The snapshot of a hub model in the hub's own cache, fetched when it is not there.

    The address, the token and the cache folder are those that huggingface_hub reads from the environment
    (HF_ENDPOINT, HF_TOKEN, HF_HOME).

    Args:
        name: `org/name`.
        revision: a branch, tag or commit; by default the main branch.

    Raises:
        BadInput: no such model or revision, one that needs a token, or no connection.
    """
    import httpx
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    where = f"hub:{name}" + (f"@{revision}" if revision else "")
    there = _cached_bytes(name)
    try:
        if traffic.is_asked():
            traffic.begins(_most_bytes(name, revision), f"fetching {where}")
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except errors.GatedRepoError as error:
        raise BadInput(
            "the hub asks for its terms to be accepted first",
            where=where,
            found="access refused",
            expected="a token of an account that accepted the model's terms, in HF_TOKEN",
            way_out="accept the terms on the model's page and set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BadInput(
            "the model has no such revision",
            where=where,
            found=revision or "main",
            expected="a branch, tag or commit of the model",
            way_out="correct the part after @",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BadInput(
            "the hub shows no such model",
            where=where,
            found="not found, or not visible to this user",
            expected="org/name of a model",
            way_out="correct the name; for a private model, set HF_TOKEN",
        ) from error
    except errors.HFValidationError as error:
        raise BadInput(
            "this is no name of a hub model", where=where, found=name, expected="org/name", way_out="correct the name"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _refused(where, error.__cause__.response.status_code) from error
        raise _unreachable(where) from error
    except errors.HfHubHTTPError as error:
        raise _refused(where, error.response.status_code) from error
    except (httpx.HTTPError, ConnectionError, TimeoutError) as error:
        raise _unreachable(where) from error
    except OSError as error:
        raise BadInput(
            "the hub's cache cannot be written",
            where=str(error.filename or where),
            found=error.strerror or type(error).__name__,
            expected="a folder that can be written, with room for the model",
            way_out="free some space, or set HF_HOME to another folder",
        ) from error
    finally:
        traffic.moved(max(0, _cached_bytes(name) - there))


def _most_bytes(name: str, revision: str | None) -> int:
    """Bytes of the files that would be fetched if none were here; 0 where the hub does not answer."""
    import httpx
    from huggingface_hub import HfApi, errors
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    try:
        files = [each for each in HfApi().list_repo_tree(name, revision=revision) if isinstance(each, RepoFile)]
    except (httpx.HTTPError, errors.HfHubHTTPError, errors.HFValidationError, OSError):
        return 0  # what is here is used, or the fetch itself says what is wrong
    wanted = filter_repo_objects(
        files, allow_patterns=WANTED, ignore_patterns=UNWANTED, key=lambda file: str(file.path)
    )
    return sum(file.size for file in wanted)


def _cached_bytes(name: str) -> int:
    """Bytes of a model's files in the hub's cache, those half fetched too."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    return sum(path.stat().st_size for path in blobs.iterdir() if path.is_file()) if blobs.is_dir() else 0


def _refused(where: str, status: int) -> BadInput:
    return BadInput(
        "the hub refused",
        where=where,
        found=f"HTTP status {status}",
        expected="an answer with the model's files",
        way_out="check the token in HF_TOKEN" if status in (401, 403) else "try again later",
    )


def _unreachable(where: str) -> BadInput:
    return BadInput(
        "the hub cannot be reached, and the model is not in its cache on this machine",
        where=where,
        found="no connection",
        expected="a connection to the hub, or a model fetched earlier",
        way_out="connect once, set HF_ENDPOINT to a mirror, or give a folder with the model's files",
    )
