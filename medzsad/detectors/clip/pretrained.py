"""From an open_clip pretrained tag to a file: caches first, then a download that fails fast offline."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medzsad.errors import ModelNotReady

HINT = "give a local file as `clip_weights`"
CONNECT_TIMEOUT = 5.0  # seconds
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def find_weights(weights: str, model: str | None) -> tuple[Path, bool | None]:
    """Find, or download, the file that ``weights`` stands for.

    Args:
        weights: a file, or an open_clip pretrained tag.
        model: open_clip's name of the model, which a tag needs.

    Returns:
        The file, and for a tag whether its weights need QuickGELU (None for a file).

    Raises:
        ModelNotReady: if there is no such file or tag, or the tag's file is neither cached nor downloadable.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    path = Path(weights).expanduser()
    if path.is_file():
        return path, None
    if path.is_dir():
        raise ModelNotReady(f"{path}: a folder; give the weights file inside it")
    if path.suffix in (".pt", ".pth", ".bin", ".safetensors") or len(path.parts) > 1:
        raise ModelNotReady(f"{path}: no such weights file")
    if model is None:
        raise ModelNotReady(f"weights {weights!r}: a tag needs a model by name; {HINT}")
    config = get_pretrained_cfg(model, weights)
    if not config:
        tags = ", ".join(list_pretrained_tags_by_model(model)) or "none"
        raise ModelNotReady(
            f"{weights!r} is neither a file nor a pretrained tag of {model} (tags: {tags}); {HINT}"
        )
    return _cached(config) or _download(config, weights, model), bool(config.get("quick_gelu", False))


def find_local(tag: str, model: str) -> Path | None:
    """Return the file of an open_clip tag where open_clip's own caches hold it; nothing is downloaded."""
    from open_clip.pretrained import get_pretrained_cfg

    config = get_pretrained_cfg(model, tag)
    return _cached(config) if config else None


def is_tag(weights: str, model: str) -> bool:
    """Whether ``weights`` is an open_clip tag of ``model``, and no file."""
    from open_clip.pretrained import get_pretrained_cfg

    return not Path(weights).expanduser().exists() and bool(get_pretrained_cfg(model, weights))


def _hub_candidates(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    repository, _, name = config.get("hf_hub", "").rpartition("/")
    if not repository:
        return []
    return [(repository, n) for n in ((f"{Path(name).stem}.safetensors", name) if name else _HUB_FILES)]


def _openai_cache(config: Mapping[str, Any]) -> Path | None:
    url = config.get("url", "")
    return Path("~/.cache/clip").expanduser() / url.rsplit("/", 1)[-1] if url else None


def _cached(config: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for repository, name in _hub_candidates(config):
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    path = _openai_cache(config)
    return path if path is not None and path.is_file() else None


def _download(config: Mapping[str, Any], tag: str, model: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from open_clip.pretrained import download_pretrained_from_url

    reason = "downloads are switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    candidates, url = _hub_candidates(config), config.get("url", "")
    # Asked once and briefly: the hub's client would retry for most of a minute before it gave up.
    if not reason and candidates and not _reachable(constants.ENDPOINT):
        reason = f"{constants.ENDPOINT} cannot be reached"
    elif not reason:
        for repository, name in candidates:
            try:
                return Path(hf_hub_download(repository, name))
            except Exception as error:  # the client raises many kinds; each means "not from here"
                reason = _first_line(error)
    if url and not constants.HF_HUB_OFFLINE and _reachable(url):
        try:
            return Path(download_pretrained_from_url(url))
        except (OSError, RuntimeError, ValueError) as error:
            reason = _first_line(error)
    files = [f"{repository}/{name}" for repository, name in candidates] + ([url] if url else [])
    raise ModelNotReady(
        f"the CLIP weights {tag!r} of {model} are not on this machine and could not be downloaded "
        f"({reason or 'no source'}): get {' or '.join(files)} and {HINT}"
    )


def _reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
