"""A client of ``medzsad serve``: predictions of a server, without torch or NumPy here.

>>> client = medzsad.Client("http://127.0.0.1:8765")             # doctest: +SKIP
>>> result = client.predict("scan.nii.gz", "out/", report=True)  # doctest: +SKIP
>>> result.score, result.files["anomaly"]                        # doctest: +SKIP
"""

from __future__ import annotations

from medzsad.client.client import API, Client, RemotePrediction, ServerFailed, Watch
from medzsad.client.inputs import ScanFiles, scan_files

__all__ = ["API", "Client", "RemotePrediction", "ScanFiles", "ServerFailed", "Watch", "scan_files"]
