"""HTTP client of the imitated API for the tests of the sandbox."""

from typing import Any

import requests

from sandbox.process import SandboxProcess


class Client:
    """Independent client of the imitated API: plain requests, none of the mirror's code."""

    def __init__(self, sandbox: SandboxProcess, token: str | None = None) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.update({"Authorization": f"Bearer {token or sandbox.admin_token}",
                                     "User-Agent": "test/1"})

    def get(self, path: str, **params: Any) -> requests.Response:
        """Sends a GET under /api/v4, or to an absolute path."""
        path = path if path.startswith("/") else f"/api/v4/{path}"
        return self.session.get(self.sandbox.url + path, params=params, timeout=60)

    def send(self, method: str, path: str, body: Any) -> requests.Response:
        """Sends a write under /api/v4."""
        return self.session.request(method, f"{self.sandbox.url}/api/v4/{path}", json=body, timeout=60)

    def rows(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """Returns every record of a list, read page by page until there is no next link."""
        found: list[dict[str, Any]] = []
        for page in range(1, 1000):
            response = self.get(path, **params, page=page)
            if response.status_code == 204:
                return found
            assert response.status_code == 200, response.text
            body = response.json()
            (rows,) = body["_embedded"].values()
            found += rows
            if "next" not in body["_links"]:
                return found
        raise AssertionError(f"{path} never ends")

    def ids(self, path: str, **params: Any) -> list[Any]:
        """Returns the ids of every record of a list."""
        return [row["id"] for row in self.rows(path, **params)]
