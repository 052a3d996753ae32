"""SandboxProcess: runs a sandbox in a separate process, for tests and benchmarks.

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
    """Starts `python -m sandbox` on a free port, waits until it listens, and calls its control plane."""

    def __init__(self, scale: int = 200, seed: int = 1, now: str | None = None, fields: int = 8,
                 rate: float = 0, latency_ms: float = 0, port: int = 0,
                 switches: dict[str, str] | None = None, timeout: float = 600,
                 accounts: int = 1, odd: bool = True, real_clock: bool = False) -> None:  # fmt: skip
        self._command = [sys.executable, "-m", "sandbox", "--port", str(port), "--scale", str(scale),
                         "--seed", str(seed), "--fields", str(fields), "--rate", str(rate), "--latency-ms",
                         str(latency_ms), "--accounts", str(accounts), "--until-eof"]  # fmt: skip
        self.accounts: list[SandboxProcess] = [self]
        """One object per account of the process, this one first; the others only call their control plane."""
        self._command += ["--now", now] if now else []
        self._command += ["--plain"] * (not odd) + ["--real-clock"] * real_clock
        for name, value in (switches or {}).items():
            self._command += ["--switch", f"{name}={value}"]
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> Self:
        """Starts the process and waits until it listens; RuntimeError with its output if it fails."""
        errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=errors, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("sandbox listening on "):
            self._process.wait(10)
            errors.seek(0)
            raise RuntimeError(f"the sandbox did not start: {line}{errors.read()}")
        self._read_credentials(line.split()[-1])
        for _ in range(int(self._command[self._command.index("--accounts") + 1]) - 1):
            other = SandboxProcess(timeout=self._timeout)
            other._read_credentials(self._process.stdout.readline().split()[-1])
            self.accounts.append(other)
        return self

    def _read_credentials(self, url: str) -> None:
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
        """A new refresh token of the admin; each works once."""
        return str(self.token(grant="oauth")["refresh_token"])

    def stop(self) -> None:
        """Kills the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Sends one request to the control plane and returns its JSON; RuntimeError if it is refused."""
        status, raw = self._request(method, path, body)
        answer = json.loads(raw)
        if status >= 400:
            raise RuntimeError(f"{method} /_sandbox/{path}: {answer['error']}")
        return answer

    def _request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sandbox/{quote(path)}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _KeepErrors())
        with opener.open(request, timeout=self._timeout) as answer:
            return answer.status, answer.read()

    def truth_lines(self, path: str) -> list[bytes]:
        """Returns every record of a list that an admin can see, as JSON lines; KeyError if unknown."""
        status, raw = self._request("GET", f"truth/{path}")
        if status != 200:
            raise KeyError(f"no truth of {path}: {raw.decode()}")
        return raw.splitlines()

    def truth(self, path: str) -> list[dict[str, Any]]:
        """Returns every record of a list that an admin can see, with all `with` parts."""
        return [json.loads(line) for line in self.truth_lines(path)]

    def list_counts(self) -> dict[str, int]:
        """Returns every list path with its number of records."""
        return dict(self.control("GET", "truth"))

    def stats(self) -> dict[str, Any]:
        """Returns the request statistics since the start or the last reset."""
        return dict(self.control("GET", "stats"))

    def reset_stats(self) -> None:
        """Sets the request statistics to zero."""
        self.control("POST", "stats/reset")

    def fault(self, kind: str, match: str = "", times: int = 1, **more: Any) -> None:
        """Activates one fault rule for `times` requests (0: without limit)."""
        self.control("POST", "faults", [{"kind": kind, "match": match, "times": times} | more])

    def clear_faults(self) -> None:
        """Removes all fault rules."""
        self.control("DELETE", "faults")

    def switch(self, **values: Any) -> None:
        """Sets switches (API section 6)."""
        self.control("POST", "switches", values)

    def mutate(self, *operations: dict[str, Any]) -> list[Any]:
        """Applies operations and returns one result for each."""
        return list(self.control("POST", "mutate", list(operations)))

    def apply_random_changes(self, n: int, seed: int | str = 0,
                             kinds: list[str] | None = None) -> list[dict[str, Any]]:
        """Applies n random realistic changes and returns what was done."""
        return list(self.control("POST", "churn", {"n": n, "seed": seed, "kinds": kinds}))

    def drift(self, every: int, seed: int = 0, kinds: list[str] | None = None) -> None:
        """Makes the sandbox apply one random change after every `every`-th API request; 0 stops it."""
        self.control("POST", "drift", {"every": every, "seed": seed, "kinds": kinds})

    def advance_clock(self, seconds: float) -> None:
        """Advances the account's clock; nothing else changes."""
        self.control("POST", "clock", {"ahead": seconds})

    def delivery_counts(self) -> dict[str, Any]:
        """Returns webhook delivery counts: sent, delivered, failed, attempts, waiting, answers by status."""
        return dict(self.control("GET", "hooks"))

    def deliver(self, destination: str, body: str, once: bool = False) -> None:
        """Delivers this body to a loopback destination."""
        self.control("POST", "hooks", {"destination": destination, "body": body, "once": once})

    def digital_pipeline(self, destination: str, lead: int, status: int) -> None:
        """Moves a lead to a stage and sends the digital pipeline's webhook for it, without retries."""
        self.control("POST", "digital_pipeline",
                     {"destination": destination, "id": lead, "status_id": status})

    def token(self, user: str | int = "admin", expires_in: float = 86400,
              grant: str = "long") -> dict[str, Any]:
        """Issues tokens; `grant` is `long`, `oauth` (with a refresh token) or `code`."""
        return dict(self.control("POST", "tokens", {"user": user, "expires_in": expires_in, "kind": grant}))

    def rename(self, host: str) -> None:
        """Moves the account to this host:port: it answers there only, and its address look-up returns it."""
        self.control("POST", "rename", {"host": host})

    def redirect_to(self, uri: str) -> None:
        """Sets the integration's redirect address."""
        self.control("POST", "integration", {"redirect_uri": uri})
        self.redirect_uri = uri

    def revoke(self) -> None:
        """Revokes every token."""
        self.control("POST", "revoke")

    def block(self, on: bool = True) -> None:
        """Blocks the account (403 HTML on every URL), or unblocks it."""
        self.control("POST", "block", {"on": on})

    def rate(self, rate: float) -> None:
        """Sets the rate limit in requests per second; 0 = unlimited."""
        self.control("POST", "rate", {"rate": rate})

    def latency(self, ms: float) -> None:
        """Sets the delay added to every response, in milliseconds."""
        self.control("POST", "latency", {"ms": ms})


class _KeepErrors(urllib.request.HTTPErrorProcessor):
    """Returns 4xx responses instead of raising them."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response
