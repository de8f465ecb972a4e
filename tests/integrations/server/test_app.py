"""The server as clients see it: a real uvicorn process on this machine."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import threading
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dicom_factory import ramp, write_series
from serve_process import PATIENCE_S, ServeProcess, serving, write_scan

SECRET = "Doe^Jane_1970"


def test_a_scan_is_predicted_and_all_of_it_is_deleted(server: ServeProcess, scan: bytes) -> None:
    status, answer = server.post({f"{SECRET}.nii.gz": scan}, {"label": SECRET, "report": True})
    assert (status, answer["status"]) == (202, "queued")
    here = answer["links"]["self"]
    with_events = server.request("GET", answer["links"]["events"])
    assert with_events[1]["content-type"].startswith("text/event-stream")
    blocks = with_events[2].decode().strip().split("\n\n")
    events = [block.splitlines() for block in blocks if not block.startswith(":")]
    names = [lines[0].removeprefix("event: ") for lines in events]
    assert set(names[:-1]) == {"progress"}
    assert names[-1] == "done"
    counts = [json.loads(lines[1].removeprefix("data: ")) for lines in events[:-1]]
    assert counts[-1]["total"] >= counts[-1]["done"] > 0
    document = server.json(here)
    assert document == json.loads(events[-1][1].removeprefix("data: "))
    assert document["label"] == SECRET
    assert document in server.json("/v1/predictions")
    assert 0 <= document["score"] <= 1
    kinds = {file["kind"]: file for file in document["results"]}
    assert set(kinds) == {"anomaly", "mask", "overlay", "json", "html"}
    for file in kinds.values():
        status, headers, content = server.request("GET", f"{here}/results/{file['name']}")
        assert (status, len(content)) == (200, file["bytes"])
        assert headers["content-type"].startswith(file["media_type"])
        assert SECRET.encode() not in content
    report = json.loads(server.request("GET", f"{here}/results/scan.json")[2])
    assert (report["name"], report["score"]) == ("scan", document["score"])
    status, _, packed = server.request("GET", answer["links"]["zip"])
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert sorted(archive.namelist()) == sorted(file["name"] for file in document["results"])
    assert server.request("GET", f"{here}/results/../../../etc/passwd")[0] == 404
    assert server.request("GET", f"{here}/results/%2e%2e%2f%2e%2e%2fupload")[0] == 404
    assert server.files() != []
    assert server.request("DELETE", here)[0] == 204
    assert server.request("GET", here)[0] == 404
    assert server.files() == []
    assert SECRET not in server.log.read_text()
    assert "POST /v1/predictions 202" in server.log.read_text()


def test_what_is_said_of_the_server(server: ServeProcess) -> None:
    about = server.json("/v1")
    assert (about["name"], about["api"]) == ("medzsad", 1)
    assert about["limits"]["upload_mb"] == 3
    models = server.json("/v1/models")
    assert models[0]["name"] == "medzsad-mini"
    assert set(models[0]) == {"name", "about", "for"}
    document = server.json("/v1/openapi.json")
    assert set(document["paths"]) >= {"/v1", "/v1/models", "/v1/predictions"}
    post = document["paths"]["/v1/predictions"]["post"]
    assert "files" in post["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]


def test_the_series_of_a_folder_or_a_zip_is_one_scan(server: ServeProcess, tmp_path: Path) -> None:
    series = sorted(
        path
        for path in write_series(tmp_path / "series", ramp(6, 24, 20), [3.0 * k for k in range(6)]).rglob("*")
        if path.is_file()
    )
    files = {f"study/{path.name}": path.read_bytes() for path in series}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"../../{name}", content)  # leads nowhere: files get names of the server's
    scores = []
    for upload in (files, {"study.zip": packed.getvalue()}):
        status, answer = server.post(upload, {"overlay": "none"})
        assert status == 202, answer
        scores.append(server.finished(answer["id"])["score"])
        server.request("DELETE", answer["links"]["self"])
    assert scores[0] == scores[1] is not None


def test_a_prediction_is_cancelled_in_the_middle(server: ServeProcess, tmp_path: Path, scan: bytes) -> None:
    long = write_scan(tmp_path / "long.nii.gz", shape=(24, 24, 800)).read_bytes()
    status, answer = server.post({"long.nii.gz": long}, {"overlay": "none", "plane": "all"})
    assert status == 202, answer
    status, second = server.post({"scan.nii.gz": scan}, {"overlay": "none"})
    ended: list[bytes] = []
    listener = threading.Thread(
        target=lambda: ended.append(server.request("GET", answer["links"]["events"])[2])
    )
    listener.start()
    while not (progress := server.json(answer["links"]["self"])["progress"])["done"]:
        time.sleep(0.02)
    assert progress["done"] < progress["total"]
    assert server.request("DELETE", answer["links"]["self"])[0] == 204
    assert server.finished(second["id"])["status"] == "done"
    listener.join(PATIENCE_S)
    assert b"event: cancelled" in ended[0]
    server.request("DELETE", second["links"]["self"])
    assert server.files() == []


def test_one_that_waits_is_cancelled(server: ServeProcess, scan: bytes) -> None:
    answers = [server.post({"a.nii.gz": scan}, {"overlay": "none"})[1] for _ in range(3)]
    assert server.request("DELETE", answers[2]["links"]["self"])[0] == 204
    for answer in answers[:2]:
        assert server.finished(answer["id"])["status"] == "done"
        server.request("DELETE", answer["links"]["self"])
    assert server.files() == []


def test_what_fails_later_has_its_reason(server: ServeProcess, scan: bytes) -> None:
    status, answer = server.post({f"{SECRET}.nii.gz": scan}, {"class_name": "knee"})
    assert status == 202
    document = server.finished(answer["id"])
    assert (document["status"], document["fault"], document["results"]) == ("failed", "input", [])
    assert "its texts name no class" in document["error"]
    events = server.request("GET", answer["links"]["events"])[2].decode()
    assert events.startswith("event: failed\ndata: ")
    assert server.files() == []  # the upload goes at once
    server.request("DELETE", answer["links"]["self"])


@pytest.mark.slow
def test_thirty_two_uploads_at_once_are_answered_or_told_to_wait(server: ServeProcess, scan: bytes) -> None:
    answers: list[tuple[int, dict]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.post({"a.nii.gz": scan}, {"overlay": "none"})))
        for _ in range(32)
    ]
    before = _memory(server)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(answers) == 32
    assert {status for status, _ in answers} <= {202, 429}
    taken = [answer for status, answer in answers if status == 202]
    refused = [answer for status, answer in answers if status == 429]
    assert len(taken) >= 16
    assert all("try again" in answer["detail"] for answer in refused)
    documents = [server.finished(answer["id"]) for answer in taken]
    assert {document["status"] for document in documents} == {"done"}
    assert len({document["score"] for document in documents}) == 1
    maps = {
        server.request("GET", f"{answer['links']['self']}/results/scan_anomaly.nii.gz")[2] for answer in taken
    }
    assert len(maps) == 1
    assert _memory(server) - before < 800e6
    for answer in taken:
        server.request("DELETE", answer["links"]["self"])
    assert server.files() == []


def _memory(server: ServeProcess) -> float:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_nothing_stays_behind_that_the_next_start_does_not_remove(tmp_path: Path) -> None:
    long = write_scan(tmp_path / "long.nii.gz", shape=(24, 24, 800)).read_bytes()
    with serving(tmp_path) as first:
        _, answer = first.post({f"{SECRET}.nii.gz": long}, {"plane": "all", "label": SECRET})
        while not first.json(answer["links"]["self"])["progress"]["done"]:
            time.sleep(0.02)
        first.kill()
        left = first.files()
        assert left != []
        assert not any(SECRET in path for path in left)
    with serving(tmp_path) as second:
        assert second.files() == []
        assert second.json("/v1/predictions") == []
        _, answer = second.post({"a.nii.gz": long}, {"plane": "all"})
        assert second.stop() == 0
        assert second.files() == []


@pytest.mark.slow
def test_results_are_kept_for_so_long(tmp_path: Path, scan: bytes) -> None:
    with serving(tmp_path, "--keep", "0.02", "--queue", "1") as server:
        _, answer = server.post({"a.nii.gz": scan}, {"overlay": "none"})
        server.finished(answer["id"])
        limit = time.monotonic() + PATIENCE_S
        while server.request("GET", answer["links"]["self"])[0] == 200 and time.monotonic() < limit:
            time.sleep(0.3)
        assert server.request("GET", answer["links"]["self"])[0] == 404
        assert server.files() == []
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0


def test_the_map_is_that_of_the_command_line(server: ServeProcess, scan: bytes, tmp_path: Path) -> None:
    import medzsad

    (tmp_path / "scan.nii.gz").write_bytes(scan)
    local = medzsad.predict(tmp_path / "scan.nii.gz").save(tmp_path / "out")
    _, answer = server.post({"other-name.nii.gz": scan})
    document = server.finished(answer["id"])
    here = answer["links"]["self"]
    for kind, path in local.items():
        content = server.request("GET", f"{here}/results/{path.name}")[2]
        if kind == "json":
            mine, theirs = json.loads(path.read_text()), json.loads(content)
            for report in (mine, theirs):
                del report["timings_s"]
            assert mine == theirs
        else:
            assert content == path.read_bytes(), kind
    assert document["candidates"] == len(json.loads(local["json"].read_text())["lesions"])
    server.request("DELETE", here)


def test_a_request_that_is_cut_leaves_nothing(server: ServeProcess) -> None:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
    connection.putrequest("POST", "/v1/predictions")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.nii"\r\n\r\n' + bytes(100_000)
    )
    limit = time.monotonic() + PATIENCE_S
    while not server.files() and time.monotonic() < limit:
        time.sleep(0.02)
    assert server.files() != []
    connection.close()
    while server.files() and time.monotonic() < limit:
        time.sleep(0.02)
    assert server.files() == []
    assert server.json("/v1")["waiting"] == 0


@pytest.mark.slow
def test_those_that_say_nothing_keep_no_place_from_others(server: ServeProcess) -> None:
    parts = urlsplit(server.url)
    silent = [socket.create_connection((parts.hostname, parts.port)) for _ in range(220)]
    silent[0].sendall(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n")  # and no more
    limit = time.monotonic() + PATIENCE_S
    while server.request("GET", "/v1")[0] == 503 and time.monotonic() < limit:
        time.sleep(0.5)
    assert server.request("GET", "/v1")[0] == 200
    for connection in silent:
        connection.close()
