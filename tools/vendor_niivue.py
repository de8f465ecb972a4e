"""Fetches NiiVue, the viewer of the HTML report, into the package: exact version, verified, with licences.

python tools/vendor_niivue.py            # needs npm and its registry; changes nothing if all is up to date
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE, VERSION = "@niivue/niivue", "0.69.0"
INTEGRITY = "sha512-YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
# The packages of today leave the licence file out; this is the text of the repository, from an older package.
LICENCE_VERSION = "0.44.2"
LICENCE_SHA256 = "604be23eceeef93996165e2cd46eefd4d713f98f1b4a5414ab109516dc1b30bf"
BUNDLE = "dist/niivue.umd.js"
TARGET = Path(__file__).parents[1] / "medzsad" / "results" / "html" / "assets" / "niivue"
FONT = "Roboto (drawn into the bundle as a picture): Copyright Google, Apache License 2.0\n"


def main() -> None:
    """Write the bundle, ``LICENSE``, ``LICENSES-bundled.txt`` and ``VERSION``."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        package = pack(VERSION, folder)
        found = "sha512-" + base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            raise SystemExit(f"{PACKAGE} {VERSION} has integrity {found}, expected {INTEGRITY}")
        licence = member(pack(LICENCE_VERSION, folder), "LICENSE")
        if hashlib.sha256(licence).hexdigest() != LICENCE_SHA256:
            raise SystemExit(f"the licence in {PACKAGE} {LICENCE_VERSION} is not the expected text")
        bundled = bundled_licences(folder)
        TARGET.mkdir(parents=True, exist_ok=True)
        (TARGET / "niivue.umd.js").write_bytes(member(package, BUNDLE))
        (TARGET / "LICENSE").write_bytes(licence)
        (TARGET / "LICENSES-bundled.txt").write_text(bundled, encoding="utf-8")
        (TARGET / "VERSION").write_text(f"{PACKAGE} {VERSION}\n{BUNDLE}\n{INTEGRITY}\n", encoding="utf-8")


def pack(version: str, folder: Path) -> Path:
    """Download the package as npm publishes it."""
    done = subprocess.run(
        ["npm", "pack", f"{PACKAGE}@{version}", "--silent"],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return folder / done.stdout.split()[-1]


def member(package: Path, name: str) -> bytes:
    """One file of a package."""
    with tarfile.open(package) as archive:
        return archive.extractfile(f"package/{name}").read()


def bundled_licences(folder: Path) -> str:
    """Return the licences of what the bundle contains besides NiiVue: its dependencies, all of them."""
    subprocess.run(
        ["npm", "install", "--ignore-scripts", "--omit=optional", "--no-save",
         "--prefix", str(folder / "deps"), f"{PACKAGE}@{VERSION}"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    parts = [FONT]
    for manifest in sorted((folder / "deps" / "node_modules").glob("**/package.json")):
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        texts = [path for path in manifest.parent.iterdir() if path.name.lower().startswith("licen")]
        if "version" not in facts or not texts or facts["name"] == PACKAGE:
            continue
        text = sorted(texts)[0].read_text(encoding="utf-8").strip()
        parts.append(f"{facts['name']} ({facts.get('license', 'see below')})\n\n{text}\n")
    return f"\n{'-' * 80}\n\n".join(parts)


if __name__ == "__main__":
    main()
