"""The HTTP API, over a real server with a real worker. `telea` repairs, which needs no network."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import pytest
from PIL import Image

from restore.fix.option_values import Option
from restore.fix.options import FixOptions
from restore.fix.run import fix_folder
from restore.serve.request_options import options_schema
from tests.processes import until
from tests.serve.servers import Running, running

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    work = tmp_path_factory.mktemp("work")
    with running(
        queue=4, work=work, warm=("telea",), max_pixels=20_000, max_upload_bytes=600_000, idle_seconds=2.0
    ) as one:
        until(lambda: one.get("/ready").status_code == 200, 120)
        yield one


def photo(kind: str = "PNG", size: tuple[int, int] = (96, 64), seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def hole(size: tuple[int, int] = (96, 64)) -> bytes:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[20:30, 40:60] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def post(server: Running, path: str = "/v1/fix", headers: dict[str, str] | None = None, **parts: Any) -> httpx.Response:
    """Send a form: bytes are files, dictionaries JSON."""
    files = {name: (f"{name}.png", value) for name, value in parts.items() if isinstance(value, bytes)}
    data = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in parts.items()}
    fields = {name: value for name, value in data.items() if name not in files}
    return server.request("POST", path, files=files, data=fields, headers=headers)


def folders(server: Running) -> list[Path]:
    return [path for path in server.settings.work.glob("restore-serve-*/*") if path.is_dir()]  # type: ignore[union-attr]


# Fix


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_answer_has_the_bytes_of_restore_fix(server: Running, tmp_path: Path, kind: str) -> None:
    name = f"x.{kind.lower()}"
    (tmp_path / name).write_bytes(photo(kind))
    (tmp_path / "mask.png").write_bytes(hole())
    options = FixOptions(masks=tmp_path / "mask.png", mask_dilate=2, device="cpu")
    fix_folder(tmp_path / name, tmp_path / "out" / name, "telea", options=options)
    files = {"image": (name, photo(kind)), "mask": ("m.png", hole())}
    data = {"options": '{"mask_dilate": 2}', "model": "telea"}
    answer = server.request("POST", "/v1/fix", files=files, data=data)
    assert answer.status_code == 200, answer.text
    assert answer.content == (tmp_path / "out" / name).read_bytes()
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    facts = json.loads(answer.headers["restore-result"])
    assert (facts["width"], facts["height"], facts["model"], facts["steps"]) == (96, 64, "telea", ["fill_holes"])
    assert json.loads(answer.headers["restore-warnings"]) == []
    until(lambda: not folders(server), 5)


def test_another_format_can_be_asked_for(server: Running) -> None:
    answer = post(server, image=photo(), mask=hole(), model="telea", options={"ext": "jpg", "quality": 90})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"


def test_a_file_without_a_suffix_is_known_by_its_content(server: Running) -> None:
    files = {"image": ("upload", photo("JPEG")), "mask": ("", hole())}
    answer = server.request("POST", "/v1/fix", files=files, data={"model": "telea"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("parts", "status", "code", "words"),
    [
        ({"mask": hole()}, 422, "bad_request", "no part 'image'"),
        ({"image": b"no image"}, 415, "not_an_image", ""),
        ({"image": b""}, 415, "not_an_image", ""),
        ({"image": photo()[:3000], "mask": hole()}, 422, "damaged", ""),
        ({"image": photo(size=(300, 100)), "mask": hole((300, 100))}, 413, "too_large", ""),
        ({"image": photo(), "mask": hole((50, 50))}, 422, "bad_mask", "mask.png"),
        ({"image": photo(), "mask": b"no mask"}, 422, "bad_mask", "mask.png"),
        ({"image": photo()}, 422, "bad_request", "fills holes and requires --masks"),
        ({"image": photo(), "mask": hole(), "model": "nobody"}, 422, "bad_request", "no model is called 'nobody'"),
        ({"image": photo(), "mask": hole(), "model": "../x.pth"}, 422, "bad_request", "must be a name"),
        ({"image": photo(), "mask": hole(), "model": "a=/etc/passwd"}, 422, "bad_request", "must be a name"),
        ({"image": photo(), "options": "{"}, 400, "malformed", "not JSON"),
        ({"image": photo(), "options": "[1]"}, 400, "malformed", "JSON object"),
        ({"image": photo(), "options": "[" * 30_000}, 400, "malformed", "not JSON"),
        ({"image": photo(), "options": {"strenght": 1}}, 422, "bad_request", "unknown option 'strenght'"),
        ({"image": photo(), "options": {"strength": 2}}, 422, "bad_request", "must be a number between 0 and 1"),
        ({"image": photo(), "options": {"masks": "/etc"}}, 422, "bad_request", "--masks must be one of"),
        ({"image": photo(), "mask": hole(), "options": {"masks": "auto"}}, 422, "bad_request", "cannot be combined"),
        ({"image": photo(), "picture": b"x"}, 422, "bad_request", "unknown part"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(
    server: Running, parts: dict[str, Any], status: int, code: str, words: str
) -> None:
    answer = post(server, **({"model": "telea"} | parts))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"] + str(answer.json()["hint"])
    assert str(server.settings.work) not in answer.text
    until(lambda: not folders(server), 5)


@pytest.mark.parametrize(
    "name",
    ["save_masks", "uncertainty", "log", "html_report", "files_from", "shard", "detector", "device", "overwrite",
     "skip_existing", "include", "tile", "suffix", "decode_timeout", "fail_fast"],
)  # fmt: skip
def test_options_that_name_paths_or_are_the_servers_are_refused(server: Running, name: str) -> None:
    answer = post(server, image=photo(), mask=hole(), model="telea", options={name: "/tmp/x"})
    assert answer.status_code == 422
    assert "does not apply to an upload" in answer.json()["detail"]


def test_an_option_that_may_name_a_file_is_not_offered_unless_it_is_known_not_to() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(FixOptions):
        depth: Annotated[str, Option("A file.", "Output")] = ""
        depths: Annotated[tuple[str, ...], Option("Files.", "Output")] = ()
        rounds: Annotated[int | None, Option("A number.", "Output")] = None

    offered = options_schema(Later)["properties"]
    texts = {name for name, one in offered.items() if "string" in json.dumps(one.get("anyOf", one.get("type")))}
    assert texts == {"ext"}
    assert "rounds" in offered
    assert not {"depth", "depths", "condition", "include", "device", "detector", "suffix"} & set(offered)
    assert offered["masks"] == offered["masks"] | {"enum": ["auto", "alpha", "infrared", "none", None]}


def test_a_client_may_lower_the_limit_of_pixels_but_not_raise_it(server: Running) -> None:
    large = {"image": photo(size=(300, 100)), "mask": hole((300, 100)), "model": "telea"}
    assert post(server, **large, options={"max_pixels": 10**9}).json()["code"] == "too_large"
    small = {"image": photo(), "mask": hole(), "model": "telea"}
    assert post(server, **small, options={"max_pixels": 100}).json()["code"] == "too_large"
    assert post(server, **small, options={"max_pixels": "many"}).status_code in (200, 422)


# Jobs


def test_a_job_is_followed_and_its_result_fetched_until_it_is_deleted(server: Running) -> None:
    at_once = post(server, image=photo(), mask=hole(), model="telea").content
    answer = post(server, headers=ASYNC, image=photo(), mask=hole(), model="telea")
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    place = answer.headers["location"]
    events = server.get(f"{place}/events").text.strip().split("\n\n")
    last = json.loads(events[-1].split("data: ")[1])
    assert events[-1].startswith("event: job\n")
    assert last["state"] == "done"
    assert last["result"]["url"] == f"{place}/result"
    assert server.get(place).json() == last
    assert server.get(f"{place}/result").content == at_once
    assert str(server.settings.work) not in json.dumps(last)
    assert server.request("POST", f"{place}/cancel").json()["state"] == "done"
    assert server.request("DELETE", place).status_code == 204
    assert server.get(place).status_code == 404
    assert not folders(server)


def test_a_job_that_fails_says_so(server: Running) -> None:
    place = post(server, headers=ASYNC, image=b"no image", model="telea").headers["location"]
    until(lambda: server.get(place).json()["state"] == "failed")
    job = server.get(place).json()
    assert job["problem"]["code"] == "not_an_image"
    assert job["result"] is None
    result = server.get(f"{place}/result")
    assert (result.status_code, result.json()) == (415, job["problem"])
    server.request("DELETE", place)


def test_jobs_of_others_cannot_be_guessed(server: Running) -> None:
    for name in ("x", "..%2f..", "%00", "a" * 500):
        assert server.get(f"/v1/jobs/{name}").status_code == 404


# Detect and eval


def test_detect_answers_a_mask(server: Running) -> None:
    answer = post(server, "/v1/detect", image=photo("JPEG"), options={"sensitivity": "strong"})
    assert answer.status_code == 200, answer.text
    mask = Image.open(io.BytesIO(answer.content))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (96, 64))
    assert 0 <= json.loads(answer.headers["restore-result"])["damaged_fraction"] <= 1


def test_eval_answers_the_scores(server: Running) -> None:
    same = post(server, "/v1/eval", restored=photo(), reference=photo(), options={"metrics": ["psnr", "ssim"]})
    assert same.status_code == 200, same.text
    assert same.json()["images"][0]["ssim"] == 1.0
    assert str(server.settings.work) not in same.text
    wrong = post(server, "/v1/eval", restored=photo(), reference=photo(size=(50, 50)))
    assert wrong.status_code == 422
    for options in (
        {"metrics": ["fid"]},
        {"metrics": []},
        {"metrics": ["psnr"] * 5000},
        {"convention": "x"},
        {"crop_border": -1},
        {"lpips_weights": "/x"},
    ):
        assert post(server, "/v1/eval", restored=photo(), reference=photo(), options=options).status_code == 422


# Forms


BOUNDARY = b"--b\r\n"
IMAGE = b'Content-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"junk",
        BOUNDARY,
        BOUNDARY + IMAGE + b"x",
        BOUNDARY + IMAGE + b"x\r\n",
        BOUNDARY + b"\r\n\r\nx\r\n--b--\r\n",
        BOUNDARY + b"X\r\n\r\nx\r\n--b--\r\n",
        BOUNDARY + IMAGE + b"x\r\n" + BOUNDARY + IMAGE + b"x\r\n--b--\r\n",
        BOUNDARY + b"A: 1\r\n" * 100 + b"\r\nx\r\n--b--\r\n",
        BOUNDARY + b"A: " + b"x" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n",
        BOUNDARY + b'Content-Disposition: form-data; name="options"\r\n\r\n' + b"x" * 100_000 + b"\r\n--b--\r\n",
        BOUNDARY + b'Content-Disposition: form-data; name="options"\r\n\r\n\xff\xfe\r\n--b--\r\n',
    ],
)  # fmt: skip
def test_a_broken_form_is_refused_and_leaves_nothing(server: Running, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = server.request("POST", "/v1/fix", content=body, headers=headers)
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    until(lambda: not folders(server), 5)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=" + "b" * 300]
)
def test_what_is_no_form_is_refused(server: Running, kind: str) -> None:
    answer = server.request("POST", "/v1/fix", content=b"x", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


@pytest.mark.parametrize(
    "name", ["../../../../tmp/evil.png", "/etc/passwd", "C:\\x.png", "a\0b.png", "x." + "p" * 300, ".."]
)
def test_names_from_outside_never_become_paths(server: Running, name: str) -> None:
    body = (
        BOUNDARY
        + b'Content-Disposition: form-data; name="image"; filename="'
        + name.encode()
        + b'"\r\n\r\nx\r\n--b--\r\n'
    )
    answer = server.request(
        "POST", "/v1/fix", content=body, headers={"Content-Type": "multipart/form-data; boundary=b", **ASYNC}
    )
    assert answer.status_code in (202, 400)
    if answer.status_code == 202:
        (folder,) = folders(server)
        assert {path.stem for path in folder.iterdir()} <= {"image", "out"}
        server.request("DELETE", answer.headers["location"])
    assert not os.path.exists("/tmp/evil.png")


def test_a_body_without_an_announced_length_is_cut_off_at_the_limit(server: Running) -> None:
    def body() -> Iterator[bytes]:
        yield BOUNDARY + IMAGE
        for _ in range(100):
            yield b"x" * 20_000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = server.request("POST", "/v1/fix", content=body(), headers=headers)
    except httpx.TransportError:  # the server closed the connection while the client still sent
        return
    finally:
        until(lambda: not folders(server), 5)
    assert answer.status_code == 413


def test_a_body_that_stops_arriving_is_given_up(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/fix HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 1000\r\n\r\n" + BOUNDARY + IMAGE
        )
        start = time.monotonic()
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - start < 10
    until(lambda: not folders(server), 5)


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(server: Running) -> None:
    for sent in (BOUNDARY, BOUNDARY + IMAGE + b"x" * 500):
        with server.connect() as connection:
            connection.sendall(
                b"POST /v1/fix HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: 100000\r\n\r\n" + sent
            )
            time.sleep(0.2)
    until(lambda: not folders(server), 5)


def test_a_small_file_with_many_pixels_is_refused_before_it_is_decoded(server: Running) -> None:
    file = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(file, "PNG", optimize=True)
    assert len(file.getvalue()) < 300_000
    start = time.monotonic()
    answer = post(server, image=file.getvalue(), mask=file.getvalue(), model="telea")
    assert answer.json()["code"] == "too_large"
    assert time.monotonic() - start < 10


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_data_that_expand_a_thousandfold_do_not_fill_the_memory(server: Running) -> None:
    pressed = zlib.compressobj(9)
    bomb = b"".join(pressed.compress(bytes(1 << 20)) for _ in range(512)) + pressed.flush()
    assert len(bomb) < 600_000
    png, memory = photo(), []
    bombs = {
        b"zTXt": b"Comment\0\0",
        b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0",
        b"iCCP": b"x\0\0",
        b"IDAT": b"",
    }
    (worker,) = server.app.state.jobs.live_workers()
    before = peak_mb(worker)
    for kind, start in bombs.items():
        data = start + bomb
        chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        answer = post(server, image=png[:33] + chunk + png[33:], mask=hole(), model="telea")
        assert answer.status_code in (200, 413, 422), answer.text
        memory.append(peak_mb(worker))
    assert max(memory) < before + 300
    assert server.app.state.jobs.live_workers() == [worker]


def peak_mb(process: int) -> float:
    return int(Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def test_a_score_decodes_no_more_pixels_than_the_server_allows(server: Running) -> None:
    large = photo(size=(200, 150))  # 30,000 pixels
    for files in ({"restored": large, "reference": large}, {"restored": photo(), "reference": photo(), "mask": large}):
        answer = post(server, "/v1/eval", **files)
        assert answer.status_code == 413, answer.text
        assert answer.json()["code"] == "too_large"


# Documentation


def test_the_python_of_the_documentation_repairs(server: Running, tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "operations" / "server.md"
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[0], names)
    for name, data in (("x.jpg", photo("JPEG")), ("m.png", hole())):
        (tmp_path / name).write_bytes(data)
    places = str(tmp_path / "x.jpg"), str(tmp_path / "m.png"), str(tmp_path / "out.jpg")
    names["repair"](*places, server=server.url, model="telea", mask_dilate=2)
    assert (tmp_path / "out.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    with pytest.raises(RuntimeError, match="must be a number between 0 and 1"):
        names["repair"](*places, server=server.url, strength=2)


# The queue


def test_a_full_queue_refuses_at_once_and_says_when_to_try_again(server: Running) -> None:
    jobs = server.app.state.jobs
    answers: list[httpx.Response] = []
    lock = threading.Lock()

    def one() -> None:
        answer = post(server, image=photo(), mask=hole(), model="telea")
        with lock:
            answers.append(answer)

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 429}
    assert codes.count(200) >= 4
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["code"] == "queue_full"
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    assert jobs.queue_length() == 0
    until(lambda: not folders(server), 5)


# Operation


def test_models_are_listed(server: Running) -> None:
    names = [one["name"] for one in server.get("/v1/models").json()["models"]]
    assert {"telea", "inpaint", "photo", "detector"} <= set(names)


def test_metrics_name_routes_by_their_template(server: Running) -> None:
    server.get("/v1/jobs/secret-identifier")
    server.get('/evil"} 1')
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert any(line.startswith('restore_requests_total{method="POST",route="/v1/fix",status="200"} ') for line in lines)
    assert any(line.startswith('restore_jobs_total{task="fix",state="done"} ') for line in lines)
    assert "secret" not in answer.text
    assert "evil" not in answer.text
    for line in lines:
        assert line.startswith("#") or float(line.rsplit(" ", 1)[1]) >= 0


def test_the_description_is_openapi_and_its_page_loads_nothing_from_elsewhere(server: Running) -> None:
    document = server.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/fix", "/v1/detect", "/v1/eval", "/v1/jobs/{identifier}", "/health", "/metrics"} <= set(
        document["paths"]
    )
    form = document["paths"]["/v1/fix"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    options = form["properties"]["options"]["properties"]
    assert options["strength"] == options["strength"] | {"type": "number", "minimum": 0, "maximum": 1, "default": 1.0}
    assert "log" not in options
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    assert "style=" not in page.text
    assert "POST /v1/fix" in page.text
    assert server.get("/docs.css").headers["content-type"].startswith("text/css")
