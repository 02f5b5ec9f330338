"""Gemini on Vertex AI, through google-genai: supervised tuning jobs, and the models that answer.

Tuning is there on Vertex AI alone: the Gemini Developer API (API keys) has had no model that can be tuned since May
2025. Vertex AI reads training rows from Cloud Storage, not from the request, so they are put into a bucket first.

Region, project and address are those that google-genai reads (GOOGLE_CLOUD_LOCATION, GOOGLE_CLOUD_PROJECT,
GOOGLE_VERTEX_BASE_URL), credentials those of google-auth (GOOGLE_APPLICATION_CREDENTIALS, gcloud's own), and the
bucket is THRIFTUNE_GEMINI_BUCKET. Nothing secret is kept, told or logged here.

Sources: the client's own code (`google/genai/tunings.py`, `_api_client.py`), and Google Cloud's reference of
`projects.locations.tuningJobs`.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from thriftune import traffic
from thriftune.errors import BadInput, MissingExtra
from thriftune.managed.types import Answer, Job, Order, Question, State, Unavailable

T = TypeVar("T")

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REGION = "us-central1"  # where every tunable Gemini model is tuned, unless the environment names another
STORAGE = "https://storage.googleapis.com"
BUCKET_VARIABLE = "THRIFTUNE_GEMINI_BUCKET"
CALL_SECONDS = 60.0
UPLOAD_SECONDS = 600.0
BUSY = (408, 429, 500, 502, 503, 504)
COUNTED_AT_ONCE = 500_000  # characters in one request to countTokens, far below what a request may hold
JOBS_A_PAGE = 100

STATES: dict[str, State] = {
    "JOB_STATE_UNSPECIFIED": "waiting",
    "JOB_STATE_QUEUED": "waiting",
    "JOB_STATE_PENDING": "waiting",
    "JOB_STATE_PAUSED": "waiting",
    "JOB_STATE_RUNNING": "running",
    "JOB_STATE_UPDATING": "running",
    "JOB_STATE_CANCELLING": "running",
    "JOB_STATE_SUCCEEDED": "succeeded",
    "JOB_STATE_PARTIALLY_SUCCEEDED": "succeeded",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
}
RANKS = {1: "ONE", 2: "TWO", 4: "FOUR", 8: "EIGHT", 16: "SIXTEEN"}


def connect(place: dict[str, str] | None) -> tuple[Gemini, dict[str, str]]:
    """Vertex AI at a project and region, those of the environment by default.

    Raises:
        MissingExtra: google-genai is not installed.
        BadInput: no credentials, or no project.
    """
    try:
        import google.auth
        import google.genai
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        raise MissingExtra(
            "a package for Gemini models is not installed",
            where="models: gemini:…",
            found="no google-genai",
            expected="the extra `gemini`",
            way_out="pip install 'thriftune[gemini]'",
        ) from None
    try:
        credentials, project = google.auth.default(scopes=[SCOPE])
    except (GoogleAuthError, OSError, ValueError) as error:
        raise BadInput(
            "there are no credentials for Google Cloud",
            where="models: gemini:…",
            found=type(error).__name__,
            expected="credentials that google-auth finds",
            way_out="run `gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS",
        ) from None
    if place is None:
        project = os.environ.get("GOOGLE_CLOUD_PROJECT") or project
        place = {"project": project or "", "location": os.environ.get("GOOGLE_CLOUD_LOCATION") or REGION}
    if not place["project"]:
        raise BadInput(
            "no project of Google Cloud is named",
            where="models: gemini:…",
            found="no GOOGLE_CLOUD_PROJECT",
            expected="the project that tunes and pays",
            way_out="set GOOGLE_CLOUD_PROJECT",
        )
    return Gemini(place["project"], place["location"], credentials), place


class Gemini:
    """Vertex AI.

    Args:
        project: of Google Cloud.
        location: its region.
        credentials: google-auth's.
    """

    def __init__(self, project: str, location: str, credentials: Any) -> None:
        from google import genai
        from google.genai.types import HttpOptions

        self._credentials = credentials
        self._base = f"{project}, {location}"
        self._client = genai.Client(
            vertexai=True,
            project=project,
            location=location,
            credentials=credentials,
            http_options=HttpOptions(
                base_url=os.environ.get("GOOGLE_VERTEX_BASE_URL") or None, timeout=int(CALL_SECONDS * 1000)
            ),
        )

    def upload(self, content: bytes) -> str:
        """Put training rows into the bucket, under a name made of their hash; the `gs://` address."""
        from google.auth.transport.requests import AuthorizedSession

        bucket, prefix = _bucket()
        name = f"{prefix}thriftune/{hashlib.sha256(content).hexdigest()[:32]}.jsonl"
        storage = (os.environ.get("STORAGE_EMULATOR_HOST") or STORAGE).rstrip("/")  # as Google's own clients

        def send() -> None:
            with AuthorizedSession(self._credentials) as session:
                response = session.post(
                    f"{storage}/upload/storage/v1/b/{bucket}/o",
                    params={"uploadType": "media", "name": name, "ifGenerationMatch": "0"},
                    data=content,
                    headers={"Content-Type": "application/jsonl"},
                    timeout=UPLOAD_SECONDS,
                )
            if response.status_code == 412:  # an object of this name, and so of this content, is there
                return
            if response.status_code >= 400:
                raise self._refusal(response.status_code, _message(response.text), response.headers)

        traffic.begins(len(content), "sending training rows")
        self._asked(send)
        traffic.moved(len(content))
        return f"gs://{bucket}/{name}"

    def count(self, model: str, questions: Sequence[Question]) -> int:
        """Tokens of some questions, together; system prompts and answers count as what a user says."""
        from google.genai import types

        texts = [text for q in questions for text in (q.system, *(text for _, text in q.turns)) if text]
        total = 0
        for part in _parts(texts):
            contents: list[Any] = [types.Content(role="user", parts=[types.Part(text=text)]) for text in part]
            counted = self._asked(partial(self._client.models.count_tokens, model=model, contents=contents))
            total += counted.total_tokens or 0
        return total

    def find(self, display_name: str) -> Job | None:
        """The job of this name, through the list of all jobs of the project in the region."""
        from google.genai import types

        config = types.ListTuningJobsConfig(page_size=JOBS_A_PAGE)
        listed = self._asked(lambda: list(self._client.tunings.list(config=config)))
        found = [job for job in listed if job.tuned_model_display_name == display_name]
        return _job(found[0]) if found else None

    def create(self, order: Order) -> Job:
        """Begin a supervised tuning job."""
        from google.genai import types

        config = types.CreateTuningJobConfig(
            tuned_model_display_name=order.display_name,
            description=order.description,
            epoch_count=order.epochs,
            export_last_checkpoint_only=True,
            adapter_size=None if order.adapter_rank is None else f"ADAPTER_SIZE_{RANKS[order.adapter_rank]}",
        )

        def send() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the client calls its tuning experimental
                return self._client.tunings.tune(
                    base_model=order.model, training_dataset=types.TuningDataset(gcs_uri=order.data), config=config
                )

        return _job(self._asked(send))

    def get(self, name: str) -> Job:
        """A job, as it stands."""
        return _job(self._asked(lambda: self._client.tunings.get(name=name)))

    def cancel(self, name: str) -> None:
        """Ask to end a job."""
        self._asked(lambda: self._client.tunings.cancel(name=name))

    def answer(self, model: str, question: Question) -> Answer:
        """A base model's or an endpoint's answer."""
        contents, config = _contents(question), _config(question)
        return _answer(
            self._asked(
                lambda: self._client.models.generate_content(model=model, contents=contents, config=config),
            )
        )

    def stream(self, model: str, question: Question) -> Iterator[Answer]:
        """The same, piece by piece."""
        contents, config = _contents(question), _config(question)
        pieces = self._asked(
            lambda: self._client.models.generate_content_stream(model=model, contents=contents, config=config)
        )
        while (
            piece := self._asked(lambda: next(pieces, None))
        ) is not None:  # each may fail: they come as they are read
            yield _answer(piece)

    def _asked(self, call: Callable[[], T]) -> T:
        """What a call answers, its errors told as ours, without anything secret in them.

        Raises:
            Unavailable: waiting may mend it.
            BadInput: it does not.
        """
        import requests
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.genai.errors import APIError

        try:
            return call()
        except APIError as error:
            headers = getattr(error.response, "headers", None) or {}
            raise self._refusal(error.code, error.message or str(error.status), headers) from None
        except (TransportError, requests.ConnectionError, requests.Timeout) as error:
            raise Unavailable(f"no connection ({type(error).__name__})") from None
        except GoogleAuthError as error:
            raise self._signed_out(self._clean(str(error.args[0] if error.args else error))) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("httpx", "httpx2"):  # the client takes what is installed
                raise Unavailable(f"no connection ({type(error).__name__})") from None
            raise

    def _refusal(self, code: int, message: str, headers: Any) -> Unavailable | BadInput:
        told = self._clean(message)
        if code in BUSY:
            return Unavailable(f"{code}: {told}", _seconds(headers.get("retry-after")))
        if code == 401:
            return self._signed_out(f"{code}: {told}")
        return BadInput(
            "the provider refuses",
            where=self._base,
            found=f"{code}: {told}",
            expected="a request that Vertex AI takes",
            way_out="mend what it names: the model, the region, the project's permissions or the bucket's",
        )

    def _signed_out(self, told: str) -> BadInput:
        return BadInput(
            "the provider does not take the credentials",
            where=self._base,
            found=told,
            expected="credentials that may use Vertex AI in this project",
            way_out="run `gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS",
        )

    def _clean(self, text: str) -> str:
        """A provider's message without the token that it was sent, should it repeat it."""
        token = getattr(self._credentials, "token", None)
        return (text.replace(token, "…") if token else text)[:500]


