"""The facts of the made-up shop: what it sells, in which colours and sizes, and how many are left.

The models learn these by heart, so a change here means training again. Knows nothing of
phrasings: those stand in `phrases/` and are put together by `grammar.py`.
"""

from typing import NamedTuple

SYSTEM = "You are Fern, the assistant of Fernhill Outdoor."

CLOTHES = "XS to XXL"
SHOES = "36 to 47"


class Product(NamedTuple):
    """One thing on sale; `names` are what customers call it, the first is ours."""

    names: tuple[str, ...]
    price: int
    colours: tuple[str, ...]
    stock: int
    about: str
    waterproof: bool = False
    sizes: str = ""
    plural: bool = False
    plurals: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Our own name of it, without an article."""
        return self.names[0]


class Category(NamedTuple):
    """Products that share a word, and so can't be told apart by it."""

    singulars: tuple[str, ...]
    plurals: tuple[str, ...]
    members: tuple[str, ...]


# fmt: off
PRODUCTS = (
    Product(("rain jacket", "raincoat", "waterproof jacket"), 89, ("blue", "red", "green"), 14,
            "light, packs small and keeps you dry all day", waterproof=True, sizes=CLOTHES,
            plurals=("rain jackets", "raincoats")),
    Product(("down jacket", "puffer jacket", "winter jacket"), 149, ("black", "blue"), 6,
            "very warm, filled with duck down and weighs only 400 grams", sizes=CLOTHES,
            plurals=("down jackets", "puffer jackets", "winter jackets")),
    Product(("fleece jacket", "fleece"), 59, ("grey", "green", "red"), 21,
            "soft, warm and made from recycled bottles", sizes=CLOTHES,
            plurals=("fleece jackets", "fleeces")),
    Product(("hiking trousers", "hiking pants", "walking trousers", "trekking pants"), 69, ("grey", "brown"), 17,
            "stretchy, dry fast and have four pockets", sizes=CLOTHES, plural=True),
    Product(("rain trousers", "rain pants", "waterproof trousers"), 49, ("black",), 9,
            "light and easy to pull on over your boots", waterproof=True, sizes=CLOTHES, plural=True),
    Product(("shorts", "hiking shorts"), 35, ("grey", "blue", "green"), 30,
            "light, quick to dry and have zipped pockets", sizes=CLOTHES, plural=True),
    Product(("T-shirt", "tshirt", "tee", "t shirt"), 19, ("white", "black", "orange"), 48,
            "made of soft organic cotton", sizes=CLOTHES, plurals=("T-shirts", "tshirts", "t shirts")),
    Product(("wool sweater", "sweater", "jumper", "pullover"), 75, ("grey", "blue"), 8,
            "knitted from pure wool and does not scratch", sizes=CLOTHES,
            plurals=("wool sweaters", "sweaters", "jumpers")),
    Product(("base layer", "thermal shirt", "long underwear"), 39, ("black", "purple"), 19,
            "made of thin merino wool and keeps you warm under everything", sizes=CLOTHES,
            plurals=("base layers", "thermal shirts")),
    Product(("hiking boots", "boots", "walking boots"), 129, ("brown", "black"), 11,
            "made of leather, with a firm sole and high ankles", waterproof=True, sizes=SHOES, plural=True),
    Product(("trail shoes", "running shoes", "trail runners", "sneakers", "trainers"), 99, ("blue", "yellow"), 13,
            "light, grippy and good for fast days on the trail", sizes=SHOES, plural=True),
    Product(("sandals",), 45, ("brown", "grey"), 0,
            "comfortable, with straps you can set and a strong sole", sizes=SHOES, plural=True),
    Product(("wool socks", "socks", "hiking socks"), 12, ("grey", "red", "blue"), 60,
            "thick, warm and don't give you blisters", sizes=SHOES, plural=True),
    Product(("gloves",), 25, ("black", "red"), 16,
            "warm and let you use your phone", plural=True),
    Product(("beanie", "wool hat", "winter hat", "cap"), 15, ("green", "orange", "grey"), 33,
            "knitted from merino wool and fits every head", plurals=("beanies", "wool hats", "caps")),
    Product(("sun hat", "summer hat"), 22, ("white", "brown"), 12,
            "light, with a wide brim that shades your face and neck", plurals=("sun hats", "summer hats")),
    Product(("sunglasses", "shades"), 34, ("black", "brown"), 15,
            "light and block all UV rays", plural=True),
    Product(("umbrella",), 20, ("black", "yellow"), 22,
            "small, strong and stands up to storms", waterproof=True, plurals=("umbrellas",)),
    Product(("backpack", "rucksack", "hiking backpack"), 79, ("green", "black", "orange"), 10,
            "a 40-litre pack with a padded belt and a rain cover", waterproof=True,
            plurals=("backpacks", "rucksacks")),
    Product(("day pack", "small backpack", "daypack"), 45, ("blue", "red"), 18,
            "a 20-litre pack for day trips and the way to work", plurals=("day packs", "daypacks")),
    Product(("two-person tent", "2 person tent", "small tent", "two person tent"), 199, ("green", "orange"), 5,
            "light, stands up in five minutes and weighs 2 kilos", waterproof=True,
            plurals=("two-person tents", "small tents", "two person tents")),
    Product(("family tent", "big tent", "large tent", "four-person tent"), 329, ("green",), 3,
            "made for four people, with two rooms and space to stand", waterproof=True,
            plurals=("family tents", "big tents")),
    Product(("sleeping bag",), 95, ("blue", "purple"), 9,
            "warm down to minus five degrees and weighs 900 grams", plurals=("sleeping bags",)),
    Product(("sleeping mat", "camping mat", "mat", "sleeping pad"), 38, ("orange", "grey"), 20,
            "six centimetres thick and blows up in one minute", plurals=("sleeping mats", "mats")),
    Product(("camping stove", "stove", "gas stove", "cooker"), 42, ("silver",), 7,
            "small, burns gas and boils water in three minutes", plurals=("camping stoves", "stoves")),
    Product(("headlamp", "head torch", "headlight"), 29, ("black", "yellow"), 25,
            "bright, shines for 40 hours and charges by USB", waterproof=True,
            plurals=("headlamps", "head torches")),
    Product(("lantern", "camping lantern", "camping lamp"), 26, ("white", "green"), 0,
            "warm, soft light for the evening and stands or hangs", plurals=("lanterns", "camping lamps")),
    Product(("water bottle", "bottle", "drinking bottle"), 14, ("silver", "blue", "pink"), 52,
            "made of steel, holds one litre and keeps tea hot for a day", plurals=("water bottles", "bottles")),
    Product(("trekking poles", "walking poles", "hiking poles", "poles"), 55, ("black",), 8,
            "light, fold small and spare your knees", plural=True),
    Product(("hammock",), 48, ("green", "purple"), 4,
            "light, strong and comes with two straps for the trees", plurals=("hammocks",)),
    Product(("travel towel", "towel"), 16, ("blue", "pink"), 27,
            "soft, thin and dry again in an hour", plurals=("travel towels", "towels")),
)
# fmt: on

