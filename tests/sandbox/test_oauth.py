"""Tokens of the sandbox: issue, refresh, reuse, revocation (API section 2)."""

import base64
import json
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]


def exchange(own: Client, form: bool = False, **body: Any) -> requests.Response:
    sandbox = own.sandbox
    given = {"client_id": sandbox.client_id, "client_secret": sandbox.client_secret,
             "redirect_uri": sandbox.redirect_uri} | body
    kind = {"data": given} if form else {"json": given}
    return requests.post(f"{sandbox.url}/oauth2/access_token", timeout=60, **kind)  # type: ignore[arg-type]


def test_a_refresh_token_works_once(own: Client) -> None:
    old = own.sandbox.refresh_token
    fresh = exchange(own, grant_type="refresh_token", refresh_token=old)
    assert (fresh.status_code == 200 and fresh.headers["content-type"] == "application/json"
            and fresh.json()["expires_in"] == 86400)
    again = exchange(own, grant_type="refresh_token", refresh_token=old)
    assert again.status_code == 401 and again.json()["hint"] == "Token has been revoked"
    assert type(own)(own.sandbox, fresh.json()["access_token"]).get("account").status_code == 200
    assert exchange(own, form=True, grant_type="refresh_token",
                    refresh_token=fresh.json()["refresh_token"]).status_code == 200
    assert (own.sandbox.stats()["refreshes"], own.sandbox.stats()["refresh_reuses"]) == (2, 1)
    own.sandbox.switch(refresh_dead_status=400)
    assert exchange(own, grant_type="refresh_token", refresh_token=old).status_code == 400


def test_a_code_works_once_and_comes_from_the_window(own: Client) -> None:
    window = requests.get(f"{own.sandbox.url}/oauth", params={
        "client_id": own.sandbox.client_id, "state": "s 1"}, allow_redirects=False, timeout=60)
    query = parse_qs(urlsplit(window.headers["location"]).query)
    assert query["state"] == ["s 1"] and query["referer"] == ["uralkedr.amocrm.ru"]
    assert exchange(own, grant_type="authorization_code", code=query["code"][0]).status_code == 200
    assert exchange(own, grant_type="authorization_code", code=query["code"][0]).status_code == 400


def test_wrong_credentials(own: Client) -> None:
    refresh = own.sandbox.refresh_token
    wrong = exchange(own, grant_type="refresh_token", refresh_token=refresh, client_secret="no")
    assert wrong.status_code == 401 and "hint" not in wrong.json()
    assert exchange(own, grant_type="refresh_token", refresh_token=refresh,
                    redirect_uri="https://other.example").status_code == 400
    assert exchange(own, grant_type="refresh_token", refresh_token=refresh).status_code == 200


def test_dead_access_tokens(own: Client) -> None:
    for token in ("nonsense", own.sandbox.token(expires_in=0)["access_token"]):
        response = type(own)(own.sandbox, token).get("account")
        assert response.status_code == 401 and response.headers["content-type"] == "application/problem+json"
    own.sandbox.revoke()
    assert own.get("account").status_code == 401


def test_claims_and_subdomain(own: Client) -> None:
    tokens = own.sandbox.token(grant="oauth")
    part = tokens["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert (claims["sub"] == str(own.sandbox.admin_id) and claims["account_id"] == own.sandbox.account_id
            and claims["aud"] == own.sandbox.client_id)
    url = f"http://{claims['api_domain']}/oauth2/account/current/subdomain"
    found = requests.get(url, headers={"X-Refresh-Token": tokens["refresh_token"]}, timeout=60)
    assert found.json()["subdomain"] == "uralkedr"
    own.sandbox.switch(jwt_claims="without")
    assert "api_domain" not in own.sandbox.token()["access_token"]


def test_an_answer_lost_after_rotation(own: Client) -> None:
    own.sandbox.fault("drop_after_rotate", match="access_token")
    refresh = own.sandbox.refresh_token
    try:
        exchange(own, grant_type="refresh_token", refresh_token=refresh)
        raise AssertionError("the connection should have been dropped")
    except requests.ConnectionError:
        pass
    assert own.sandbox.stats()["refreshes"] == 1
    assert exchange(own, grant_type="refresh_token", refresh_token=refresh).status_code == 401


def test_another_users_rights(own: Client) -> None:
    own.session.headers["X-Context-User-ID"] = str(own.sandbox.manager_id)
    assert own.get("users").status_code == 403
    own.session.headers["X-Context-User-ID"] = "1"
    assert own.get("account").status_code == 401


def test_the_file_scope(own: Client) -> None:
    own.sandbox.switch(drive_scope="without")
    assert own.get("/drive/v1.0/files").status_code == 403


def test_a_port_in_use_is_reported(own: Client) -> None:
    port = own.sandbox.url.rsplit(":", 1)[1]
    done = subprocess.run([sys.executable, "-m", "sandbox", "--port", port, "--scale", "5"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and f"port {port} is in use" in done.stderr and "Traceback" not in done.stderr


def test_the_standing_token_survives_a_restart(own: Client) -> None:
    token = own.sandbox.admin_token
    port = int(own.sandbox.url.rsplit(":", 1)[1])
    own.sandbox.stop()
    with type(own.sandbox)(scale=60, port=port) as again:
        assert again.admin_token == token
