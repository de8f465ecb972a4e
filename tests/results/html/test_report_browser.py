"""The HTML report in a real browser without a network: is it drawn, and do clicks lead to the right voxel?"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_cases import make_picture, make_volume

from medzsad.results.html.index import index_entry, index_page
from medzsad.results.html.report import save_html_report
from medzsad.results.html.viewer_volumes import viewer_volumes
from medzsad.results.lesions import CandidateRules

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the test extra)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)",
    ),
]
# Software rendering on a busy machine takes seconds where a graphics card takes milliseconds.
PATIENCE = 120
CYAN = np.array([0, 229, 255])
LOADING = "return !!(window.medzsadReport || {}).ready || !document.getElementById('trouble').hidden"


class Report:
    """An open report."""

    def __init__(self, browser, path: Path) -> None:
        self.browser = browser
        browser.get(path.as_uri())
        self._wait(lambda: browser.execute_script(LOADING))
        assert not self.text("#trouble")

    def _wait(self, condition) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, PATIENCE, poll_frequency=0.1).until(lambda _: condition())

    def find(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        element = self.find(selector)
        # The strip at the top stays in place and would catch the click.
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def text(self, selector: str) -> str:
        return self.browser.execute_script(
            "return document.querySelector(arguments[0]).textContent", selector
        )

    def here(self) -> tuple[int, ...]:
        """The voxel under the crosshair, read back from the viewer."""
        return tuple(self.browser.execute_script("return medzsadReport.here()"))

    def picture(self) -> np.ndarray:
        """What the viewer shows, int (H, W, 3), once all changes are drawn."""
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )
        shot = Image.open(io.BytesIO(self.find("#view").screenshot_as_png))
        return np.asarray(shot.convert("RGB")).astype(int)

    def outlined(self) -> int:
        """How many pixels have the outline's colour."""
        return int(np.count_nonzero(np.abs(self.picture() - CYAN).max(axis=-1) < 40))

    def coloured(self) -> int:
        """How many pixels are not grey: the map, the outline, and always the crosshair and the letters."""
        return int(np.count_nonzero(np.ptp(self.picture(), axis=-1) > 40))

    def set(self, selector: str, value: str | bool) -> None:
        """Moves a control as a user does, as far as scripts can tell."""
        self.browser.execute_script(
            "const control = document.querySelector(arguments[0]);"
            "control[typeof arguments[1] === 'boolean' ? 'checked' : 'value'] = arguments[1];"
            "control.dispatchEvent(new Event('input', {bubbles: true}));",
            selector,
            value,
        )


@pytest.fixture(scope="module")
def browser() -> Iterator:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars", "use-gl=angle",
        "use-angle=swiftshader", "enable-unsafe-swiftshader", "host-resolver-rules=MAP * ~NOTFOUND",
        "disable-background-networking", "window-size=1400,900",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE)
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


