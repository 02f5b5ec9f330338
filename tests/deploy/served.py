"""What the service's tests share: tiny real models, and a real server to ask."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import torch
import uvicorn

from thriftune.deploy.options import DeployOptions
from thriftune.deploy.serve import create_app
from thriftune.tasks.base import Prediction, Request

RELEASE = "r-test"


class ByteClassifier:
    """Two classes from the mean embedding of a text's bytes; random weights."""

    name = "bytes"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.table = torch.randn(256, 2, generator=generator)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        logits = torch.stack([self.table[list(str(text).encode())].mean(0) for text in requests])
        rows = logits.softmax(dim=1).tolist()
        return [Prediction("pos" if p > n else "neg", {"neg": n, "pos": p}) for n, p in rows]


class SlowClassifier(ByteClassifier):
    """The same, held by a gate that the test opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        self.entered.set()
        self.gate.wait(20)
        return super().predict(requests)


class ByteChat:
    """A recurrent language model over bytes with random weights: greedy or sampled, streamed byte by byte."""

    name = "tuned"
    max_new_tokens = 24
    context_tokens = 200

    def __init__(self, pause_seconds: float = 0.0) -> None:
        torch.manual_seed(3)
        self.embed = torch.nn.Embedding(256, 32)
        self.cell = torch.nn.GRUCell(32, 32)
        self.head = torch.nn.Linear(32, 256)
        self.pause_seconds = pause_seconds
        self.generated = 0

    def _prompt(self, request: Request) -> list[int]:
        turns = [{"role": "user", "content": request}] if isinstance(request, str) else request
        return list("".join(f"{turn['role']}: {turn['content']}\n" for turn in turns).encode())

    def count_tokens(self, request: Request) -> int:
        return len(self._prompt(request))

    def stream(self, request: Request, max_tokens: int, temperature: float, seed: int | None) -> Iterator[str]:
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        state = torch.zeros(1, 32)
        said = b""
        with torch.inference_mode():
            for byte in self._prompt(request):
                state = self.cell(self.embed(torch.tensor([byte])), state)
        for _ in range(max_tokens):
            with torch.inference_mode():
                logits = self.head(state)[0, 32:127]
                if temperature > 0:
                    byte = 32 + int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))
                else:
                    byte = 32 + int(logits.argmax())
                state = self.cell(self.embed(torch.tensor([byte])), state)
            said += bytes([byte])
            self.generated += 1
            time.sleep(self.pause_seconds)
            yield chr(byte)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        answers = [list(self.stream(request, self.max_new_tokens, 0.0, None)) for request in requests]
        return [Prediction("".join(pieces), {}, len(pieces)) for pieces in answers]


@contextmanager
def serving(
    predictor: Any,
    task: Any = "classify",
    clean: Callable[[str], str] = str.strip,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[httpx.Client]:
    """A real server on a free port, in a thread, and a client of it."""
    chosen = DeployOptions(**{"port": 0, **options})
    app = create_app(predictor, clean, task, chosen, RELEASE, environment=environment or {})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def metric(client: httpx.Client, name: str) -> float:
    """The value of one line of `/metrics`, by its exact name and labels."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")