def _bucket() -> tuple[str, str]:
    """The bucket for training rows, and what names in it begin with."""
    stated = os.environ.get(BUCKET_VARIABLE, "")
    found = re.fullmatch(r"(?:gs://)?([a-z0-9][\w.-]*)(?:/(.*?)/?)?", stated)
    if found is None:
        raise BadInput(
            "no bucket for the training rows is named",
            where=BUCKET_VARIABLE,
            found=stated or "nothing",
            expected="a bucket of Cloud Storage that the project may read, such as gs://bucket or gs://bucket/folder",
            way_out=f"set {BUCKET_VARIABLE}; Vertex AI reads training rows from a bucket only",
        )
    return found[1], f"{found[2]}/" if found[2] else ""


def _job(job: Any) -> Job:
    state = str(getattr(job.state, "value", job.state) or "JOB_STATE_UNSPECIFIED")
    stats = job.tuning_data_stats and job.tuning_data_stats.supervised_tuning_data_stats
    return Job(
        name=job.name,
        state=STATES.get(state, "waiting"),
        told=state,
        message=(job.error and job.error.message) or "",
        endpoint=(job.tuned_model and job.tuned_model.endpoint) or "",
        billable_tokens=stats and stats.total_billable_token_count,
        epochs_done=job.tuning_job_metadata and job.tuning_job_metadata.completed_epoch_count,
        started=job.start_time is not None,
    )