def resize(browser, width: int, height: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


@pytest.fixture(scope="module")
def prediction():
    return make_volume()


@pytest.fixture(scope="module")
def saved_report(prediction, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "turned_report.html"
    save_html_report(prediction, path)
    return path


@pytest.fixture(scope="module")
def opened(browser, saved_report) -> Report:
    browser.get_log("browser")
    resize(browser, 1400, 900)
    return Report(browser, saved_report)


@pytest.fixture
def report(browser, opened, saved_report) -> Report:
    """The report, opened anew where a test before has left the page."""
    if browser.current_url == saved_report.as_uri():
        return opened
    resize(browser, 1400, 900)
    return Report(browser, saved_report)


def test_is_drawn_offline_without_complaints(report):
    picture = report.picture()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert report.outlined() > 50, "no outline is seen"
    report.set("#opacity", "0")
    bare = report.picture()
    grey = (np.ptp(bare, axis=-1) < 12) & (bare[..., 0] > 15)
    assert grey.mean() > 0.05, "no scan is seen"
    report.click("#reset")
    loaded = report.browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []
    serious = [entry for entry in report.browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert serious == []


@pytest.mark.parametrize("rank", [2, 1])
def test_a_click_on_a_lesion_leads_to_its_voxel(report, prediction, rank):
    lesion = prediction.lesions[rank - 1]
    assert report.here() != lesion.peak_voxel
    report.click(f"tbody tr:nth-child({rank})")
    assert report.here() == lesion.peak_voxel
    # The viewer itself reads the map there: its volumes lie where the world coordinates say.
    place = report.text("#place")
    assert f"map {np.floor(lesion.maximum * 255) / 255:.3f}" in place
    assert "voxel " + ", ".join(map(str, lesion.peak_voxel)) in place
    mm = prediction.affine[:3, :3] @ lesion.peak_voxel + prediction.affine[:3, 3]
    for value in mm:
        assert f"{abs(value):.1f}" in place


def test_enter_on_a_row_works_too(report, prediction):
    from selenium.webdriver.common.keys import Keys

    report.click("tbody tr:nth-child(1)")
    report.find("tbody tr:nth-child(2)").send_keys(Keys.ENTER)
    assert report.here() == prediction.lesions[1].peak_voxel


def test_the_threshold_slider_changes_the_picture(report):
    report.click("#reset")
    before, outlined = report.picture(), report.outlined()
    text = report.text("#above")
    report.set("#threshold", "0.95")  # above the map's maximum
    assert report.outlined() < outlined / 20
    assert report.text("#threshold-value") == "0.950"
    assert report.text("#above") != text
    assert report.text("#above").startswith("0.00 mL")
    report.set("#threshold", "0.05")  # the whole ball
    assert report.outlined() > 1.5 * outlined
    report.set("#threshold", "0.5")
    assert np.abs(report.picture() - before).mean() < 0.5, "something of another threshold is left over"


@pytest.fixture(scope="module")
def with_hidden():
    return replace(make_volume(), rules=CandidateRules(relative_peak=0.9))


@pytest.mark.parametrize("max_voxels", [10_000_000, 12_000])
def test_what_is_hidden_is_marked_by_other_thresholds_alone(
    browser, with_hidden, tmp_path, monkeypatch, max_voxels
):
    monkeypatch.setattr(
        "medzsad.results.html.report.viewer_volumes", lambda p: viewer_volumes(p, max_voxels=max_voxels)
    )
    save_html_report(with_hidden, tmp_path / "hidden.html")
    resize(browser, 1400, 900)
    report = Report(browser, tmp_path / "hidden.html")
    volumes = [
        f"{np.count_nonzero(mask) * with_hidden.scan.voxel_volume / 1000:.2f} mL marked"
        for mask in (with_hidden.mask, with_hidden.above_threshold)
    ]
    go_to_hidden = f"medzsadReport.goTo({list(with_hidden.hidden_lesions[0].peak_voxel)})"
    report.click('[data-view="axial"]')
    assert report.outlined() > 50, "the candidate is not outlined"
    for _ in range(2):  # at first, and after a reset
        browser.execute_script(go_to_hidden)
        assert report.text("#above") == f"{volumes[0]}; this is the report's threshold"
        assert report.outlined() == 0
        report.set("#threshold", "0.505")
        assert report.text("#above") == f"{volumes[1]}: all that reaches this value; the report's: 0.500"
        assert report.outlined() > 50
        report.click("#reset")
    report.click('[data-view="render"]')
    candidate = report.coloured()
    report.set("#threshold", "0.505")
    assert report.coloured() > candidate + 200
    report.click("#reset")
    assert report.coloured() < candidate + 20


def test_without_candidates_nothing_is_marked(browser, tmp_path):
    prediction = replace(make_volume(), rules=CandidateRules(min_volume_mm3=1e6))
    assert not prediction.lesions
    save_html_report(prediction, tmp_path / "none.html")
    resize(browser, 1400, 900)
    report = Report(browser, tmp_path / "none.html")
    assert report.text("#above") == "0.00 mL marked; this is the report's threshold"
    assert report.outlined() == 0
    with_map = report.coloured()
    report.set("#rest", False)
    assert report.coloured() < with_map - 100, "the rest of the map is not seen"
    report.set("#threshold", "0.505")
    assert report.outlined() > 50


def test_opacity_outline_and_colours_change_the_picture(report):
    report.click("#reset")
    start = report.picture()
    report.set("#opacity", "0")
    report.set("#outline", False)
    bare = report.picture()
    assert report.outlined() == 0
    assert np.abs(bare - start).mean() > 1
    report.set("#opacity", "1")
    plasma = report.picture()
    report.set("#colormap", "viridis")
    assert np.abs(report.picture() - plasma).mean() > 1
    report.click("#reset")
    assert np.abs(report.picture() - start).mean() < 0.5


def test_a_click_on_the_curve_leads_to_the_slice(report, prediction):
    score = prediction.slice_scores[7]
    report.click("tbody tr:nth-child(1)")
    before = report.here()
    report.click(f'.curve circle[data-index="{score.index}"]')
    after = report.here()
    assert after[score.axis] == score.index
    assert [v for axis, v in enumerate(after) if axis != score.axis] == [
        v for axis, v in enumerate(before) if axis != score.axis
    ]
    from selenium.webdriver.common.keys import Keys

    report.find(".curve svg").send_keys(Keys.ARROW_RIGHT)
    assert report.here()[score.axis] == score.index + 1
    assert f"slice {score.index + 1}:" in report.text(".curve output")


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal", "render", "multi"])
def test_views(report, view):
    before = report.picture()
    report.click(f'[data-view="{view}"]')
    after = report.picture()
    assert np.abs(after - before).mean() > 1
    assert (after.max(axis=-1) > 15).mean() > 0.03
    assert report.find(f'[data-view="{view}"]').get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("size", [(1400, 900), (1280, 800), (820, 1180), (375, 800)])
def test_fits_the_window(report, size):
    resize(report.browser, *size)
    width = report.browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= size[0]
    assert report.find("#view").size["height"] >= 300
    # Nothing of the candidates is cut, also with numbers as long as they get.
    place = "R\u00a0188.8 A\u00a0188.8 S\u00a0188.8"
    beside = report.browser.execute_script(
        "const table = document.querySelector('.side .table'), row = table.querySelector('tbody tr');"
        "const kept = row.innerHTML;"
        "[...row.cells].forEach((cell, number) => { cell.textContent = arguments[0][number]; });"
        "const beside = table.scrollWidth - table.clientWidth;"
        "row.innerHTML = kept;"
        "return beside;",
        ["12", "0.88", "888.88", "0.88", "0.88", place, "188 x 188 x 188"],
    )
    assert beside <= 0
    assert report.find(".disclaimer").is_displayed()


def test_a_downsampled_report_leads_to_native_voxels(browser, prediction, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "medzsad.results.html.report.viewer_volumes", lambda p: viewer_volumes(p, max_voxels=12_000)
    )
    save_html_report(prediction, tmp_path / "small.html")
    resize(browser, 1400, 900)
    report = Report(browser, tmp_path / "small.html")
    assert "Downsampled" in report.text("body")
    for rank, lesion in enumerate(prediction.lesions, start=1):
        report.click(f"tbody tr:nth-child({rank})")
        assert report.here() == lesion.peak_voxel
        assert f"map {np.floor(lesion.maximum * 255) / 255:.3f}" in report.text("#place")


def test_images_are_the_right_way_round(browser, tmp_path):
    prediction = make_picture()
    prediction.scan.voxels[:20, :, 0] = (255, 0, 0)  # left
    prediction.scan.voxels[20:, 30:, 0] = (0, 0, 255)  # right, bottom
    save_html_report(prediction, tmp_path / "photo.html")
    resize(browser, 1400, 900)
    report = Report(browser, tmp_path / "photo.html")
    assert report.here() == prediction.lesions[0].peak_voxel
    assert report.text("#above") == "100 pixels marked; this is the report's threshold"
    assert report.outlined() > 50
    report.set("#opacity", "0")
    report.set("#outline", False)
    picture = report.picture()
    red = np.argwhere((picture[..., 0] > 180) & (picture[..., 1:].max(axis=-1) < 90))
    blue = np.argwhere((picture[..., 2] > 180) & (picture[..., :2].max(axis=-1) < 90))
    assert len(red) > 1000
    assert len(blue) > 1000
    assert red[:, 1].mean() < blue[:, 1].mean()
    assert red[:, 0].mean() < blue[:, 0].mean()
    assert not any(button.is_displayed() for button in browser.find_elements("css selector", "[data-view]"))


def test_an_index_sorts_by_its_columns(browser, tmp_path):
    entry = index_entry(make_picture(), tmp_path / "x_report.html")
    values = {"scan10": (0.2, 3, None), "scan9": (0.9, 1, 12.0), "scan1": (0.5, 2, 3.5)}
    entries = [
        replace(entry, name=name, score=score, lesions=lesions, largest_ml=largest)
        for name, (score, lesions, largest) in values.items()
    ]
    (tmp_path / "index.html").write_text(index_page(entries, [("bad", "bad is empty")]))
    resize(browser, 1400, 900)
    browser.get((tmp_path / "index.html").as_uri())

    def order() -> list[str]:
        return [row.get_attribute("data-name") for row in browser.find_elements("css selector", "tbody tr")]

    def click(key: str) -> list[str]:
        browser.find_element("css selector", f"[data-key={key}]").click()
        return order()

    assert order() == ["scan9", "scan1", "scan10", "bad"]
    assert click("score") == ["scan10", "scan1", "scan9", "bad"]
    assert click("name") == ["bad", "scan1", "scan9", "scan10"]  # numbers in names count
    assert click("lesions") == ["scan10", "scan1", "scan9", "bad"]
    assert click("largest") == ["scan9", "scan1", "scan10", "bad"]  # without a value: last
    sorted_by = [head.text for head in browser.find_elements("css selector", "th[aria-sort]")]
    assert [text.split()[0] for text in sorted_by] == ["Largest"]
