"""report.html: a run folder as one page that needs nothing but a browser."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import ExtractError, PipelineError
from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.classify.evaluation.criteria import CRITERIA
from featurecache.evaluate.rare_classes import left_out_count, left_out_of
from featurecache.extract.images.read import read_images
from featurecache.extract.images.read_options import ReadOptions
from featurecache.features.feature_arrays import return_freed_memory
from featurecache.report.pictures import contact_sheet, data_uri, read_thumbnails
from featurecache.report.sections import details as closeup
from featurecache.report.sections import galleries, reproduce
from featurecache.report.sections import intervals as comparison
from featurecache.report.sections.audit import read_audit
from featurecache.report.sections.labels import learning_caption, learning_figure
from featurecache.report.sections.map import MapPoints, laying_out, map_caption, map_points, map_values
from featurecache.report.sections.table import scoreboard
from featurecache.report.sections.tsne import LEAST_POINTS
from featurecache.runs.documents import Dataset
from featurecache.runs.folder import PREDICTIONS_FILE, REPORT_FILE, RESULTS_FILE, writing_file
from featurecache.runs.head_choice import metric_of
from featurecache.runs.moved import record_of_now
from featurecache.runs.reading import read_json
from featurecache.runs.record import Record, read_record
from featurecache.runs.result_notes import paired_test_name, units_text
from featurecache.runs.split_list import ListedImage

if TYPE_CHECKING:
    import jinja2

# Pictures on the map and in the galleries: sharp at the size they are shown, and 2,000 of them below 4 MB.
MAP_SIDE, GALLERY_SIDE = 80, 112
# A report should not take longer than fitting a head.
PICTURE_SECONDS, TSNE_SECONDS = 8.0, 15.0
# Galleries carry at most so many different pictures, about 2 MB.
MAX_PICTURES = 500
LINKS = (("heads", "Heads"), ("close", "Close up"), ("settings", "Settings"), ("labels", "Labels"), ("map", "Map"),
         ("images", "Images"), ("again", "Reproduce"), ("reading", "How to read it"))  # fmt: skip
SCRIPTS = ("page.js", "gallery.js", "map.js")
READING = (
    "Start with the marked heads: by the paired test they do not differ significantly from the best, whether or "
    "not their intervals overlap.",
    "Accuracy counts every image alike, balanced accuracy every class alike: a gap means that rare classes do worse.",
    "The confusion matrix shows which classes are mistaken for which. Such pairs need more images or better labels.",
    "The reliability diagram shows whether a probability of 90 % is right nine times in ten. It matters where "
    "decisions depend on probabilities.",
    "Class by class: low recall means missed images, low precision false alarms; with few test images both are "
    "uncertain.",
    "The settings: where a curve still rises at its end, the grid is too short.",
    "The map: clouds that touch are classes that these features confuse; far-away single points may be outliers.",
    "The most confident errors are wrong labels or classes that the head has not learned. Look at the images.",
    "Hyper-parameters were chosen on val, the test images were used once. Choosing by this page uses them again.",
    "Intervals hold for other images of the same kind, not for another camera, place or year.",
)


@dataclass
class Page:
    """What the template shows, collected as it is computed."""

    record: Record
    listed: Mapping[str, ListedImage]
    galleries: list[galleries.Gallery] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    leakage: list[str] = field(default_factory=list)
    heads: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    map: dict[str, Any] | None = None
    map_caption: str = ""
    pictures: dict[str, str] = field(default_factory=dict)


def write_report(
    run_folder: Path, *, out: Path | None = None, images: str | None = None, cache_root: Path | None = None
) -> Path:
    """Write the report of a finished run folder to `out` (default: report.html in it) and return its place.

    images, cache_root: where they are now, if not where the run found them. What is missing there, or in the run
    folder, is left out with a sentence on the page. Raises UsageError where the folder is no run, PipelineError where
    it is damaged or the page cannot be written.
    """
    place = run_folder / REPORT_FILE if out is None else out
    read_json(run_folder / RESULTS_FILE)  # whatever is wrong with the run is said before anything about the place
    with writing_file(place) as file:
        file.write_text(render(run_folder, images=images, cache_root=cache_root), encoding="utf-8")
    return place


def render(run_folder: Path, *, images: str | None = None, cache_root: Path | None = None) -> str:
    """The page as text."""
    listed = galleries.read_listed(run_folder)
    record = record_of_now(run_folder, read_record(run_folder), listed, images=images, cache_root=cache_root)
    page = Page(record, listed)
    found = (
        map_points(record, Path(record.config["cache"]))
        if record.answers
        else f"{PREDICTIONS_FILE} is gone: no head can be looked at closely."
    )
    if isinstance(found, str):
        page.notes.append(found)
        _add_contents(page, run_folder, None)
    else:
        with laying_out(found) as layouts:
            started = time.monotonic()
            _add_contents(page, run_folder, found)
            laid_out = layouts(TSNE_SECONDS - (time.monotonic() - started))
        if len(laid_out.layouts) == 1 and len(found.rows) >= LEAST_POINTS:
            page.notes.append(f"t-SNE was not ready after {TSNE_SECONDS:.0f} s, so the map has PCA only.")
        assert page.map is not None
        page.map |= map_values(record, found.rows, laid_out)
        page.map_caption = map_caption(record, found, laid_out)
    return_freed_memory()  # that of a list of all images
    return _fill_template(page)


def _add_contents(page: Page, run_folder: Path, found: MapPoints | None) -> None:
    """All figures, galleries and pictures but the places on the map."""
    record = page.record
    units = galleries.test_units(record, page.listed)
    for number in range(len(record.answers)):
        head = closeup.close_up(record, number, units)
        head["reliability"]["caption"] += closeup.tempered(record.heads[number])
        page.heads.append({**head, "errors": galleries.confident_errors(record, number)})
    page.figures["intervals"] = comparison.interval_figure(record)
    audited = read_audit(run_folder, record.config)
    page.leakage, page.notes = audited.leakage, page.notes + audited.notes
    doubts = galleries.agreed_doubts(record) if record.answers else None
    copies = None if audited.galleries else galleries.copies(page.listed)  # the audit looks for them too
    page.galleries += [each for each in (doubts, copies, *audited.galleries) if each is not None]
    _add_pictures(page, reproduce.images_of(record.config), found)


def _add_pictures(page: Page, images: str, found: MapPoints | None) -> None:
    own = [page.heads[page.record.chosen]["errors"]] if page.heads else []
    shown = [*own, *page.galleries, *(head["errors"] for head in page.heads)]
    names = list(dict.fromkeys(name for gallery in shown for card in gallery["cards"] for name in card["names"]))
    points = [] if found is None else [page.record.names[i] for i in found.rows]
    wanted = {*names[:MAX_PICTURES], *points}
    if reproduce.is_on_vectors(page.record.config):
        page.map = None if found is None else {"sheet": None}
        page.notes.append("Pictures: this run is on vectors from a file, which have none.")
        return
    options = reproduce.reading_of_pictures(page.record.config)
    files, digests = (
        _files(images, options, wanted),
        {name: page.listed[name].digest for name in wanted & page.listed.keys()},
    )
    deadline = time.monotonic() + PICTURE_SECONDS
    small = read_thumbnails(names[:MAX_PICTURES], files, digests, side=GALLERY_SIDE, deadline=deadline)
    page.pictures = {name: data_uri(picture) for name, picture in small.pictures.items()}
    if len(names) > MAX_PICTURES:
        page.notes.append(
            f"{len(names) - MAX_PICTURES:,} pictures of the galleries, of which there are at most {MAX_PICTURES}."
        )
    if found is not None:
        on_map = read_thumbnails(points, files, digests, side=MAP_SIDE, deadline=deadline)
        sheet = contact_sheet(points, on_map)
        page.map = {"sheet": None if sheet is None else asdict(sheet)}
        small.absent |= on_map.absent
    page.notes += small.notes(PICTURE_SECONDS)


def _files(images: str, options: ReadOptions, wanted: Set[str]) -> dict[str, str]:
    """The path of each image that is wanted by the name that the run knows it by; empty where the images are gone."""
    with contextlib.suppress(ExtractError, OSError):
        names = ((printable(sample.name), sample.path) for sample in read_images(images, options).samples)
        return {name: path for name, path in names if name in wanted}
    return {}


@cache
def _template() -> jinja2.Template:
    """The page's template; to compile it takes as long as to fill it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("featurecache.report", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("page.html.jinja")


