import pytest
from served import ByteClassifier, serving

from thriftune.deploy.access import is_loopback, service_token
from thriftune.deploy.options import DeployOptions
from thriftune.deploy.serve import create_app
from thriftune.errors import BadInput


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_token(host):
    assert is_loopback(host)
    assert service_token(host, "T", {}) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.5", "example.org", "127.0.0.1.example.org"])
@pytest.mark.parametrize("environment", [{}, {"T": ""}, {"T": "  "}, {"OTHER": "x"}])
def test_any_other_host_refuses_to_start_without_one(host, environment):
    with pytest.raises(BadInput) as refusal:
        service_token(host, "T", environment)
    assert "environment variable T" in str(refusal.value)
    assert "way out" in str(refusal.value)


def test_the_application_refuses_as_well():
    options = DeployOptions(host="0.0.0.0")
    with pytest.raises(BadInput):
        create_app(ByteClassifier(), str, "classify", options, "r", environment={})


def test_requests_must_carry_the_token_and_only_the_probe_need_not():
    token = "grün-und-lang-genug"
    with serving(ByteClassifier(), environment={"THRIFTUNE_TOKEN": token}) as client:

        def status(**headers):
            encoded = {name: value.encode() for name, value in headers.items()}
            return client.post("/predict", json={"text": "a"}, headers=encoded).status_code

        assert status(authorization=f"Bearer {token}") == 200
        assert status(authorization=f"bearer  {token}") == 200
        for wrong in ("", "Bearer", f"Bearer {token}x", f"Bearer {token[:-1]}", f"Basic {token}", token):
            assert status(authorization=wrong) == 401
        assert status() == 401
        assert client.get("/metrics").status_code == 401
        assert client.get("/nowhere").status_code == 401
        assert client.get("/healthz").status_code == 200
        refused = client.post("/predict", json={"text": "a"})
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "invalid_api_key"
