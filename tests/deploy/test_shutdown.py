import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from served import ByteClassifier

from thriftune.deploy.options import DeployOptions
from thriftune.deploy.serve import serve
from thriftune.errors import BadInput

SERVICE = """
import time
from served import ByteClassifier
from thriftune.deploy.options import DeployOptions
from thriftune.deploy.serve import serve

class Slow(ByteClassifier):
    def predict(self, requests):
        print("answering", flush=True)
        time.sleep(0.7)
        return super().predict(requests)

serve(Slow(), str.strip, "classify", DeployOptions(port=0), "r1", ready=lambda url: print(url, flush=True))
print("ended well", flush=True)
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_shutdown_answers_what_is_in_flight_and_ends_with_0(ending):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert process.stdout
    try:
        url = process.stdout.readline().strip()
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/predict", json={"text": "a"}, timeout=20, trust_env=False))
        )
        asking.start()
        assert process.stdout.readline() == "answering\n"
        process.send_signal(ending)
        asking.join()
        assert answers[0].status_code == 200
        assert process.wait(10) == 0
        assert process.stdout.read() == "ended well\n"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz", trust_env=False)
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_one_clear_message():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = DeployOptions(port=taken.getsockname()[1])
        with pytest.raises(BadInput) as refusal:
            serve(ByteClassifier(), str.strip, "classify", options, "r1")
    assert str(options.port) in str(refusal.value)
    assert "in use" in str(refusal.value)
    assert "--port" in str(refusal.value)


def test_a_host_that_is_not_this_machine_s_is_one_clear_message(monkeypatch):
    monkeypatch.setenv("THRIFTUNE_TOKEN", "secret")
    for host in ("203.0.113.7", "no-such-host.invalid"):
        started = time.monotonic()
        with pytest.raises(BadInput) as refusal:
            serve(ByteClassifier(), str.strip, "classify", DeployOptions(host=host, port=0), "r1")
        assert host in str(refusal.value)
        assert time.monotonic() - started < 10
