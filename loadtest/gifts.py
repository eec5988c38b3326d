"""Plausible gifts: collections with models, patterns and backdrops, the rarer the fewer."""

import random
from typing import Any

COLLECTIONS = (
    "Amber Lantern", "Brass Compass", "Cedar Flute", "Desert Rose", "Ember Fox", "Falcon Feather", "Glass Camel",
    "Honey Jar", "Ivory Dice", "Jade Teapot", "Kite of Dawn", "Lucky Coin", "Moon Pomegranate", "Night Jasmine",
)  # fmt: skip
MODELS = (
    ("Plain", 240), ("Polished", 180), ("Striped", 140), ("Gilded", 110), ("Enamelled", 90), ("Carved", 75),
    ("Mosaic", 60), ("Smoked", 45), ("Mirrored", 30), ("Starlit", 18), ("Sultan's", 9), ("One of a Kind", 3),
)  # fmt: skip
PATTERNS = (
    ("Dots", 200), ("Waves", 180), ("Arches", 160), ("Vines", 140), ("Stars", 120), ("Tiles", 100), ("Scales", 60),
    ("Comets", 30), ("Crescents", 10),
)  # fmt: skip
BACKDROPS = (
    ("Sand", 220, 0xD9B380, 0x8C6239), ("Sea", 190, 0x5DA9E9, 0x1B4F8F), ("Mint", 170, 0x9AE6B4, 0x2F855A),
    ("Dusk", 150, 0xB794F4, 0x553C9A), ("Brick", 120, 0xE07A5F, 0x8D3B2A), ("Saffron", 90, 0xF6C445, 0xB7791F),
    ("Onyx", 45, 0x4A4A4A, 0x111111), ("Pearl", 15, 0xF7F3E8, 0xC9BFA5),
)  # fmt: skip


def gift(chance: random.Random, gift_id: int, num: int) -> dict[str, Any]:
    """The facts of one gift as the intake feed reports them; a `num` is used once."""
    collection = chance.choice(COLLECTIONS)
    model, model_permille = chance.choices(MODELS, [weight for _, weight in MODELS])[0]
    pattern, pattern_permille = chance.choices(PATTERNS, [weight for _, weight in PATTERNS])[0]
    backdrop, backdrop_permille, center, edge = chance.choices(BACKDROPS, [each[1] for each in BACKDROPS])[0]
    return {
        "id": gift_id,
        "collection": collection,
        "num": num,
        "model": model,
        "pattern": pattern,
        "backdrop": backdrop,
        "model_permille": model_permille,
        "pattern_permille": pattern_permille,
        "backdrop_permille": backdrop_permille,
        "center_color": center,
        "edge_color": edge,
        "pattern_color": edge,
        "text_color": 0xFFFFFF,
        "slug": f"{collection.replace(' ', '')}-{num}",
        "availability_total": 10_000,
    }
