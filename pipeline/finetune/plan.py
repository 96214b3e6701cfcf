"""The plan of a fine-tune."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from featurecache.extract.images.augmentation import VIEW_KINDS, View
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.job.settings import Settings
from featurecache.finetune.recipe import Recipe

NO_VIEWS = "none"
# Here there is nothing to draw: no view, or one.
ONE_WAY = (NO_VIEWS, VIEW_KINDS[0])
# Cached views cost time and disk once.
CACHED_VIEWS = 4
# Half the disk of float32.
MAP_DTYPE = "float16"


@dataclass(frozen=True)
class FinetunePlan:
    """The arguments of a fine-tune.

    source: the run that it starts from. head: one of its heads, "random", or None for the best on val that is layers.
    size: another side of the input; None for the run's. views: how many besides the image itself; None for the usual.
    dtype: of the maps; None for the usual. disk: bytes that they may take; None for half of what is free.
    memory: bytes of maps held in memory; None for half of it. out_is_given: whether the user named the run folder.
    options: those of the command as TOML, a file of the run.
    """

    source: Path
    cache_root: Path
    out: Path
    recipe: Recipe = field(default_factory=Recipe)
    head: str | None = None
    backbone: str | None = None
    unfreeze: str | None = None
    augment: str = NO_VIEWS
    views: int | None = None
    size: int | None = None
    dtype: str | None = None
    disk: float | None = None
    memory: float | None = None
    device: str = "auto"
    engine: str = "auto"
    max_pixels: int = MAX_PIXELS
    resume: bool = False
    out_is_given: bool = True
    options: str = ""

    @property
    def settings(self) -> Settings:
        """Engine and device of the frozen part."""
        return Settings(self.engine, self.device, max_pixels=self.max_pixels)

    @property
    def map_dtype(self) -> str:
        """The dtype of the maps."""
        return self.dtype or MAP_DTYPE

    @property
    def map_options(self) -> list[str]:
        """The options given that are about maps only."""
        return [f"--{name}" for name in ("disk", "memory", "dtype") if getattr(self, name) is not None]

    @property
    def n_views(self) -> int:
        """The number of views besides the image itself."""
        if self.augment == NO_VIEWS:
            return 0
        if self.augment == VIEW_KINDS[0]:
            return 1
        return CACHED_VIEWS if self.views is None else self.views

    @property
    def view_list(self) -> list[View | None]:
        """The image itself and its views, by number."""
        seed = 0 if self.augment == VIEW_KINDS[0] else self.recipe.seed  # a mirror image is the same whatever the seed
        return [None, *(View(self.augment, seed, number + 1) for number in range(self.n_views))]
