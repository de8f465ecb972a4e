"""A detector whose image side is a graph: to its callers like any other."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medzsad.backends.runtimes import Runtime, version_of
from medzsad.backends.store import digest_of, stored_graph
from medzsad.detectors.base import AnomalyDetector, Prediction, SlicePrediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.prediction import divided
from medzsad.errors import BadInput, ModelNotReady, certain
from medzsad.scans.scan import Modality

if TYPE_CHECKING:
    from medzsad.detectors.protocols import GraphTexts


class GraphDetector(AnomalyDetector):
    """What another detector does, computed by OpenVINO or ONNX Runtime on the CPU.

    Name, method, threshold, sizes and normalisation are the other's; its weights are not kept beside the
    graph's. medzsad-mini has a graph for each of its networks and sizes (:meth:`for_volume`), made or opened
    when it is first needed, and keeps its few weights for that; all others have their graph from the start.
    Of a training-free method one graph serves whatever its texts speak of.

    Args:
        source: the detector, in float32, on the CPU.
        backend: ``"openvino"`` or ``"onnx"``.
        precision: what matrices are multiplied in: ``"fp32"``, and with OpenVINO also ``"bf16"``.
        use: ``"images"``, or ``"slices"`` where ``source`` is one for volumes.

    Raises:
        ModelNotReady: if the method cannot be a graph, or the runtime cannot use it.
        OutputNotWritable: if the graph cannot be stored in the cache.
    """

    text_features: Tensor | None
    method: str = "graph"  # of the class alone; objects have that of their source

    def __init__(
        self,
        source: AnomalyDetector,
        backend: str,
        precision: str = "fp32",
        *,
        use: str = "images",
    ) -> None:
        super().__init__(image_size=source.image_size, threshold=source.threshold)
        self.mean, self.std = source.mean.clone(), source.std.clone()
        self.method, self.framing, self.uses_organ = source.method, source.framing, source.uses_organ
        self.name, self.seen, self.precision, self.backend = source.name, source.seen, precision, backend
        self._threshold = source.threshold
        self._settings, self._backend_version = source.settings, version_of(backend)
        with _pointing_to_torch():
            source.check_graph()
        # Tells weights apart for whoever looks at the state, as the cache of evaluations does.
        digest = bytes.fromhex(digest_of(source, use))
        self.register_buffer("digest", torch.tensor(list(digest), dtype=torch.uint8))
        self.seen_classes, self._class_name = source.seen_classes, source.class_name
        self._texts: GraphTexts | None = source.graph_texts()
        self.register_buffer("text_features", None if self._texts is None else self._texts.features)
        self._graphs = [
            _Graph(one, digest_of(one, f"{use} {i}"), backend, precision)
            for i, one in enumerate(source.networks())
        ]
        self._thresholds = [one.threshold for one in source.networks()]
        self._own_thresholds = source.own_thresholds
        self._route = source.route  # a plain function, which keeps no weights
        self._network_for = {modality: source.network_for(modality) for modality in Modality}
        # By whether the volume is one in colour; functions, to be no part of this module's state.
        self._volumes: dict[bool, Callable[[], GraphDetector]] = {}
        self.neighbour_mm, self.tells_colours = source.neighbour_mm, source.tells_colours
        self.volume_rules = self._volume_rules = source.volume_rules
        self._marks_brain = source.marks_brain
        self.normal_scores = source.normal_scores
        self.eval()
        if use == "images" and source.for_volume() is not source:
            for colour in (False, True):
                make = functools.partial(
                    GraphDetector, source.for_volume(colour=colour), backend, precision, use="slices"
                )
                self._volumes[colour] = _Once(make)
        else:
            self._graphs[0].ready()

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable, with the backend."""
        return {
            **self._settings,
            "precision": self.precision,
            "backend": self.backend,
            "backend_version": self._backend_version,
        }

    @property
    def marks_brain(self) -> bool:
        """Whether it is one for slices, of a detector that marks the brain."""
        return self._marks_brain

    @property
    def class_name(self) -> str | None:
        """What the texts say that images show."""
        return self._class_name

    def for_classes(self, names: Iterable[str], *, organ: str | None = None) -> dict[str, AnomalyDetector]:
        """See the base class.

        Raises:
            ModelNotReady: also if the graph holds finished texts about something else.
        """
        wanted = list(dict.fromkeys(names))
        if not self.uses_organ or (organ is None and wanted == [self.class_name]):
            return dict.fromkeys(wanted, self)
        if self._texts is None or not self._texts.can_change:
            raise ModelNotReady(
                f"{self.name}: its graph holds texts about {self.class_name!r}; use `backend` torch"
            )
        found: dict[str, AnomalyDetector] = {}
        for name, texts in self._texts.for_classes(wanted, organ).items():
            found[name] = other = self._copy()
            other._texts, other._class_name, other.text_features = texts, name, texts.features
            other._settings = {**self._settings, **texts.settings}
        return found

    def use_precision(self, precision: str) -> None:
        """Refuses another precision than the graph was prepared for."""
        if precision != self.precision:
            raise ModelNotReady(f"{self.name}: its graph computes in {self.precision}; load it anew")

    def for_volume(self, *, colour: bool = False) -> AnomalyDetector:
        """Return the graph for slices of one volume; the same object each time."""
        if not self._volumes:
            return self
        detector = self._volumes[colour]()
        detector.name, detector.seen = self.name, self.seen
        changed = self.threshold != self._threshold
        detector.threshold = self.threshold if changed else detector._threshold
        rules = detector._volume_rules
        detector.volume_rules = rules.for_any_values() if changed else rules
        return detector

    def for_modality(self, modality: Modality) -> AnomalyDetector:
        """Return the graph of the network for this modality alone, if there is one."""
        number = self._network_for[modality]
        return self if number is None else self._with_only(number)

    def for_images(self, images: Tensor) -> AnomalyDetector:
        """Return the graph of the network for images that look like these; most of them decide."""
        if len(self._graphs) == 1:
            return self
        chosen = self._route(self.preprocess(images.float()))
        return self._with_only(int(2 * chosen.sum() > len(chosen)))

    @property
    def own_thresholds(self) -> dict[str, float | str]:
        """Those of the detector that the graphs were made of."""
        return self._own_thresholds

    def _with_only(self, number: int) -> GraphDetector:
        other = self._copy()
        other._graphs, other._network_for = [self._graphs[number]], dict.fromkeys(Modality)
        if self.threshold == self._threshold:  # unless a caller has set another
            other.threshold = self._thresholds[number]
        return other

    def detect(self, inputs: Tensor) -> Prediction | SlicePrediction:
        """Predicts; the map is of the resolution that the method gives.

        Args:
            inputs: float32 (B, 3, image_size, image_size), normalised.

        Raises:
            ModelNotReady: if the graph has to be made first, and that fails.
            OutputNotWritable: the same.
        """
        if not len(inputs):  # a graph has at least one image
            one = self.detect(inputs.new_zeros(1, *inputs.shape[1:]))
            return type(one)(*(value[:0] for value in one))
        if len(self._graphs) == 1:
            return self._graphs[0](inputs, self.text_features)
        return divided(inputs, self._route(inputs), self._graphs)

    def to_checkpoint(self) -> Checkpoint:
        """Raise ModelNotReady: the weights are in the graph."""
        raise self._refusal()

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> AnomalyDetector:
        """Raise ModelNotReady: see :func:`medzsad.load_detector`."""
        raise cls._refusal()

    @staticmethod
    def _refusal() -> ModelNotReady:
        return ModelNotReady("a graph is made from a detector and stores none; load it with backend 'torch'")