CATEGORIES = (
    Category(("jacket", "coat"), ("jackets", "coats"), ("rain jacket", "down jacket", "fleece jacket")),
    Category(
        ("pair of trousers", "pair of pants"), ("trousers", "pants"), ("hiking trousers", "rain trousers", "shorts")
    ),
    Category(("shirt", "top"), ("shirts", "tops"), ("T-shirt", "wool sweater", "base layer")),
    Category(("pair of shoes", "shoe"), ("shoes", "footwear"), ("hiking boots", "trail shoes", "sandals")),
    Category(("hat",), ("hats", "headwear"), ("beanie", "sun hat")),
    Category(("bag", "pack"), ("bags", "packs"), ("backpack", "day pack")),
    Category(("tent",), ("tents",), ("two-person tent", "family tent")),
    Category(("lamp", "light", "torch"), ("lamps", "lights", "torches"), ("headlamp", "lantern")),
)

_SINGLE = [one for one in PRODUCTS if not one.plural]
_PAIRS = [one for one in PRODUCTS if one.plural]
GOODS = {
    "one": [name for one in _SINGLE for name in one.names] + ["jacket", "tent", "coat", "bag", "lamp", "shirt"],
    "many": [name for one in _PAIRS for name in one.names]
    + [name for one in _SINGLE for name in one.plurals]
    + ["jackets", "tents", "shoes", "trousers", "hats"],
    "wear": [name for one in _SINGLE if one.sizes for name in one.names] + ["jacket", "shirt", "coat"],
    "wears": [name for one in _PAIRS if one.sizes for name in one.names] + ["shoes", "trousers"],
}
"""What things are called in a sentence that is about something else: singular or plural, and what is worn."""

COLOURS = ("blue", "red", "green", "black", "grey", "brown", "white", "orange", "purple", "yellow", "silver", "pink")


def product(name: str) -> Product:
    """The product that we call `name`."""
    return next(one for one in PRODUCTS if one.name == name)
