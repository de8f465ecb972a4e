"""The page in a real browser, against a real server: from dropped files to a report."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import write_series
from made_scans import small_head
from serve_process import ServeProcess, serving, write_scan

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the test extra)")
pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)",
    ),
]
PATIENCE = 120
TOKEN = "a-token-of-tests-0123456789"
PAGE = Path(__file__).parents[3] / "medzsad/integrations/server/page"


class Page:
    """The page, open in a browser."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get(url)

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE, poll_frequency=0.1).until(lambda _: condition())

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def drop(self, *paths: Path) -> None:
        """Drop files and folders on the page, as the browser's own drag and drop does."""
        self.wait(lambda: self.find("#drop").is_displayed())
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.browser.execute_cdp_cmd(
                "Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": data}
            )

    def rows(self) -> list[dict[str, str]]:
        """What each line of the list says."""
        texts = (".label", ".state", ".score .value", ".candidates .value")
        return [
            {
                "status": line.get_attribute("data-status"),
                **{text: line.find_element("css selector", text).text for text in texts},
            }
            for line in self.all("#results tbody tr")
        ]

    def until_over(self, count: int) -> list[dict[str, str]]:
        over = ("done", "failed")
        self.wait(lambda: len(r := self.rows()) == count and all(row["status"] in over for row in r))
        return self.rows()

    def open_report(self) -> None:
        """Open the first report. The page asks for a ticket first, so the viewer is there a while later."""
        self.find("button.open").click()
        self.wait(lambda: self.find("#viewer").is_displayed())

    def until_drawn(self) -> None:
        """Wait for two frames: a click goes to what is seen, not to what is about to be."""
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def press(self, key: str) -> None:
        self.browser.switch_to.active_element.send_keys(key)

    def focused(self) -> str:
        return self.browser.switch_to.active_element.accessible_name


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars", "use-gl=angle",
        "use-angle=swiftshader", "enable-unsafe-swiftshader", "disable-background-networking",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "window-size=1400,900",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NIfTI file, a folder with DICOM files and a text, and a broken NIfTI file."""
    folder = tmp_path_factory.mktemp("files")
    write_scan(folder / "head <b>1.nii.gz")
    head = np.round(small_head((20, 24, 6), 1)).astype(np.int16)
    write_series(folder / "study" / "series", np.moveaxis(head, 2, 0), [3.0 * k for k in range(6)])
    (folder / "study" / "notes.txt").write_text("no scan")
    (folder / "broken.nii.gz").write_bytes(b"\x1f\x8b no scan")
    return folder


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server without a token, in whose queue two scans have place."""
    folder = tmp_path_factory.mktemp("open")
    with serving(folder, "--models", "brightness,darkness", "--queue", "2") as process:
        yield process


@pytest.fixture(autouse=True)
def without_results(open_server: ServeProcess) -> None:
    """Each test begins with an empty list."""
    for one in open_server.json("/v1/predictions"):
        open_server.request("DELETE", one["links"]["self"])


def everything(files: Path) -> list[Path]:
    return [files / "head <b>1.nii.gz", files / "study", files / "broken.nii.gz"]


