"""Who gets in, and what a connection may cost. Every server listens on 127.0.0.1, for the time of its tests."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from restore.errors import RestoreError
from restore.serve.security import cookie_value
from restore.serve.settings import ServeSettings, new_token, token_for
from tests.processes import until
from tests.serve.servers import TOKEN, Running, read_all, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(
        header_seconds=1.0, idle_seconds=1.0, body_seconds=3.0, max_upload_bytes=100_000, connections=20
    ) as one:
        yield one


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(token=TOKEN) as one:
        yield one


# The token


def test_an_address_that_others_reach_requires_a_token() -> None:
    with pytest.raises(RestoreError, match="requires a token"):
        ServeSettings(host="0.0.0.0")
    assert ServeSettings(host="0.0.0.0", token=new_token()).token
    assert token_for("127.0.0.1", None) is None
    assert token_for("0.0.0.0", None) not in (None, token_for("0.0.0.0", None))
    assert token_for("192.168.1.5", "mine") == "mine"


def test_a_token_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(RestoreError, match="at least 16 characters"):
        ServeSettings(token="secret")


@pytest.mark.parametrize(
    "given", [{}, {"Authorization": "Bearer wrong"}, {"Cookie": "restore_1=x"}, {"Authorization": TOKEN}]
)
def test_without_the_token_nobody_gets_in(locked: Running, given: dict[str, str]) -> None:
    answer = locked.get("/v1/models", given)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthorized"


@pytest.mark.parametrize("query", ["token=", "token=wrong", f"token={TOKEN}x", f"token={TOKEN}&token={TOKEN}"])
def test_a_wrong_token_in_the_address_sets_no_cookie(locked: Running, query: str) -> None:
    answer = locked.get(f"/?{query}")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_token_in_a_header_lets_in(locked: Running) -> None:
    assert locked.get("/nothing", {"Authorization": f"Bearer {TOKEN}"}).status_code == 404


def test_a_visitor_who_comes_from_another_site_with_the_token_is_led_on_by_a_page(locked: Running) -> None:
    """Browsers do not send a strict cookie after a redirect that began at another site."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    answer = locked.get(f"//else.where/%22%3E?x=%3Cb%3E&token={TOKEN}", headers)
    assert answer.status_code == 200
    assert 'content="0;url=/else.where/%22%3E?x=%3Cb%3E"' in answer.text
    assert TOKEN not in answer.text
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert answer.headers["cache-control"] == "no-store"


def test_a_visit_with_the_token_sets_a_strict_cookie_and_removes_it_from_the_address(locked: Running) -> None:
    answer = locked.get(f"/some/page?x=1&token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/some/page?x=1"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN.lower() not in cookie
    name, value = answer.headers["set-cookie"].split(";")[0].split("=", 1)
    assert value == cookie_value(TOKEN)
    assert locked.get("/nothing", {"Cookie": f"{name}={value}"}).status_code == 404
    # Also for one who has the cookie already.
    assert locked.get(f"/?token={TOKEN}", {"Cookie": f"{name}={value}"}).status_code == 303


@pytest.mark.parametrize("others", ['app={"a":1}', 'x[y]="', "=", "restore_{port}=of-another-server", "\xff=\xfe"])
def test_cookies_of_other_servers_on_this_host_do_not_hide_the_own(locked: Running, others: str) -> None:
    own = f"restore_{locked.port}={cookie_value(TOKEN)}"
    others = others.format(port=locked.port) if "{port}" in others else others
    for cookies in (f"{others}; {own}", f"{own}; {others}"):
        line = f"GET /nothing HTTP/1.1\r\nHost: localhost\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
        assert locked.send(line.encode("latin-1")).startswith(b"HTTP/1.1 404")


def test_the_redirect_never_leaves_the_server(locked: Running) -> None:
    for path in ("//evil.example/", "/%5Cevil.example", "/x%0d%0aX-Evil: 1"):
        line = f"GET {path.replace(' ', '%20')}?token={TOKEN} HTTP/1.1\r\n"
        answer = locked.send(f"{line}Host: localhost\r\nConnection: close\r\n\r\n".encode())
        location = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"location:"))
        assert location.split(b" ", 1)[1].startswith(b"/")
        assert not location.split(b" ", 1)[1].startswith(b"//")
        assert b"\r\nX-Evil" not in answer


def test_only_whether_it_lives_is_told_to_strangers(locked: Running) -> None:
    assert locked.get("/health").status_code != 401


# Host and origin


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "x@localhost", "10.0.0.1", ""]
)
def test_a_name_that_is_not_the_servers_is_refused(server: Running, host: str) -> None:
    answer = server.get("/health", {"Host": host})
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1234", "[::1]", "LOCALHOST:80"])
def test_the_servers_own_names_are_accepted(server: Running, host: str) -> None:
    assert server.get("/nothing", {"Host": host}).status_code == 404