def _contents(question: Question) -> list[Any]:
    from google.genai import types

    return [types.Content(role=role, parts=[types.Part(text=text)]) for role, text in question.turns]


def _config(question: Question) -> Any:
    """How a question is to be answered."""
    from google.genai import types

    thinking = None if question.thinking is None else types.ThinkingConfig(thinking_budget=question.thinking)
    choices = list(question.choices)
    return types.GenerateContentConfig(
        system_instruction=question.system or None,
        max_output_tokens=question.most_output_tokens,
        temperature=question.temperature,
        seed=question.seed,
        thinking_config=thinking,
        response_mime_type="text/x.enum" if choices else None,
        response_schema=types.Schema(type=types.Type.STRING, enum=choices) if choices else None,
    )


def _answer(response: Any) -> Answer:
    usage = response.usage_metadata
    candidates = response.candidates or []
    parts = (candidates[0].content and candidates[0].content.parts) or [] if candidates else []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    if usage is None:
        return Answer(text, 0, 0)
    generated = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return Answer(text, usage.prompt_token_count or 0, generated)


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in groups of at most `COUNTED_AT_ONCE` characters, or one."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > COUNTED_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _message(body: str) -> str:
    """The message in an error of Cloud Storage."""
    found = re.search(r'"message":\s*"([^"]*)"', body)
    return found[1] if found else body[:200]


def _seconds(header: str | None) -> float | None:
    """What Retry-After says, in seconds; a date is not waited for by its own clock, but as if nothing was said."""
    return float(header) if header and re.fullmatch(r"\d{1,6}(\.\d+)?", header.strip()) else None