def test_drop_see_slide_download_and_delete(
    browser: Any, open_server: ServeProcess, files: Path, tmp_path: Path
) -> None:
    page = Page(browser, open_server.url)
    browser.get_log("browser")
    page.drop(*everything(files))
    rows = page.until_over(3)
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert {row[".label"] for row in rows[:2]} == {"head <b>1", "study/series"}
    scores = [float(row[".score .value"]) for row in rows[:2]]
    assert scores == sorted(scores, reverse=True)
    assert rows[2][".state"].startswith("broken.nii.gz is not a readable NIfTI file")
    assert page.find("#left-out").text == "Left out, for it is no scan: study/notes.txt"
    assert page.find("#summary").text == "2 done, 1 failed"
    known = open_server.json("/v1/predictions")
    assert {one["label"]: one["score"] for one in known} == {
        row[".label"]: pytest.approx(float(row[".score .value"]), abs=5e-4) for row in rows[:2]
    }

    page.open_report()
    assert page.find("#viewer-title").text == rows[0][".label"]
    browser.switch_to.frame(page.find("#viewer iframe"))
    page.wait(lambda: page.run("return !!(window.medzsadReport || {}).ready"))
    before = page.find("#threshold").get_attribute("value")
    said = page.run("return document.querySelector('.controls').textContent")
    slider = page.find("#threshold")
    slider.send_keys("\ue014" * 5)  # arrow right
    assert page.find("#threshold").get_attribute("value") != before
    assert page.run("return document.querySelector('.controls').textContent") != said
    assert page.run("return window.origin") == "null"  # away from the page and its token
    browser.switch_to.default_content()
    page.find("#viewer-close").click()
    page.wait(lambda: not page.all("#viewer iframe"))
    page.until_drawn()
    assert page.focused() == f"Open {rows[0]['.label']}"

    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.find("button.download").click()
    names = ("head_b_1_medzsad.zip", "study_series_medzsad.zip")
    name = names[rows[0][".label"].startswith("study")]
    page.wait(lambda: (tmp_path / name).is_file())
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert {"scan.json", "scan_report.html", "scan_anomaly.nii.gz"} <= set(archive.namelist())
        assert json.loads(archive.read("scan.json"))["score"] == pytest.approx(scores[0], abs=5e-4)

    for left in (2, 1, 0):  # by keyboard: the focus goes on to the next
        if left == 2:
            page.run("document.querySelector('button.delete').focus()")
        page.press("\ue007")
        page.wait(lambda count=left: len(page.all("#results tbody tr")) == count)
    assert page.find("#empty").is_displayed()
    assert open_server.json("/v1/predictions") == []
    assert open_server.files() == []
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("400" in error for error in errors), errors
    assert len(errors) == 1


def test_a_report_that_is_asked_for_twice_opens_once(
    browser: Any, open_server: ServeProcess, files: Path
) -> None:
    page = Page(browser, open_server.url)
    page.drop(files / "head <b>1.nii.gz")
    page.until_over(1)
    page.run("const open = document.querySelector('button.open'); open.click(); open.click()")
    page.wait(lambda: page.find("#viewer").is_displayed())
    browser.switch_to.frame(page.find("#viewer iframe"))
    # Once this one is drawn, a second one would be there too.
    page.wait(lambda: page.run("return !!(window.medzsadReport || {}).ready"))
    browser.switch_to.default_content()
    assert len(page.all("#viewer iframe")) == 1
    page.find("#viewer-close").click()
    page.wait(lambda: not page.all("#viewer iframe"))
    page.open_report()  # and it opens again
    assert len(page.all("#viewer iframe")) == 1
    page.find("#viewer-close").click()


def test_more_scans_than_the_queue_takes_are_all_done(
    browser: Any, open_server: ServeProcess, tmp_path: Path
) -> None:
    page = Page(browser, open_server.url)
    paths = [write_scan(tmp_path / f"{seed}.nii.gz", seed) for seed in range(6)]
    page.drop(*paths)
    rows = page.until_over(6)
    assert [row["status"] for row in rows] == ["done"] * 6
    heads = {head.text.split()[0]: head for head in page.all("thead button")}
    heads["Scan"].click()
    assert [row[".label"] for row in page.rows()] == [str(number) for number in range(6)]
    heads["Scan"].click()
    assert [row[".label"] for row in page.rows()] == [str(number) for number in reversed(range(6))]
    assert page.find("thead th").get_attribute("aria-sort") == "descending"
    browser.refresh()
    page.until_over(6)  # the server knows them still
    page.find("#delete-all").click()
    browser.switch_to.alert.accept()
    page.wait(lambda: not page.all("#results tbody tr"))
    assert open_server.json("/v1/predictions") == []


def test_options_reach_the_server(browser: Any, open_server: ServeProcess, files: Path) -> None:
    page = Page(browser, open_server.url)
    page.wait(lambda: page.find("#model").is_displayed())
    assert page.find("#model-use").text
    page.find("#which summary").click()
    assert [name.text for name in page.all("#models dt")] == ["brightness", "darkness"]
    page.find("#model").send_keys("darkness")
    page.run("document.querySelectorAll('details')[1].open = true")
    page.find("#plane").send_keys("coronal")
    page.find("#threshold").send_keys("p99")
    page.drop(files / "head <b>1.nii.gz")
    page.until_over(1)
    known = open_server.json("/v1/predictions")[0]
    report = open_server.json(f"/v1/predictions/{known['id']}/results/scan.json")
    assert (report["model"], report["planes"], report["threshold"]["rule"]) == (
        "darkness",
        ["coronal"],
        "p99",
    )
    page.find("#threshold").send_keys("nonsense")
    page.drop(files / "head <b>1.nii.gz")
    assert "is not a number from 0 to 1" in page.until_over(2)[1][".state"]


