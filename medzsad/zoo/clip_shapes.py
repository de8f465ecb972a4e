"""Which CLIP a file holds: the shapes of its tensors compared with open_clip's configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    from torch import Tensor


class Shape(NamedTuple):
    """What the tensors' shapes tell of a CLIP; of the text tower None where there is none."""

    embed_dim: int
    image_size: int
    patch_size: int
    layers: int
    width: int
    text_layers: int | None
    text_width: int | None
    context_length: int | None
    vocab_size: int | None

    def __str__(self) -> str:
        text = "no text tower"
        if self.text_layers is not None:
            text = (
                f"text tower {self.text_layers} x {self.text_width}, context {self.context_length}, "
                f"vocabulary {self.vocab_size}"
            )
        return (
            f"image tower {self.layers} x {self.width}, patches {self.patch_size}, {self.image_size} px, "
            f"shared space {self.embed_dim}, {text}"
        )

    def allows(self, other: Shape) -> bool:
        """Whether a file of this shape fits a model of shape ``other``; the text tower may be missing."""
        return self[:5] == other[:5] and (self.text_layers is None or self[5:] == other[5:])


def shape_of_tensors(tensors: Mapping[str, Tensor], origin: str) -> Shape:
    """Return shape of a CLIP's state dict with open_clip's names, text tower at the top or under ``text.``.

    Raises:
        ModelNotReady: if a tensor that tells it is missing.
    """
    text = "text." if "text.token_embedding.weight" in tensors else ""
    try:
        conv, position = tensors["visual.conv1.weight"], tensors["visual.positional_embedding"]
        patch, side = conv.shape[-1], round((position.shape[0] - 1) ** 0.5)
        words = tensors.get(f"{text}token_embedding.weight")
        return Shape(
            embed_dim=tensors["visual.proj"].shape[1],
            image_size=side * patch,
            patch_size=patch,
            layers=_depth(tensors, "visual."),
            width=conv.shape[0],
            text_layers=None if words is None else _depth(tensors, text),
            text_width=None if words is None else words.shape[1],
            context_length=None if words is None else tensors[f"{text}positional_embedding"].shape[0],
            vocab_size=None if words is None else words.shape[0],
        )
    except (KeyError, IndexError) as error:
        raise ModelNotReady(f"{origin}: an incomplete CLIP: {error} is missing") from error


def shape_of_configuration(config: Mapping[str, Any]) -> Shape | None:
    """Return the shape of an open_clip configuration; None if its towers are not open_clip's own."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if vision.get("timm_model_name") or text.get("hf_model_name") or "multimodal_cfg" in config:
        return None
    layers, size = vision.get("layers", 12), vision.get("image_size", 224)
    if not isinstance(layers, int) or not isinstance(size, int) or vision.get("attentional_pool"):
        return None
    return Shape(
        embed_dim=config["embed_dim"],
        image_size=size,
        patch_size=vision.get("patch_size", 16),
        layers=layers,
        width=vision.get("width", 768),
        text_layers=text.get("layers", 12),
        text_width=text.get("width", 512),
        context_length=text.get("context_length", 77),
        vocab_size=text.get("vocab_size", 49408),
    )


def check_fits(
    tensors: Mapping[str, Tensor], architecture: str | Mapping[str, Any] | None, origin: str
) -> None:
    """Raise ModelNotReady unless the tensors are those of ``architecture``, as far as shapes tell."""
    from medzsad.detectors.clip.configuration import read_configuration

    assert architecture is not None  # every CLIP's entry has it
    name, config = read_configuration(architecture, text=True)
    wanted, found = shape_of_configuration(config), shape_of_tensors(tensors, origin)
    if wanted is None or not found.allows(wanted):
        raise ModelNotReady(f"{origin}: not a {name} ({wanted}): it holds {found}")


def guess_architecture(tensors: Mapping[str, Tensor], quick_gelu: bool | None, origin: str) -> str:
    """open_clip's name of the only model that the tensors fit.

    Names that end in ``-quickgelu`` differ from their namesakes in the activation alone, which no tensor
    shows; it is stored beside the weights here, so that the plain name does where ``quick_gelu`` is known.

    Raises:
        ModelNotReady: if no model fits, or several do; the message lists them.
    """
    import open_clip

    found = shape_of_tensors(tensors, origin)
    fitting = []
    for name in open_clip.list_models():
        shape = shape_of_configuration(open_clip.get_model_config(name))
        if shape is not None and found.allows(shape):
            fitting.append(name)
    plain = [name for name in fitting if not name.endswith("-quickgelu")]
    if quick_gelu is not None and len(plain) == 1:
        return plain[0]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise ModelNotReady(
            f"{origin}: no model of open_clip has {found}; say what it is with `architecture`, or "
            "describe it in a catalogue of your own (MEDZSAD_CATALOGUE)"
        )
    raise ModelNotReady(f"{origin}: fits several models: {', '.join(fitting)}; say which with `architecture`")


def _depth(tensors: Mapping[str, Tensor], prefix: str) -> int:
    start = f"{prefix}transformer.resblocks."
    numbers = {name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)}
    return len(numbers)