def _fill_template(page: Page) -> str:
    from plotly.offline import get_plotlyjs

    record, data, metric = page.record, page.record.results["dataset"], metric_of(page.record.results)
    sweeps = comparison.sweep_figures(record)
    page.figures |= {f"sweep-{i}": sweep["figure"] for i, sweep in enumerate(sweeps)}
    learning = learning_figure(record)
    if learning is not None:
        page.figures["learning"] = learning
    given = reproduce.given(record.config)
    present = {"close": page.heads, "settings": given or sweeps, "labels": learning, "map": page.map,
               "images": page.galleries}  # fmt: skip
    text = _template().render(
        title=data["name"],
        facts=_facts(data, record.results["created"]),
        verdict=" ".join([comparison.verdict(record), *record.results.get("transfer", [])]),
        warnings=[*page.leakage, *_warnings(record)],
        heads=record.heads,
        head_titles=record.titles,
        chosen=record.chosen,
        close_up=bool(page.heads),
        links=[link for link in LINKS if present.get(link[0], True)],
        test_name=f"{paired_test_name(data, metric)}, Holm's correction, 5 %",
        metric=CRITERIA[metric].title,
        swept_metric=comparison.swept_by(record).title,
        table=scoreboard(record),
        sweeps=sweeps,
        given=given,
        learning=learning_caption(record) if learning else None,
        map=page.map,
        map_caption=page.map_caption,
        galleries=page.galleries,
        commands=reproduce.commands(record.config, record.results.get("finetune")),
        versions="Made with " + ", ".join(f"{name} {v}" for name, v in record.results["versions"].items()) + ".",
        features=reproduce.feature_lines(record.results),
        notes=page.notes,
        reading=READING,
        values=_values(page),
        css=_source("page.css"),
        plotly=get_plotlyjs(),
        scripts=[_source(name) for name in SCRIPTS],
    )
    return text.encode("utf-8", "backslashreplace").decode()


