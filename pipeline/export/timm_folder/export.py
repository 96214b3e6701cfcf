"""Export of a linear head and its network as a folder of timm, compared with `predict` before it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from featurecache.base.errors import UsageError
from featurecache.base.files import replacing_folder
from featurecache.base.text import printable
from featurecache.export.references import references_of
from featurecache.export.request import ExportRequest
from featurecache.export.saved_heads import images_of, members_of, specs_of
from featurecache.export.timm_folder.agreement import TimmAgreement, compare_with_predict
from featurecache.export.timm_folder.card import model_card
from featurecache.export.timm_folder.config import config_document
from featurecache.export.timm_folder.network import ONNX, TimmNetwork, linear_layer, timm_network
from featurecache.extract.cache.spec import PRECISIONS
from featurecache.features.new_images import NewImages
from featurecache.predictor import Predictor
from featurecache.runs.head_choice import choose_head, metric_of
from featurecache.runs.record_checks import read_results

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"


@dataclass(frozen=True)
class ExportedFolder:
    """A folder of timm, its size, and how far it agrees with `predict`."""

    path: Path
    n_bytes: int
    head: str
    agreement: TimmAgreement

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "format": "timm", "path": str(self.path), "n_bytes": self.n_bytes, "head": self.head,
            "parity": self.agreement.to_dict(),
        }  # fmt: skip

    def text(self) -> str:
        """Return what was written and how far it agrees with `predict`, as lines."""
        found = self.agreement
        return (
            f"{printable(self.path)}: {printable(self.head)}, a folder of timm, {self.n_bytes / 1e6:.1f} MB\n"
            f"  {found.same:,} of {found.n:,} images of the run have the label of predict, the probabilities differ by "
            f"up to {found.largest:.1e}\n"
            f"  {found.same_by_timm:,} of {found.n:,} by timm's own transform, by up to {found.largest_by_timm:.1e}"
        )


def export_timm(request: ExportRequest, out: Path) -> ExportedFolder:
    """Write a linear head as a folder that `timm.create_model` loads.

    Raises UsageError for a head or a network that timm does not have, PipelineError where the folder does not agree
    with `predict`, and what `ExportRequest.load` raises. Then nothing is written, and what was there stays.
    """
    progress = request.progress
    check_out(out)
    predictor = request.load()
    kind = single_features(predictor)
    linear_layer(predictor)
    references = references_of(predictor, request.needed_images(), progress)
    network = timm_network(predictor, kind, progress.say)
    results = read_results(request.folder)
    row = choose_head(results["heads"], request.head, metric=metric_of(results))
    with replacing_folder(out) as fresh:
        _write(fresh, network, predictor)
        report = partial(progress.counting, "comparing with predict", "images")
        agreement = compare_with_predict(_loaded_by_timm(fresh), predictor.spec, references, report)
        agreement.check()
        card = model_card(
            out.name, row, dataset=results["dataset"]["name"], classes=predictor.classes, agreement=agreement
        )
        (fresh / CARD).write_text(card, encoding="utf-8")
    return ExportedFolder(out, sum(path.stat().st_size for path in out.iterdir()), predictor.name, agreement)


def check_out(out: Path) -> None:
    """Raise UsageError for a folder that holds other things than an exported network."""
    try:
        names = {path.name for path in out.iterdir()}
    except NotADirectoryError:
        raise UsageError(f"'{printable(out)}' is a file: name a folder by --out.") from None
    except FileNotFoundError:
        return
    if names - {CONFIG, TENSORS, CARD}:
        raise UsageError(
            f"The folder '{printable(out)}' holds other files, and the exported one would replace them: name a new "
            "folder by --out."
        )


def single_features(predictor: Predictor) -> NewImages:
    """Return the features of a predictor. Raises UsageError for those of no single network, computed in fp32."""
    specs, name = specs_of(predictor), printable(predictor.name)
    kinds = [kind for member in members_of(predictor) for kind in images_of(member)]
    if len(members_of(predictor)) > 1 or len(kinds) > 1:
        raise UsageError(f"{name} is made of several heads or networks, and this format holds one of each. {ONNX}")
    if specs[0].precision != PRECISIONS[0]:
        raise UsageError(f"{name} takes features in {specs[0].precision}, and this format is fp32. {ONNX}")
    return kinds[0]


def _write(folder: Path, network: TimmNetwork, predictor: Predictor) -> None:
    from safetensors.torch import save_file

    document = config_document(network, predictor.spec.transform, predictor.classes)
    (folder / CONFIG).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in network.module.state_dict().items()}
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    # safetensors keeps its files to their owner.
    (folder / TENSORS).chmod((folder / CONFIG).stat().st_mode)


def _loaded_by_timm(folder: Path) -> Any:
    """Return the network as timm loads it from a folder."""
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
