"""The service's part of the project file."""

from __future__ import annotations

from pydantic import Field

from thriftune.options import Options


class DeployOptions(Options):
    """Where and how to serve."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        max_length=253,
        description="This machine only; another address needs a token in the environment",
    )
    port: int = Field(
        default=8000, ge=0, le=65_535, description="The usual port of a service in development; 0 takes a free one"
    )
    token_env: str = Field(
        default="THRIFTUNE_TOKEN",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The environment variable that holds the token, so that no secret lies in a file",
    )
    max_batch: int = Field(default=32, ge=1, le=65_536, description="Requests answered in one pass of the model")
    max_wait_ms: float = Field(
        default=2.0,
        ge=0,
        le=60_000,
        description="How long a request waits for others to share its pass: not felt by a person",
    )
    max_request_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        le=1_073_741_824,
        description="1 MiB, hundreds of pages of text; longer bodies are refused",
    )
