"""`IFIMHandler`: attached to an evaluator, it decomposes every batch beside the evaluator's own prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack, get_args

import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.data import MetaTensor, decollate_batch
from monai.engines import IterationEvents, Workflow
from monai.transforms import Compose
from torch import Tensor

from monai_ifim.adapt.batch_components import batch_components
from monai_ifim.adapt.components import item_of_batch
from monai_ifim.adapt.epoch_folder import EpochFolder
from monai_ifim.adapt.grey_images import GreyImages
from monai_ifim.adapt.inferred_network import called_by, dividing_inferer
from monai_ifim.adapt.random_steps import refuse_random
from monai_ifim.adapt.saving import SaveIFIM
from monai_ifim.adapt.scanner.space import ScannerSpace
from monai_ifim.adapt.settings import CaseSettings, CaseShortcuts, own_keywords
from monai_ifim.core import IFIMError
from monai_ifim.core.operator.arguments import for_items
from monai_ifim.core.settings import Settings
from monai_ifim.io import Source
from monai_ifim.io.errors import reason_of
from monai_ifim.io.hidden_names import without_names

OnFailure = Literal["raise", "record"]
AUGMENTED = (
    "so an augmented image would be decomposed: remove it from the preprocessing, or set its prob to 0 (of a bundle, on MONAI's "
    "command line: --preprocessing#transforms#N#prob 0)."
)
WRITING = ("preprocessing", "class_names", "bundle_root")  # arguments of `SaveIFIM` among the handler's keywords


class Failure(NamedTuple):
    """A case that was not decomposed or not written, and the reason."""

    case: str
    reason: str


@dataclass(frozen=True)
class NetworkInput:
    """Input of the network in one iteration: images [B, channel, *spatial] and further arguments."""

    image: Tensor
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def item(self, index: int, image: Tensor) -> NetworkInput:
        """One image of the batch, [channel, *spatial], as a batch of its own, with its share of the arguments."""
        batch, items = self.image.shape[0], slice(index, index + 1)
        kwargs = {name: for_items(value, items, batch) for name, value in self.kwargs.items()}
        return NetworkInput(image[None], [for_items(value, items, batch) for value in self.args], kwargs)


class HandlerArguments(CaseShortcuts, total=False):
    """Fields of `CaseSettings`, and the arguments of `SaveIFIM`, as keywords of `IFIMHandler`."""

    preprocessing: Compose | None
    class_names: Sequence[str]
    bundle_root: PathLike | None


class IFIMHandler:
    """Decompose each batch that an evaluator predicts, right after its forward pass; the prediction stays as it is.

    The components of `IFIMInferer` except pred are put into `engine.state.output`, where MONAI decollates them for
    postprocessing; with output_dir each image's files are written as `SaveIFIM` does. The network runs once more, in eval mode,
    in the image's own precision (an evaluator's amp covers its own pass only), with the arguments that the evaluator passed.

    Args:
        settings: how to decompose and which files to write; by default `CaseSettings()`.
        output_dir: folder for the files; None writes none, and the arguments of `SaveIFIM` then have no effect. "{epoch}" in it
            stands for the number of the epoch, "validation/epoch-{epoch:03d}" for example: each epoch has a folder of its own.
        scanner: as `IFIMInferer`; space="scanner" makes one of `preprocessing`, statistics and resolution.
        image_key: name of the image in a dictionary `preprocessing`. Where `preprocessing` makes several channels of one grey
            image, that image is decomposed, unless channels="each".
        network: what to decompose; by default the evaluator's own `network` as its inferer calls it, over windows where that is
            a SlidingWindowInferer.
        batch_transform: takes `engine.state.batch`, returns the images [B, channel, *spatial] on the network's device; by
            default what the evaluator's `prepare_batch` returned. A plain ignite engine has neither: give this and network.
        on_failure: "raise" ends the run with an IFIMError that names the case. "record" logs the error, notes it in
            `failures` and goes on; the other images of such a batch still get their files, the batch's output no components.
        keywords: fields of `CaseSettings` (head, energy, space, contents, ...), which replace those of `settings`, and
            preprocessing, class_names, bundle_root as `SaveIFIM`.

    Raises:
        IFIMError: invalid settings, or an unknown keyword; the class is `OutputError` or `InputError` where files are
            concerned.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        output_dir: PathLike | None = None,
        scanner: ScannerSpace | None = None,
        image_key: str = "image",
        network: Callable[..., Any] | None = None,
        batch_transform: Callable[[Any], Tensor] | None = None,
        on_failure: OnFailure = "raise",
        **keywords: Unpack[HandlerArguments],
    ) -> None:
        if on_failure not in get_args(OnFailure):
            raise IFIMError(f"unknown on_failure {on_failure!r}: choose one of {', '.join(map(repr, get_args(OnFailure)))}.")
        given: dict[str, Any] = dict(keywords)
        writing = {name: given.pop(name) for name in WRITING if name in given}
        case = CaseSettings.of(settings, given, besides=(*own_keywords(IFIMHandler), *WRITING))
        if scanner is None and case.space == "scanner":
            scanner = ScannerSpace(writing.get("preprocessing"), case.statistics, case.resolution, image_key)
        self.instead = scanner or _grey_images(case, writing.get("preprocessing"))
        self.settings = case if scanner is None else scanner.settings(case)
        self._hides, self._hidden = case.case_names == "hash", list[Source]()  # inputs of a batch whose names are not told
        self._folder = None if output_dir is None else EpochFolder.of(output_dir)
        self._writing = {"image_key": image_key, **writing}
        self.writer = None if self._folder is None else self._writer_to(self._folder.path(0))
        refuse_random(writing.get("preprocessing"), AUGMENTED)
        self.network = network
        self.batch_transform = batch_transform
        self.on_failure = on_failure
        self.failures: list[Failure] = []
        self.cases = 0

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI evaluator's FORWARD_COMPLETED, or to a plain ignite engine's ITERATION_COMPLETED.

        Raises IFIMError for a plain engine where network or batch_transform is missing.
        """
        if engine.has_event_handler(self._start, Events.STARTED):
            return
        event = IterationEvents.FORWARD_COMPLETED if isinstance(engine, Workflow) else Events.ITERATION_COMPLETED
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(event, self._decompose_batch, self._input_of(engine))
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _input_of(self, engine: Engine) -> Callable[[Engine], NetworkInput]:
        transform = self.batch_transform
        if not isinstance(engine, Workflow) and (transform is None or self.network is None):
            raise IFIMError(
                "a plain ignite engine states neither its network nor its images: pass network= and batch_transform=, for "
                "batches (image, label) batch_transform=lambda batch: batch[0].to(device)."
            )
        if transform is not None:
            return lambda engine: NetworkInput(transform(engine.state.batch))
        recorder = _Recorder()
        engine.add_event_handler(Events.ITERATION_STARTED, recorder.install)
        engine.add_event_handler(Events.COMPLETED, recorder.give_back)
        return recorder.take

    def _start(self, engine: Engine) -> None:
        self.failures, self.cases = [], 0
        refuse_random(_transform_of(getattr(engine.state, "dataloader", None)), AUGMENTED)

    def _start_epoch(self, engine: Engine) -> None:
        if self._folder is not None and self._folder.by_epoch:
            self.writer = self._writer_to(self._folder.path(engine.state.epoch))

    def _writer_to(self, folder: str) -> SaveIFIM:
        return SaveIFIM(folder, self.settings, **self._writing)

    def _finish(self, engine: Engine) -> None:
        """Report missing cases: raise if nothing was decomposed, log the cases that failed."""
        if self.cases == 0 and engine.state.iteration > 0:
            raise IFIMError(
                "the evaluator never fired FORWARD_COMPLETED (a custom iteration_update?), so nothing was decomposed: let "
                "it call engine.fire_event(IterationEvents.FORWARD_COMPLETED) once its prediction is in the output."
            )
        if self.failures:
            names = ", ".join(sorted({failure.case for failure in self.failures}))
            engine.logger.error("iFIM: %d of %d cases failed: %s", len(self.failures), self.cases, names)

    def _decompose_batch(self, engine: Engine, input_of: Callable[[Engine], NetworkInput]) -> None:
        given = input_of(engine)
        network = self._network_of(engine)
        if not isinstance(engine.state.output, dict) and self.writer is None:
            raise IFIMError(
                f"the engine's output is {type(engine.state.output).__name__}, which cannot hold the components: let its process "
                "function return a dictionary, or give output_dir= to write files."
            )
        files = _files_of(given.image)
        names = _case_names(given.image, [] if self._hides else files, engine.state.iteration)
        self._hidden = [Source(Path(file)) for file in files] if self._hides else []
        self.cases += len(names)
        with _undisturbed(engine, network, given.image):
            made = self._tensors(engine, network, given, names)
        if made is None:
            return
        tensors, image = made
        for index, single in enumerate(decollate_batch(image)):
            self._save(engine, single, tensors, index, names[index])
        if isinstance(engine.state.output, dict):
            engine.state.output.update({name: values for name, values in tensors.items() if name != "pred"})

    def _network_of(self, engine: Engine) -> Callable[..., Any]:
        if self.network is not None:
            return self.network
        network = getattr(engine, "network", None)
        if network is None:
            raise IFIMError(f"{type(engine).__name__} has no single network to decompose: name one with network=.")
        inferer = dividing_inferer(getattr(engine, "inferer", None), "the evaluator", "name what to decompose with network=")
        called: Callable[..., Any] = called_by(inferer, network)
        return called

    def _tensors(
        self, engine: Engine, network: Callable[..., Any], given: NetworkInput, names: list[str]
    ) -> tuple[dict[str, Tensor], Tensor] | None:
        """Components of the batch and the images that were decomposed; None if the batch failed, after each image was tried
        alone."""
        try:
            return self._components(network, given)
        except Exception as error:
            if len(names) == 1 or isinstance(self.instead, ScannerSpace):  # which takes no batch, and needs the image's metadata
                self._fail(engine, ", ".join(names), error)
                return None
            self._one_by_one(engine, network, given, names)
            if self.on_failure == "raise":
                raise self._named(", ".join(names), error) from error
            reason = self._reason(error)
            engine.logger.error("iFIM: no components in the output for the batch of %s: %s", ", ".join(names), reason)
            return None

    def _one_by_one(self, engine: Engine, network: Callable[..., Any], given: NetworkInput, names: list[str]) -> None:
        for index, single in enumerate(decollate_batch(given.image)):
            try:
                tensors, _ = self._components(network, given.item(index, single))
            except Exception as error:
                self._fail(engine, names[index], error)
            else:
                self._save(engine, single, tensors, 0, names[index])

    def _components(self, network: Callable[..., Any], given: NetworkInput) -> tuple[dict[str, Tensor], Tensor]:
        names = () if self.writer is None else self.writer.model.class_names
        return batch_components(self.settings, self.instead, network, given.image, given.args, given.kwargs, names)

    def _save(self, engine: Engine, image: Tensor, tensors: Mapping[str, Tensor], index: int, name: str) -> None:
        if self.writer is None:
            return
        try:
            self.writer(image, item_of_batch(tensors, index, image))
        except Exception as error:
            self._fail(engine, name, error)

    def _fail(self, engine: Engine, name: str, error: Exception) -> None:
        if self.on_failure == "raise":
            raise self._named(name, error) from error
        self.failures.append(Failure(name, self._reason(error)))
        engine.logger.error("iFIM of case %s failed: %s", name, self._reason(error))

    def _named(self, name: str, error: Exception) -> IFIMError:
        return IFIMError(f"case {name}: {self._reason(error)}")

    def _reason(self, error: Exception) -> str:
        said = reason_of(error)
        for source in self._hidden:
            said = without_names(said, source, "the input")
        return said


def _grey_images(settings: CaseSettings, preprocessing: Compose | None) -> GreyImages | None:
    """What finds the grey images of the inputs, where they are asked for and their preprocessing is at hand."""
    return None if settings.channels == "each" or preprocessing is None else GreyImages(preprocessing)


class _Recorder:
    """Keeps what an evaluator's `prepare_batch` returned: called a second time, it might return something else.

    It replaces `prepare_batch` from the start of an iteration until its one call, so that the evaluator has its
    own function again after each batch, whatever happens in it.
    """

    def __init__(self) -> None:
        self.prepare: Callable[..., Any] | None = None
        self.last: Any = None
        self.engine: Engine | None = None

    def install(self, engine: Engine) -> None:
        """Replace the evaluator's `prepare_batch` by this object."""
        if self.engine is None:
            self.engine, self.prepare = engine, engine.prepare_batch
            engine.prepare_batch = self

    def give_back(self, engine: Engine) -> None:
        """Undo `install`, unless that was done or somebody else has replaced `prepare_batch` since."""
        if self.engine is not None and engine.prepare_batch is self:
            engine.prepare_batch = self.prepare
        self.engine = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.prepare is None:
            raise IFIMError("prepare_batch was called outside of an iteration of the evaluator that the handler is attached to.")
        if self.engine is not None:
            self.give_back(self.engine)
        self.last = self.prepare(*args, **kwargs)
        return self.last

    def take(self, engine: Engine) -> NetworkInput:
        """What `prepare_batch` returned, (inputs, targets) or (inputs, targets, args, kwargs); it is then forgotten."""
        prepared, self.last = self.last, None
        if not isinstance(prepared, (tuple, list)) or len(prepared) not in (2, 4):
            raise IFIMError(
                "the evaluator's prepare_batch was not called or returned neither (inputs, targets) nor (inputs, targets, "
                "args, kwargs): give the images by batch_transform=."
            )
        return NetworkInput(prepared[0], *prepared[2:])