def test_a_token_is_asked_for_and_reports_open_without_it(browser: Any, files: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with serving(tmp_path, "--models", "brightness", "--token-file", tmp_path / "token") as process:
        page = Page(browser, process.url)
        page.wait(lambda: page.find("#token").is_displayed())
        assert not page.find("#work").is_displayed()
        page.find("#token").send_keys("a-wrong-token-0123456789\n")
        page.wait(lambda: "not the token" in page.find("#login-error").text)
        page.find("#token").send_keys(TOKEN + "\n")
        page.drop(files / "head <b>1.nii.gz")
        assert page.until_over(1)[0]["status"] == "done"
        page.open_report()
        address = page.find("#viewer-tab").get_attribute("href")
        browser.switch_to.frame(page.find("#viewer iframe"))
        page.wait(lambda: page.run("return !!(window.medzsadReport || {}).ready"))
        browser.switch_to.default_content()
        path = address.removeprefix(process.url.rstrip("/"))
        assert TOKEN not in address
        assert process.request("GET", path)[0] == 200
        assert process.request("GET", path.partition("?")[0])[0] == 401
        assert process.request("DELETE", path)[0] == 401
        assert TOKEN not in process.log.read_text()
        assert "ticket=" not in process.log.read_text()


def test_what_belongs_together_is_one_scan(browser: Any, open_server: ServeProcess) -> None:
    Page(browser, open_server.url)
    paths = [
        "d/a.nii.gz", "d/b.hdr", "d/b.img", "d/s1/1.dcm", "d/s1/2.dcm", "d/s2/IM0001", "d/s2/IM0002",
        "d/DICOMDIR", "d/.hidden/c.nii", "d/readme.txt", "d/photo.JPG", "d/e.mhd",
    ]  # fmt: skip
    grouped = browser.execute_async_script(
        """
        const [paths, done] = arguments;
        import("/scans.js").then(async ({ groupScans }) => {
          const magic = new Uint8Array(132);
          magic.set([68, 73, 67, 77], 128);
          const fileOf = (path) => new File([path.includes("IM") ? magic : "x"], "f");
          const found = paths.map((path) => ({ path, file: fileOf(path) }));
          const { scans, others } = await groupScans(found);
          done([scans.map((scan) => [scan.label, scan.files.length, scan.dicom]), others]);
        });
        """,
        paths,
    )
    scans, others = grouped
    assert sorted(scans) == [
        ["a", 1, False], ["b", 2, False], ["e.mhd", 1, False], ["photo", 1, False], ["s1", 2, True],
        ["s2", 2, True],
    ]  # fmt: skip
    assert others == ["d/readme.txt"]


CONTRAST = """
const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
};
return [...document.querySelectorAll("h1, h2, p, label, button, summary, .label, .state, .value, a")]
  .filter((e) => e.offsetParent && e.textContent.trim())
  .map((e) => {
    const [one, two] = [light(numbers(getComputedStyle(e).color)), light(behind(e))];
    return [e.textContent.trim().slice(0, 30), (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05)];
  });
"""


def test_readable_light_dark_and_narrow_with_a_name_for_every_control(
    browser: Any, open_server: ServeProcess, files: Path
) -> None:
    page = Page(browser, open_server.url)
    page.drop(*everything(files))
    page.until_over(3)
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    try:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            for width in (1400, 375, 320):
                metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                assert page.run("return document.documentElement.scrollWidth") <= width
                measured = page.run(CONTRAST)
                assert len(measured) > 20
                assert [one for one in measured if one[1] < 4.5] == [], (scheme, width)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    controls = [
        one for one in page.all("button, select, input:not([type=file]), a, summary") if one.is_displayed()
    ]
    assert len(controls) > 15
    assert [one.get_attribute("outerHTML") for one in controls if not one.accessible_name.strip()] == []
    page.run("document.activeElement.blur()")
    page.find("body").send_keys("\ue004")
    assert page.focused() == "Skip to the results"


def test_nothing_inline_and_nothing_from_elsewhere(open_server: ServeProcess) -> None:
    status, headers, body = open_server.request("GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = body.decode()
    assert " style=" not in text
    assert " on" not in {attribute[:3] for attribute in text.split('"')}
    for path in PAGE.iterdir():
        content = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in content, path.name
        assert "innerHTML" not in content, path.name
        assert open_server.request("GET", f"/{path.name}")[0] == 200
