"""The tools over the protocol itself: the SDK's client starts the command and talks to it."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cohort_factory import write_scan
from PIL import Image

pytest.importorskip("mcp", reason="needs the extra mcp")

import anyio
from mcp import Client, StdioServerParameters, stdio_client

Talk = Callable[..., Any]


def talk(
    folder: Path, *calls: tuple[str, dict[str, Any]], allow: Path | None = None
) -> tuple[list[Any], Any]:
    """The results of calls of tools, one after another, and the list of tools."""
    arguments = ["-m", "medzsad", "mcp", "--folder", str(folder), *(["--allow", str(allow)] if allow else [])]
    server = StdioServerParameters(
        command=sys.executable, args=arguments, env=dict(os.environ), cwd=str(folder)
    )

    async def talked() -> tuple[list[Any], Any]:
        async with Client(stdio_client(server)) as client:
            tools = await client.list_tools()
            return [await client.call_tool(name, given) for name, given in calls], tools

    return anyio.run(talked)


def said(result: Any) -> Any:
    """The answer of a tool, as an agent reads it."""
    assert not result.is_error, result.content
    return json.loads(result.content[0].text)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_scan(tmp_path / "work/in/a.nii.gz", 0)
    (tmp_path / "work/in/bad.nii.gz").write_bytes(b"\x1f\x8b no scan")
    (tmp_path / "work/mine.json").write_text('{"secret": 1}')
    write_scan(tmp_path / "scans/b.nii.gz", 1)
    return tmp_path / "work"


def test_find_predict_read_and_look(work: Path) -> None:
    scans = str(work.parent / "scans")
    given = {"scans": ["in", scans], "model": "brightness"}
    results, tools = talk(
        work,
        ("list_models", {}),
        ("list_scans", {"folder": "in"}),
        ("predict", given),
        ("read_result", {"result": "results/a.json"}),
        ("read_result", {"result": "results/a.json", "slices": True}),
        ("show_overlay", {"overlay": "results/a_overlay.png"}),
        ("predict", {"scans": ["/etc/passwd"]}),
        ("predict", given | {"out": "../elsewhere"}),
        ("predict", given | {"model": "/etc/x.safetensors"}),
        ("read_result", {"result": "mine.json"}),
        ("show_overlay", {"overlay": "in/a.nii.gz"}),
        allow=work.parent / "scans",
    )
    names = {tool.name: tool.annotations.read_only_hint for tool in tools.tools}
    assert names == {
        "list_models": True, "list_scans": True, "read_result": True, "show_overlay": True, "predict": False,
    }  # fmt: skip
    models, found, predicted, short, whole, overlay, *refused = results
    assert any(json.loads(part.text)["name"] == "medzsad-mini" for part in models.content)
    assert {scan["path"] for scan in said(found)["scans"]} == {"in/a.nii.gz", "in/bad.nii.gz"}
    answer = said(predicted)
    assert [scan["input"] for scan in answer["scans"]] == sorted(
        ("in/a.nii.gz", f"{scans}/b.nii.gz"), key=lambda path: -scores(work)[Path(path).name[0]]
    )
    assert answer["failed"][0]["input"] == "in/bad.nii.gz"
    assert "not" in answer["failed"][0]["error"]
    assert said(whole) == json.loads((work / "results/a.json").read_text())
    assert said(short) == {key: value for key, value in said(whole).items() if key != "slices"}
    picture = overlay.content[0]
    assert (picture.type, picture.mime_type) == ("image", "image/png")
    assert max(Image.open(io.BytesIO(base64.b64decode(picture.data))).size) <= 1568
    words = (
        "outside the folders",
        "results are written below",
        "there is no model",
        "is no report",
        "is no overlay",
    )
    for result, word in zip(refused, words, strict=True):
        assert result.is_error
        assert word in result.content[0].text
        assert "Traceback" not in result.content[0].text
    assert {path.name for path in work.iterdir()} == {"in", "mine.json", "results"}
    assert {path.name for path in work.parent.iterdir()} == {"work", "scans"}
    assert {path.name for path in (work.parent / "scans").iterdir()} == {"b.nii.gz"}


def scores(work: Path) -> dict[str, float]:
    return {name: json.loads((work / f"results/{name}.json").read_text())["score"] for name in "ab"}


def test_nothing_but_the_protocol_is_on_stdout(work: Path) -> None:
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
        },
    }  # fmt: skip
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call"}
    call["params"] = {"name": "predict", "arguments": {"scans": ["in"], "model": "brightness"}}
    lines = [hello, {"jsonrpc": "2.0", "method": "notifications/initialized"}, call]
    command = [sys.executable, "-m", "medzsad", "mcp", "--folder", str(work)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        server.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
        server.stdin.flush()
        answers = []
        for line in server.stdout:
            answers.append(json.loads(line))  # each line is JSON
            if answers[-1].get("id") == 2:
                break
        server.stdin.close()
        assert server.stdout.read() == ""
        assert server.wait(20) == 0
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    assert not answers[-1]["result"].get("isError")


def test_bad_options_end_in_a_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "medzsad",
        "mcp",
        "--folder",
        str(tmp_path),
        "--allow",
        str(tmp_path / "gone"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr.strip()
        == f"error: {tmp_path / 'gone'}: no such folder; --allow names folders to read scans from"
    )


def test_a_prediction_that_is_cancelled_stops(work: Path) -> None:
    (work / "in/bad.nii.gz").unlink()
    write_scan(work / "long/first.nii.gz", 0, (16, 16, 800))
    write_scan(work / "long/second.nii.gz", 1, (16, 16, 800))
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "medzsad", "mcp", "--folder", str(work)],
        env=dict(os.environ),
        cwd=str(work),
    )
    begun = work / "results/.medzsad"

    async def talked() -> Any:
        async with Client(stdio_client(server)) as client:
            async with anyio.create_task_group() as tasks:
                given = {"scans": ["long"], "model": "brightness"}
                tasks.start_soon(client.call_tool, "predict", given)
                while not list(begun.glob("attempts/first*")):
                    await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()
            return await client.call_tool("predict", {"scans": ["in"], "model": "brightness"})

    answer = said(anyio.run(talked))
    assert [scan["input"] for scan in answer["scans"]] == ["in/a.nii.gz"]
    names = {path.name for path in (work / "results").iterdir()}
    assert names == {".medzsad", "a.json", "a_anomaly.nii.gz", "a_mask.nii.gz", "a_overlay.png"}
    assert not list(begun.glob("attempts/*"))
