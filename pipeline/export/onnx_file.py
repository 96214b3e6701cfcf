"""Export of a head of a run as one ONNX file, which is compared with `predict` before it is written."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import PipelineError
from featurecache.base.progress import Progress
from featurecache.base.text import count, printable
from featurecache.export.assembly import assemble, check_transforms, input_shape
from featurecache.export.exported_file import ExportedFile
from featurecache.export.metadata import describe, with_metadata
from featurecache.export.odd_images import write_odd_images
from featurecache.export.parity import LEAST_SAME, Comparison, check, read_otherwise, tolerance_of
from featurecache.export.references import references_of, vectors_of
from featurecache.export.request import ExportRequest
from featurecache.export.saved_heads import head_part, members_of, networks_of, specs_of
from featurecache.extract.engines.export import MAX_BYTES
from featurecache.predictor import Predictor
from featurecache.runs.folder import writing_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featurecache.extract.cache.spec import FeatureSpec
    from featurecache.extract.images.manifest import Manifest


@dataclass(frozen=True)
class ExportedModel:
    """An exported file, its size and what it says of itself; `document` is also in `described`, next to it."""

    path: Path
    described: Path
    n_bytes: int
    document: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values: the document, and the path and size of the file."""
        return {"path": str(self.path), "n_bytes": self.n_bytes, **self.document}

    def text(self) -> str:
        """Return what was written and how far it agrees with `predict`, as lines."""
        parity = self.document["parity"]
        lines = [
            f"{printable(self.path)}: {printable(self.document['head'])}, "
            f"{count(len(self.document['classes']), 'class', 'classes')}, {self.n_bytes / 1e6:.1f} MB, "
            f"{parity['ms_per_image']:.1f} ms an image here",
            f"  takes uint8 ({', '.join(map(str, self.document['input']['shape']))})",
        ]
        for name, what in (("run", "images of the run"), ("odd", "images of unusual kinds")):
            if name in parity:
                found = parity[name]
                lines.append(
                    f"  {found['n_same']:,} of {found['n']:,} {what} have the label of predict, the probabilities "
                    f"differ by up to {found['largest']:.1e}"
                )
        if differ := parity["pillow"]["differ"]:
            lines.append(f"  of these kinds Pillow alone reads other pixels than featurecache: {', '.join(differ)}")
        return "\n".join(lines)


def export_onnx(request: ExportRequest, out: Path, *, is_fixed: bool) -> ExportedModel:
    """Write a head as one ONNX file from pixels to a label, and what it says of itself next to it.

    is_fixed: the file takes images of the size of the network, and does not resize. Where the export is stopped before
    the last of the two is in its place, the file has no document, and never that of another file.
    Raises UsageError for a head that cannot be one file, PipelineError where the file does not agree with `predict`,
    and what `ExportRequest.load` raises. Then nothing is written, and what was there stays.
    """
    described, progress = described_by(out), request.progress
    with writing_file(described) as temporary_document, writing_file(out) as temporary:
        predictor = request.load()
        specs = specs_of(predictor)
        content = model_of(predictor, specs, is_fixed=is_fixed, progress=progress)
        of_run = request.compared_images()
        with tempfile.TemporaryDirectory(prefix="featurecache-") as folder:
            odd = write_odd_images(Path(folder, "odd"))
            sets = {"run": of_run, "odd": odd}
            parity = parity_of(content, predictor, specs, sets, is_fixed=is_fixed, progress=progress)
            parity["pillow"] = plainly_read(odd, specs[0])
        document = describe(
            head=predictor.name, classes=predictor.classes, specs=specs,
            shape=input_shape(specs, is_fixed=is_fixed), parity=parity,
        )  # fmt: skip
        temporary.write_bytes(with_metadata(content, document))
        ExportedFile(temporary.read_bytes())
        temporary_document.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        described.resolve().unlink(missing_ok=True)
    return ExportedModel(out, described, out.stat().st_size, document)


def described_by(out: Path) -> Path:
    """Return the path of the document next to an exported file."""
    return out.with_name(f"{out.name}.json")


def model_of(predictor: Predictor, specs: Sequence[FeatureSpec], *, is_fixed: bool, progress: Progress) -> bytes:
    """Return the model of a predictor, serialized. Raises UsageError or PipelineError where there is none."""
    check_transforms(specs, is_fixed=is_fixed)
    heads = [head_part(member) for member in members_of(predictor)]
    networks = networks_of(predictor, progress.say)
    model = assemble(heads, specs, networks, n_classes=len(predictor.classes), is_fixed=is_fixed)
    if (n_bytes := model.ByteSize()) > MAX_BYTES:
        raise PipelineError(
            f"The head {printable(predictor.name)} and its network have {n_bytes / 1e9:.1f} GB, and an ONNX file holds "
            f"{MAX_BYTES / 1e9:.1f} GB. Export a head on features of a smaller network."
        )
    content: bytes = model.SerializeToString()
    return content


def parity_of(
    content: bytes,
    predictor: Predictor,
    specs: Sequence[FeatureSpec],
    sets: Mapping[str, Manifest | Sequence[Path] | None],
    *,
    is_fixed: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Return how far a file agrees with `predict` on sets of images; None: there are none.

    Raises PipelineError where it does not agree.
    """
    file = ExportedFile(content)
    found: dict[str, Any] = {"least_same": LEAST_SAME, "tolerance": tolerance_of(specs)}
    report = partial(progress.counting, "comparing with predict", "images")
    comparison = Comparison(file, specs, is_fixed=is_fixed, vectors=partial(vectors_of, predictor))
    for name, images in sets.items():
        if images is None:
            continue
        agreement = comparison.agreement(references_of(predictor, images, progress), report=report)
        check(comparison, agreement)
        found[name] = agreement.to_dict()
        found.setdefault("ms_per_image", file.median_ms())
    return found


def plainly_read(paths: Sequence[Path], spec: FeatureSpec) -> dict[str, Any]:
    """Return how many odd images Pillow alone reads to the same pixels, and the names of the others."""
    differ = read_otherwise(paths, spec)
    return {"n": len(paths), "n_same": len(paths) - len(differ), "differ": differ}
