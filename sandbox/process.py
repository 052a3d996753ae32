"""SandboxProcess: a sandbox in a process of its own, for tests and benchmarks.

with SandboxProcess(scale=200) as sandbox:
    requests.get(sandbox.url + "/api/v4/leads", headers={"Authorization": f"Bearer {sandbox.admin_token}"})
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote


class SandboxProcess:
    """Starts `python -m sandbox` on a free port, waits until it is up, speaks to its control plane."""

    def __init__(self, scale: int = 200, seed: int = 1, now: str | None = None, fields: int = 8, rate: float = 0,
                 latency_ms: float = 0, port: int = 0, switches: dict[str, str] | None = None, timeout: float = 600,
                 accounts: int = 1) -> None:  # fmt: skip
        self._command = [sys.executable, "-m", "sandbox", "--port", str(port), "--scale", str(scale), "--seed", str(seed),
                         "--fields", str(fields), "--rate", str(rate), "--latency-ms", str(latency_ms),
                         "--accounts", str(accounts), "--until-eof"]  # fmt: skip
        self.accounts: list[SandboxProcess] = [self]
        """Of all accounts that the process serves; to the others only their control plane is spoken through these."""
        self._command += ["--now", now] if now else []
        for name, value in (switches or {}).items():
            self._command += ["--switch", f"{name}={value}"]
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> Self:
        """Start and wait; RuntimeError with the process's own words when it does not come up."""
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("sandbox listening on "):
            self._process.wait(10)
            errors.seek(0)
            raise RuntimeError(f"the sandbox did not start: {line}{errors.read()}")
        self._adopt(line.split()[-1])
        for _ in range(int(self._command[self._command.index("--accounts") + 1]) - 1):
            beside = SandboxProcess(timeout=self._timeout)
            beside._adopt(self._process.stdout.readline().split()[-1])
            self.accounts.append(beside)
        return self

    def _adopt(self, url: str) -> None:
        self.url = url
        index = self.control("GET", "")
        self.client_id: str = index["client_id"]
        self.client_secret: str = index["client_secret"]
        self.redirect_uri: str = index["redirect_uri"]
        self.admin_token: str = index["admin_token"]
        self.manager_token: str = index["manager_token"]
        self.admin_id: int = index["admin_id"]
        self.manager_id: int = index["manager_id"]
        self.account_id: int = index["account_id"]

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def refresh_token(self) -> str:
        """A new refresh token of the admin (each works once)."""
        return str(self.token(grant="oauth")["refresh_token"])

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the control plane; RuntimeError with its answer when it refuses."""
        status, raw = self._raw(method, path, body)
        found = json.loads(raw)
        if status >= 400:
            raise RuntimeError(f"{method} /_sandbox/{path}: {found['error']}")
        return found

    def _raw(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sandbox/{quote(path)}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _KeepErrors())
        with opener.open(request, timeout=self._timeout) as answer:
            return answer.status, answer.read()

    def truth_lines(self, path: str) -> list[bytes]:
        """Every record of a list that an admin can see, as JSON lines."""
        status, raw = self._raw("GET", f"truth/{path}")
        if status != 200:
            raise KeyError(f"no truth of {path}: {raw.decode()}")
        return raw.splitlines()

    def truth(self, path: str) -> list[dict[str, Any]]:
        """Every record of a list that an admin can see, whole."""
        return [json.loads(line) for line in self.truth_lines(path)]

    def kinds(self) -> dict[str, int]:
        """Every list path with the number of its records."""
        return dict(self.control("GET", "truth"))

    def stats(self) -> dict[str, Any]:
        """What clients did."""
        return dict(self.control("GET", "stats"))

    def reset_stats(self) -> None:
        """Count anew."""
        self.control("POST", "stats/reset")

    def fault(self, kind: str, match: str = "", times: int = 1, **more: Any) -> None:
        """Put one fault in force (times=0: for ever)."""
        self.control("POST", "faults", [{"kind": kind, "match": match, "times": times} | more])

    def clear_faults(self) -> None:
        """Take all faults away."""
        self.control("DELETE", "faults")

    def switch(self, **values: Any) -> None:
        """Turn switches of section 6."""
        self.control("POST", "switches", values)

    def mutate(self, *operations: dict[str, Any]) -> list[Any]:
        """Apply operations at once; one result each."""
        return list(self.control("POST", "mutate", list(operations)))

    def churn(self, n: int, seed: int | str = 0, kinds: list[str] | None = None) -> list[dict[str, Any]]:
        """Apply n random realistic mutations; what was done."""
        return list(self.control("POST", "churn", {"n": n, "seed": seed, "kinds": kinds}))

    def drift(self, every: int, seed: int = 0, kinds: list[str] | None = None) -> None:
        """One random mutation after every k-th API request; 0 ends it."""
        self.control("POST", "drift", {"every": every, "seed": seed, "kinds": kinds})

    def go_ahead(self, seconds: float) -> None:
        """Let time pass without anything happening."""
        self.control("POST", "clock", {"ahead": seconds})

    def hooks(self) -> dict[str, Any]:
        """What became of webhooks: sent, delivered, failed, attempts, waiting, answers."""
        return dict(self.control("GET", "hooks"))

    def deliver(self, destination: str, body: str, once: bool = False) -> None:
        """Deliver this body."""
        self.control("POST", "hooks", {"destination": destination, "body": body, "once": once})

    def digital_pipeline(self, destination: str, lead: int, status: int) -> None:
        """Move a lead to a stage, whose webhook is sent once."""
        self.control("POST", "digital_pipeline", {"destination": destination, "id": lead, "status_id": status})

    def token(self, user: str | int = "admin", expires_in: float = 86400, grant: str = "long") -> dict[str, Any]:
        """New tokens: grant `long`, `oauth` (with a refresh token) or `code`."""
        return dict(self.control("POST", "tokens", {"user": user, "expires_in": expires_in, "kind": grant}))

    def rename(self, host: str) -> None:
        """The account answers under this host and port only, and its look-up says so."""
        self.control("POST", "rename", {"host": host})

    def redirect_to(self, uri: str) -> None:
        """The integration's redirect address from now on."""
        self.control("POST", "integration", {"redirect_uri": uri})
        self.redirect_uri = uri

    def revoke(self) -> None:
        """Kill every token."""
        self.control("POST", "revoke")

    def block(self, on: bool = True) -> None:
        """403 HTML on every URL, or its end."""
        self.control("POST", "block", {"on": on})

    def rate(self, rate: float) -> None:
        """Requests per second; 0 = unlimited."""
        self.control("POST", "rate", {"rate": rate})

    def latency(self, ms: float) -> None:
        """Milliseconds added to every answer."""
        self.control("POST", "latency", {"ms": ms})


class _KeepErrors(urllib.request.HTTPErrorProcessor):
    """Hands 4xx answers over instead of raising them."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response
