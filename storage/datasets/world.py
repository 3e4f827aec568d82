"""What is the demonstration world? Users, items and ratings from one seed, where taste follows hidden traits.

Every item has one value of each factor in `FACTORS`. The tables show its title only, two words drawn without a look at
the traits; the encyclopedia states the traits in prose. Users rate by trait, so a language model that has read the
encyclopedia knows what the tables cannot tell. A tenth of the items come out late, when most interactions are over.

The bytes are the same on every machine: only IEEE additions, multiplications and comparisons in a fixed order are used,
no BLAS and no transcendental function.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import BaseModel, Field

from storage.datasets import RawTable, RawTables

FACTORS: dict[str, tuple[str, ...]] = {
    "genre": ("mystery", "romance", "fantasy", "horror", "western", "comedy", "thriller", "biography"),
    "mood": ("cheerful", "melancholy", "tense", "serene", "sardonic", "dreamy", "brutal", "tender"),
    "era": ("prehistoric", "medieval", "baroque", "victorian", "wartime", "postwar", "contemporary", "futuristic"),
    "author": ("Okonkwo", "Lindqvist", "Moreau", "Takahashi", "Petrov", "Ferreira", "Haddad", "Sullivan"),
    "theme": ("revenge", "friendship", "survival", "inheritance", "faith", "ambition", "exile", "forgiveness"),
    "setting": ("desert", "island", "harbour", "mountains", "jungle", "metropolis", "monastery", "tundra"),
}
"""The hidden traits: every item has one value of each."""

_FIRST = """
Amber Ashen Azure Barren Bitter Borrowed Brazen Bright Broken Bronze Buried Burning Carved Cobalt Copper Coral Crimson
Crooked Crystal Curious Distant Divided Double Drifting Dusty Early Ebony Eleventh Emerald Empty Endless Faded Falling
Fallow Feathered Final Flaming Fleeting Floating Flying Folded Forgotten Fragile Frozen Gathered Gentle Gilded Glass
Golden Granite Hallowed Hidden Hollow Humble Hungry Idle Indigo Iron Ivory Jagged Jade Kindled Last Laughing Leaden
Linen Little Lonely Lost Lucky Lunar Marble Mended Mirrored Misty Narrow Nameless Nimble Ninth Northern Oaken Obsidian
Opal Open Painted Pale Paper Patient Pewter Polished Quiet Racing Rapid Restless Rising Rolling Rusted Sable Salted
Sapphire Scarlet Second Secret Seventh Shattered Silent Silken Silver Sleeping Slender Smoky Solemn Solitary Southern
Spiral Splendid Spotted Steady Stolen Stubborn Sudden Sunken Swift Tall Tangled Tarnished Third Thirsty Thorny Timid
Tilted Twin Twisted Umber Unbroken Uneven Unfinished Unspoken Upward Velvet Verdant Violet Wandering Waning Waxen
Weathered Whispering White Wicker Wild Winding Winged Wooden Woven Yellow Young
"""
_SECOND = """
Acorn Alder Anchor Anvil Apple Arch Arrow Atlas Badge Ballad Banner Barrel Basin Basket Beacon Bell Bench Birch Blossom
Boat Bottle Bough Branch Bridge Brook Button Cabin Candle Canvas Carriage Cart Casket Cedar Chain Chalice Chime Circle
Clasp Clock Cloud Clover Coin Column Comet Compass Cord Corner Crane Crate Crest Crown Cup Curtain Dial Door Drum Echo
Ember Falcon Feather Fence Fern Fiddle Flame Flag Flask Flute Fountain Gate Glove Goblet Grove Hammer Harp Harvest Hat
Hawk Hearth Hedge Heron Hinge Horn Hourglass Ink Jar Kettle Key Kite Knot Ladder Lamp Lantern Lark Latch Leaf Ledger
Letter Lily Locket Loom Lute Magnet Mantle Map Mask Meadow Medal Melody Mill Mirror Needle Nest Note Oar Orchard Organ
Otter Page Parcel Pearl Pebble Pendulum Petal Pillar Pipe Plough Pocket Quill Quilt Raft Raven Reed Ribbon Riddle Ring
Road Rope Rudder Saddle Sail Scale Scroll Shell Shutter Signal Sparrow Spindle Spoon Stair Staple Star Stone Stream
Swallow Table Tapestry Thimble Thistle Thread Tide Tower Trellis Trumpet Tunnel Umbrella Urn Vase Violin Wagon Wall
Wheel Whistle Willow Window Wreath
"""
FIRST_WORDS, SECOND_WORDS = _FIRST.split(), _SECOND.split()
"""What titles are made of. No word of these is the name of a trait."""
REGIONS = ("north", "east", "south", "west")
AGES = ("under 25", "25-34", "35-49", "50 and over")

START, YEAR = 1_704_067_200, 31_536_000
"""Midnight UTC of 1 January 2024, and the seconds of the year in which everything happens."""
COLD_FROM = 0.84
"""Share of the year after which the late tenth of the items begins to come out."""
TASTE, QUALITY, LEANING, NOISE = 0.5, 0.45, 0.3, 0.7
"""What a rating is made of: trait by trait liking, what everybody likes, how kindly one rates, and chance."""
PULL, NEWNESS = 0.25, 3.0
"""How much likelier one comes across what one likes, and what has just come out."""
RATING_STEPS = (-1.5, -0.7, 0.0, 0.9)
SCHOOLS = 4
"""Tastes run in schools, as tastes do: everybody leans to one, a little to another, and has some whims."""

PROSE = (
    "{title} is a {genre} novel by {author}. It is {mood} in mood and takes place in the {era} era, in the {setting}. "
    "At heart it is about {theme}.",
    "{title}, by {author}, tells a {mood} story of {theme}. It is a {genre} novel of the {era} era with the {setting} "
    "as its setting.",
    "{title} is set in the {setting} of the {era} era. {author} wrote it as a {genre} novel; its theme is {theme} and "
    "its mood is {mood}.",
    "{title}: a {mood} novel about {theme}. Readers of {genre} know {author}, who wrote it, for the {setting} and the "
    "{era} era.",
)


class Config(BaseModel, extra="forbid", frozen=True):
    """One seed decides everything; a user has about 60 interactions."""

    seed: int = Field(default=7, ge=0)
    users: int = Field(default=1000, ge=1, le=50_000)
    items: int = Field(default=800, ge=50, le=10_000)


@dataclass(frozen=True)
class Items:
    """What is true of every item. The tables show nothing of it but `titles`."""

    titles: list[str]
    traits: np.ndarray  # int64 [items, factors]: place of the item's value in FACTORS
    quality: np.ndarray  # float64 [items]: how much everybody likes it, unit variance
    popularity: np.ndarray  # float64 [items]: how often it is come across
    released: np.ndarray  # float64 [items]: share of the year; 0 for what was there before

    @property
    def cold(self) -> np.ndarray:
        """Whether an item only comes out late; bool [items]."""
        return self.released >= COLD_FROM


@dataclass(frozen=True)
class Users:
    """What is true of every user. Only `region` and `age` are shown, which have nothing to do with taste."""

    taste: np.ndarray  # float64 [users, factors, values]: 0 for what neither pleases nor repels
    leaning: np.ndarray  # float64 [users]: how kindly one rates
    activity: np.ndarray  # int64 [users]: number of interactions
    arrival: np.ndarray  # float64 [users]: share of the year
    stay: np.ndarray  # float64 [users]: share of the year
    region: np.ndarray  # int64 [users]
    age: np.ndarray  # int64 [users]


def _bell(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Zero mean, unit variance and the shape of a bell: four uniform draws, added in a fixed order."""
    u = rng.random((4, *shape))
    return (u[0] + u[1] + u[2] + u[3] - 2.0) * 1.7320508075688772