class _Once:
    """A function without arguments that is called once; what it returned is kept, and what it held let go."""

    def __init__(self, make: Callable[[], GraphDetector]) -> None:
        self._make: Callable[[], GraphDetector] | None = make
        self._made: GraphDetector | None = None
        self._guard = threading.Lock()

    def __call__(self) -> GraphDetector:
        with self._guard:
            if self._made is None:
                self._made = certain(self._make)()
                self._make = None
        return self._made


class _Graph:
    """One graph, opened when it is first needed; from then on the weights it was made of are let go."""

    def __init__(self, source: AnomalyDetector, digest: str, backend: str, precision: str) -> None:
        self._open: Callable[[], Runtime] | None = functools.partial(
            stored_graph, source, digest, backend, precision
        )
        self._runtime: Runtime | None = None
        self._guard = threading.Lock()

    def ready(self) -> Runtime:
        with self._guard:
            if self._runtime is None:
                with _pointing_to_torch():
                    self._runtime = certain(self._open)()
                self._open = None
        return self._runtime

    def __call__(self, inputs: Tensor, texts: Tensor | None = None) -> Prediction | SlicePrediction:
        given = [inputs.float().contiguous()] if texts is None else [inputs.float().contiguous(), texts]
        found = self.ready()(*(tensor.numpy() for tensor in given))
        kind = SlicePrediction if len(found) > 3 else Prediction
        return kind(*map(torch.from_numpy, found))


@contextmanager
def _pointing_to_torch() -> Iterator[None]:
    """Errors that mean "not with this backend" say what does work."""
    try:
        yield
    except (BadInput, ModelNotReady) as error:
        raise ModelNotReady(f"{error}; use `backend` torch") from error
