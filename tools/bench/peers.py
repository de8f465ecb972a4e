"""Other people's detectors as functions of images, from local copies of their code; nothing of it is here.

Each is run as its authors' own test script runs it, with random weights of the architecture's shapes.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

Forward = Callable[[Tensor], object]
LAYERS = [6, 12, 18, 24]


def anomalyclip(clone: Path) -> Forward:
    """Return the authors' AnomalyCLIP (ViT-L/14 at 336 px).

    Normalised images (B, 3, S, S) to smoothed maps.
    """
    _stand_ins()
    sys.path.insert(0, str(clone))
    with contextlib.redirect_stdout(io.StringIO()):
        import AnomalyCLIP_lib as library
        from AnomalyCLIP_lib.AnomalyCLIP import AnomalyCLIP
        from scipy.ndimage import gaussian_filter

        design = {
            "Prompt_length": 12,
            "learnabel_text_embedding_depth": 9,
            "learnabel_text_embedding_length": 4,
        }
        model = AnomalyCLIP(768, 336, 24, 1024, 14, 77, 49408, 768, 12, 12, design_details=design).eval()
    model.visual.DAPM_replace(DPAM_layer=20)
    model.requires_grad_(False)
    text = torch.nn.functional.normalize(torch.randn(1, 2, 768), dim=-1)

    @torch.no_grad()
    def forward(images: Tensor) -> object:
        side = images.shape[-1]
        image, patches = model.encode_image(images, LAYERS, DPAM_layer=20)
        image = image / image.norm(dim=-1, keepdim=True)
        probability = (image @ text[0].T / 0.07).softmax(-1)
        maps = []
        for features in patches:
            features = features / features.norm(dim=-1, keepdim=True)
            similarity, _ = library.compute_similarity(features, text[0])
            found = library.get_similarity_map(similarity[:, 1:, :], side)
            maps.append((found[..., 1] + 1 - found[..., 0]) / 2.0)
        summed = torch.stack(maps).sum(0)
        return probability, [gaussian_filter(one.float().cpu().numpy(), sigma=4) for one in summed]

    return forward


def adaclip(clone: Path) -> Forward:
    """Return the authors' AdaCLIP (ViT-L/14 at 336 px), with all its prompts and its fusion."""
    _stand_ins()
    package = types.ModuleType("method")  # its own __init__ also imports the training, and OpenCV with it
    package.__path__ = [str(clone / "method")]
    sys.modules["method"] = package
    from method.adaclip import AdaCLIP
    from method.clip_model import CLIP
    from scipy.ndimage import gaussian_filter

    config = json.loads((clone / "model_configs" / "ViT-L-14-336.json").read_text())
    config["vision_cfg"]["image_size"] = 518
    model = AdaCLIP(
        freeze_clip=CLIP(**config).eval(),
        text_channel=768,
        visual_channel=1024,
        prompting_length=5,
        prompting_depth=4,
        prompting_branch="VL",
        prompting_type="SD",
        use_hsf=True,
        k_clusters=20,
        output_layers=LAYERS,
        device="cpu",
        image_size=518,
    )
    model.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(images: Tensor) -> object:
        maps, score = model(images, ["object"] * len(images), aggregation=True)
        return score, [gaussian_filter(one.float().cpu().numpy(), sigma=4) for one in maps]

    return forward


def anomalib_winclip() -> Forward:
    """Return anomalib's zero-shot WinCLIP on its own backbone, ViT-B/16+ at 240 px."""
    import open_clip
    from anomalib.models.image.winclip import torch_model

    torch_model.PRETRAINED = None  # random weights
    original = open_clip.create_model_and_transforms
    open_clip.create_model_and_transforms = lambda name, pretrained=None: original(name)
    return torch_model.WinClipModel(class_name="object").eval()


def _stand_ins() -> None:
    """Return what the authors' files import, no longer exists, and is not used by a forward pass."""
    import packaging.version

    for name in ("thop", "pkg_resources"):
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
    sys.modules["thop"].profile = None
    sys.modules["pkg_resources"].packaging = packaging