def test_a_further_name_can_be_allowed() -> None:
    with running(allowed_hosts=("photos.example",)) as one:
        assert one.get("/nothing", {"Host": "photos.example"}).status_code == 404
        assert one.get("/nothing", {"Host": "other.example"}).status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://localhost.evil.example",
        "http://127.0.0.1:1",
        "http://[x",
        "http://a@b@c",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_sites_get_nothing(server: Running, origin: str, method: str) -> None:
    assert server.request(method, "/nothing", headers={"Origin": origin}).status_code == 403


def test_one_own_origin_does_not_cover_another(server: Running) -> None:
    headers = httpx.Headers([("Origin", server.url), ("Origin", "http://evil.example")])
    assert httpx.post(server.url + "/nothing", headers=headers).status_code == 403


def test_the_servers_own_pages_may(server: Running) -> None:
    assert server.request("POST", "/nothing", headers={"Origin": server.url}).status_code == 404


def test_a_browser_that_says_the_request_crosses_sites_is_believed(server: Running) -> None:
    across = {"Sec-Fetch-Site": "cross-site"}
    assert server.get("/nothing", across).status_code == 403
    link = across | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert server.get("/nothing", link).status_code == 404
    assert server.request("POST", "/nothing", headers=link).status_code == 403
    assert server.get("/nothing", {"Sec-Fetch-Site": "same-origin"}).status_code == 404


# Headers of answers


def test_every_answer_forbids_scripts_that_are_not_the_servers(server: Running) -> None:
    for answer in (server.get("/nothing"), server.get("/health", {"Host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers


def test_an_error_in_the_program_is_answered_like_any_other_and_tells_no_details(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(server.app.state.jobs, "queue_length", broken)
    answer = server.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (500, "unexpected")
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "secret" in caplog.text


def test_a_full_disk_is_told(server: Running) -> None:
    async def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server.app.add_api_route("/full", full)
    answer = server.get("/full")
    assert answer.status_code == 507
    assert answer.json()["code"] == "disk_full"
    assert answer.json()["detail"] == "the disk is full"


# Connections


def lasts(connection: socket.socket) -> float:
    """The seconds until the server closes a connection."""
    start = time.monotonic()
    read_all(connection)
    return time.monotonic() - start


def test_a_connection_that_says_nothing_is_closed(server: Running) -> None:
    with server.connect() as connection:
        assert 0.5 < lasts(connection) < 6


def test_headers_that_trickle_in_are_cut_off(server: Running) -> None:
    with server.connect() as connection:
        start = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\n")
        number = 0
        try:
            while time.monotonic() - start < 10:
                time.sleep(0.1)
                number += 1
                connection.sendall(b"X-%d: 1\r\n" % number)
        except OSError:
            pass
        assert time.monotonic() - start < 6


def test_a_second_request_that_trickles_in_is_cut_off(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404")
        time.sleep(0.3)
        connection.sendall(b"GET /nothing HTTP/1.1\r\n")
        assert lasts(connection) < 6


def test_headers_without_end_are_refused(server: Running) -> None:
    answer = server.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01" * 20, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100]
)
def test_what_is_not_http_is_refused_and_the_server_lives(server: Running, junk: bytes) -> None:
    answer = server.send(junk + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.get("/nothing").status_code == 404


@pytest.mark.parametrize("length", [b"100001", b"99999999999999999999", b"-1", b"1e3"])
def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(server: Running, length: bytes) -> None:
    answer = server.send(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n")
    assert answer.split(b"\r\n")[0].split()[1] in (b"413", b"400")


def test_a_request_whose_end_is_ambiguous_is_refused_with_all_that_follows(server: Running) -> None:
    answer = server.send(
        b"POST /v1/jobs/x/cancel HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(("path", "status"), [("/v1/jobs/x/cancel", 413), ("/page/apply", 413), ("/v1/fix", 400)])
def test_only_uploads_that_go_to_the_disk_may_be_large(locked: Running, path: str, status: int) -> None:
    with locked.connect() as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9000000"
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert connection.recv(1 << 16).startswith(f"HTTP/1.1 {status}".encode())


def test_many_connections_that_say_nothing_keep_nobody_out(server: Running) -> None:
    held = [server.connect() for _ in range(60)]
    try:
        until(lambda: len(server.server.server_state.connections) >= 20, 5)
        for _ in range(5):
            assert server.get("/nothing").status_code == 404
        assert len(server.server.server_state.connections) <= 21
        assert lasts(held[0]) < 0.5
    finally:
        for connection in held:
            connection.close()
    until(lambda: len(server.server.server_state.connections) < 10, 10)
    assert server.get("/nothing").status_code == 404


def test_a_web_socket_is_not_opened(server: Running) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    assert server.get("/nothing", upgrade).status_code == 404
    assert httpx.codes.is_error(server.get("/nothing").status_code)