@contextmanager
def _undisturbed(engine: Engine, network: Callable[..., Any], image: Tensor) -> Iterator[None]:
    """Put the network in the evaluator's mode; mode and random state are restored afterwards."""
    mode = getattr(engine, "mode", None)
    device = image.device if isinstance(image, Tensor) else torch.device("cpu")
    devices, kind = ([], "cuda") if device.type in ("cpu", "mps") else ([device], device.type)
    with torch.random.fork_rng(devices, device_type=kind), nullcontext() if mode is None else mode(network):
        yield


def _transform_of(loader: Any) -> Any:
    """What a loader's data set does to each image; None if it does not say."""
    dataset = getattr(loader, "dataset", None)
    while getattr(dataset, "transform", None) is None and getattr(dataset, "dataset", None) is not None:
        dataset = getattr(dataset, "dataset", None)
    return getattr(dataset, "transform", None)


def _files_of(image: Tensor) -> list[str]:
    """The files of the images by their metadata; empty if these do not name them all."""
    files = image.meta.get("filename_or_obj") if isinstance(image, MetaTensor) else None
    if not isinstance(files, (list, tuple)) or not all(isinstance(file, str) for file in files):
        return []
    return list(files)


def _case_names(image: Tensor, files: Sequence[str], iteration: int) -> list[str]:
    """A name for each image: that of its file, or else its position in the run."""
    batch = image.shape[0] if isinstance(image, Tensor) and image.ndim > 0 else 1
    if len(files) == batch:
        return [Source(Path(file)).name for file in files]
    return [f"{index + 1} of batch {iteration}" for index in range(batch)]
