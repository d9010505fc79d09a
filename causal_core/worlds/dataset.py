"""Training pictures of a world and the values behind them, rendered once into a cache folder.

Half of the scenes follow the world's own mechanisms; a quarter is drawn under random interventions and a quarter with
all variables independent, so that the model also learns combinations that the world would hardly ever show. Shards
appear one by one and are complete as soon as they are visible: training can start on the first while others render.

    python -m causal_core.worlds.dataset --world cottage --size 64 --count 50000
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import cache_dir
from . import World, get_world

log = logging.getLogger("counterfact")

SHARD = 1000
# Of the way scenes are drawn; that of a world is its own.
VERSION = "2"
# Benchmarks take small seeds: training scenes start far above them.
FIRST_SEED = 1_000_000_000


class SceneData:
    """The rendered scenes of a world that are present in the cache.

    Parameters
    ----------
    world, size, count, seed : what to render; together they name the folder
    """

    def __init__(self, world: World, size: int, count: int = 50_000, seed: int = 0) -> None:
        self.world, self.size, self.count, self.seed = world, size, count, seed
        self.names = [concept.name for concept in world.concepts()]
        described = [world.name, world.version, VERSION, size, count, seed]
        digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:8]
        self.key = f"{world.name}-{world.version}-{size}-{count}-{digest}"
        self.folder = cache_dir() / "data" / self.key
        self._images: list[np.ndarray] = []
        self._values: list[list[dict[str, str]]] = []
        self.refresh()

    def __len__(self) -> int:
        return sum(map(len, self._values))

    @property
    def shards(self) -> int:
        """Number of shards when complete."""
        return -(-self.count // SHARD)

    def _paths(self, shard: int) -> tuple[Path, Path]:
        return self.folder / f"{shard:05d}.npy", self.folder / f"{shard:05d}.json"

    def refresh(self) -> int:
        """Take in shards that have been completed since; returns the number of scenes."""
        while len(self._images) < self.shards:
            images, values = self._paths(len(self._images))
            if not values.exists():
                break
            self._values.append(json.loads(values.read_text("utf-8")))
            self._images.append(np.load(images, mmap_mode="r"))
        return len(self)

    def render(self, shards: int | None = None) -> None:
        """Render the first `shards` shards, or all; those that exist are kept, so it can be stopped at any time."""
        for shard in range(self.shards if shards is None else min(shards, self.shards)):
            self.render_shard(shard)
        self.refresh()

    def render_shard(self, shard: int) -> None:
        """Render the scenes of one shard, if it is not there."""
        paths = self._paths(shard)
        if paths[1].exists():
            return
        scenes = [self.scene(i) for i in range(shard * SHARD, min(self.count, (shard + 1) * SHARD))]
        images = np.stack([self.world.render(scene, self.size) for scene in scenes])
        parts = [path.with_name(f"{path.name}.{os.getpid()}.part") for path in paths]
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(parts[0], "wb") as file:
            np.save(file, images)
        values = [{name: scene.values[name] for name in self.names} for scene in scenes]
        parts[1].write_text(json.dumps(values), "utf-8")
        # The values last: they are the sign that a shard is complete.
        for part, path in zip(parts, paths):
            os.replace(part, path)
        log.info("rendered shard %d of %d", shard + 1, self.shards)

    def scene(self, index: int) -> Any:
        """The scene of an index, the same in every run."""
        seed = FIRST_SEED + self.seed * 100_000_000 + index
        if index % 4 == 1:
            return self.world.sample(seed, mode="uniform")
        return self.world.sample(seed, do=self._do(index, seed))

    def _do(self, index: int, seed: int) -> dict[str, str]:
        """The random intervention of every fourth scene."""
        if index % 4 != 3:
            return {}
        rng, concepts = np.random.default_rng(seed), self.world.concepts()
        chosen = [concept for concept in concepts if rng.random() < 1.5 / len(self.names)]
        return {c.name: str(rng.choice(c.domain)) if c.domain else repr(rng.uniform(*c.interval)) for c in chosen}

    def intervened(self, index: int) -> frozenset[str]:
        """Variables of the scene of an index that do not follow their mechanisms."""
        if index % 4 == 1:
            return frozenset(self.names)
        return frozenset(self._do(index, FIRST_SEED + self.seed * 100_000_000 + index))

    def values(self, index: int) -> dict[str, str]:
        """The values of the concepts of a scene that is present, in caption order."""
        shard, place = divmod(index, SHARD)
        return self._values[shard][place]

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, list[dict[str, str]]]:
        """Pictures, uint8 [B, size, size, 3], and the values of their concepts in caption order."""
        places = [divmod(int(i), SHARD) for i in indices]
        return np.stack([self._images[s][i] for s, i in places]), [self._values[s][i] for s, i in places]


def render_all(world: str, size: int, count: int, seed: int) -> None:
    """Render a whole data set at low priority; made to run as a process of its own."""
    if hasattr(os, "nice"):
        os.nice(5)
    try:
        SceneData(get_world(world), size, count, seed).render()
    except KeyboardInterrupt:
        log.info("rendering stopped; the complete shards are kept")


def main(arguments: Sequence[str] | None = None) -> None:
    """Render from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="cottage")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    render_all(args.world, args.size, args.count, args.seed)


if __name__ == "__main__":
    main()