def _values(page: Page) -> dict[str, Any]:
    return {
        "chosen": page.record.chosen,
        "titles": page.record.titles,
        "classes": page.record.classes,
        "heads": page.heads,
        "figures": page.figures,
        "map": page.map,
        "pictures": page.pictures,
    }


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _facts(data: Dataset, created: str) -> str:
    n_classes = len(data["classes"])
    refused = f", {data['skipped']:,} refused" if data["skipped"] else ""
    left_out = left_out_of(data)
    refused += f", {left_out_count(left_out)} left out as too rare" if left_out else ""
    units = units_text(data)
    by_units = f", intervals and tests by {units}" if units else ""
    return (
        f"{n_classes:,} classes; {data['n_train']:,} train, {data['n_val']:,} val and {data['n_test']:,} test images"
        f"{by_units}{refused}; {created.replace('T', ' ').replace('Z', ' UTC')}"
    )


def _warnings(record: Record) -> list[str]:
    """What makes the numbers less than they seem."""
    n_test, n_classes = record.results["dataset"]["n_test"], len(record.classes)
    found = list(record.results.get("warnings", []))
    if record.results.get("interrupted"):
        found.append("This run was interrupted: not all that was asked for is in it.")
    if n_test < 10 * n_classes:
        found.append(
            f"There are {n_test:,} test images for {n_classes:,} classes: numbers on single classes mean little."
        )
    return found


def report_on(run: Path, images: str, cache_root: Path, progress: Progress) -> bool:
    """Write report.html into the finished run, or say why not; False when the user interrupts."""
    try:
        write_report(run, images=images, cache_root=cache_root)
    except (PipelineError, OSError) as error:
        progress.say(f"No report: {error}")
    except KeyboardInterrupt:
        progress.say(f"Stopped: the run is whole but for its report; 'featurecache report {run}' writes it.")
        return False
    return True