def draw_items(config: Config) -> Items:
    """The items of `config`, in the order of their ids."""
    rng = np.random.default_rng([config.seed, 1])
    words = rng.permutation(len(FIRST_WORDS) * len(SECOND_WORDS))[: config.items]
    titles = [f"{FIRST_WORDS[w // len(SECOND_WORDS)]} {SECOND_WORDS[w % len(SECOND_WORDS)]}" for w in words]
    traits = np.stack([rng.integers(len(values), size=config.items) for values in FACTORS.values()], axis=1)
    released = np.maximum(0.0, rng.random(config.items) * 1.4 - 0.8)
    late = rng.permutation(config.items)[: config.items // 10]
    released[late] = COLD_FROM + rng.random(len(late)) * 0.1
    rare = rng.random(config.items)
    return Items(titles, traits, _bell(rng, config.items), 0.2 + rare * rare * 1.8, released)


def draw_users(*, seed: int, users: int, schools: int = SCHOOLS) -> Users:
    """`users` people of their own seed, their tastes leaning to `schools` schools of the same seed."""
    rng = np.random.default_rng([seed, 2])
    school, whims = _tastes(rng, schools), _tastes(rng, users)
    first, second = rng.integers(schools, size=users), rng.integers(schools, size=users)
    taste = 0.8 * school[first] + 0.2 * school[second] + 0.2 * whims
    activity = 10 + (rng.random(users) * rng.random(users) * 198).astype(np.int64)
    arrival = rng.random(users) * 0.9
    stay = np.minimum(0.08 + rng.random(users) * 0.5, 1.0 - arrival)
    region, age = rng.integers(len(REGIONS), size=users), rng.integers(len(AGES), size=users)
    return Users(taste, _bell(rng, users), activity, arrival, stay, region, age)


def _tastes(rng: np.random.Generator, n: int) -> np.ndarray:
    """`n` tastes that like three values of every factor and dislike three, some factors more than others."""
    n_values = len(FACTORS["genre"])
    order = np.argsort(rng.random((n, len(FACTORS), n_values)), axis=2)
    weight = 0.4 + rng.random((n, len(FACTORS), 1)) * 1.2
    return weight * ((order < 3).astype(np.float64) - (order >= n_values - 3))


def true_preference(items: Items, users: Users) -> np.ndarray:
    """How much every user likes every item before chance has its say: float64 [users, items].

    The oracle of the tests: no model may see it.
    """
    match = np.zeros((len(users.taste), len(items.titles)))
    for factor in range(items.traits.shape[1]):
        match += users.taste[:, factor, items.traits[:, factor]]
    return TASTE * match + QUALITY * items.quality + LEANING * users.leaning[:, None]


def rate(liking: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Ratings 1-5, int64, of items liked so much, given noise of unit variance."""
    return 1 + np.searchsorted(RATING_STEPS, liking + NOISE * noise)


def simulate(items: Items, users: Users, *, seed: int) -> pl.DataFrame:
    """Columns user, item (places), rating 1-5, timestamp (seconds), all Int64: user by user, in time order.

    A user comes across an item by its popularity and newness and, weakly, by taste, and never twice.
    """
    rng = np.random.default_rng([seed, 3])
    liking = true_preference(items, users)
    chances = items.popularity * np.maximum(0.3, 1.0 + PULL * liking)
    parts = []
    for user, activity in enumerate(users.activity):
        n = min(int(activity), len(items.titles) // 4)
        times = np.sort(users.arrival[user] + rng.random(n) * users.stay[user])
        luck, noise = rng.random(n), _bell(rng, n)
        unseen, chosen = chances[user].copy(), np.empty(n, np.int64)
        for k in range(n):
            age = times[k] - items.released
            new = (age < 0.08) & (items.released > 0)
            weights = np.cumsum(unseen * (age >= 0) * (1.0 + NEWNESS * new))
            chosen[k] = np.searchsorted(weights, luck[k] * weights[-1], side="right")
            unseen[chosen[k]] = 0.0
        rating = rate(liking[user, chosen], noise)
        seconds = START + (times * YEAR).astype(np.int64)
        parts.append(pl.DataFrame({"user": np.full(n, user), "item": chosen, "rating": rating, "timestamp": seconds}))
    return pl.concat(parts)


def read(config: Config) -> RawTables:
    """The world as its tables show it: titles, region and age, and who rated what when."""
    items, users = draw_items(config), draw_users(seed=config.seed, users=config.users)
    rows = simulate(items, users, seed=config.seed).sort("timestamp", "user", maintain_order=True)
    interactions = rows.select(
        user_id=_ids("u", rows["user"]),
        item_id=_ids("n", rows["item"]),
        rating=pl.col("rating").cast(pl.Float32),
        timestamp="timestamp",
    )
    people = {
        "user_id": _ids("u", pl.Series(range(config.users))),
        "region": [REGIONS[region] for region in users.region],
        "age": [AGES[age] for age in users.age],
    }
    return RawTables(
        name="world",
        domain="world",
        time_format="unix_s",
        interactions=RawTable(interactions),
        items=RawTable(encyclopedia(config).select("item_id", "title")),
        users=RawTable(pl.DataFrame(people)),
        rating_range=(1.0, 5.0),
    )


def encyclopedia(config: Config) -> pl.DataFrame:
    """Columns item_id, title, text, one row an item: what the world's books of reference say of it, in prose."""
    items = draw_items(config)
    rng = np.random.default_rng([config.seed, 4])
    texts = [
        PROSE[style].format(title=title, **named_traits(traits))
        for title, traits, style in zip(
            items.titles, items.traits, rng.integers(len(PROSE), size=config.items), strict=True
        )
    ]
    ids = _ids("n", pl.Series(range(config.items)))
    return pl.DataFrame({"item_id": ids, "title": items.titles, "text": texts})


def named_traits(traits: np.ndarray) -> dict[str, str]:
    """The words of one item's traits, by factor."""
    return {name: values[place] for (name, values), place in zip(FACTORS.items(), traits, strict=True)}


def _ids(letter: str, places: pl.Series) -> pl.Series:
    return letter + (places + 1).cast(pl.String).str.zfill(5)
