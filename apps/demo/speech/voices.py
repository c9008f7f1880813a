"""Which of espeak-ng's voices the model hears in training, and which it never hears before its evaluation."""

import random

from stages.postprocess.speak.espeak import Style

# fmt: off
ACCENTS = ("en-us", "gmw/en", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc")
UNSEEN_ACCENTS = ("en-gb-x-gbcwmd", "en-gb-x-gbclan")
VARIANTS = (
    "", "", "", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky",
    "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "Reed", "adam", "announcer", "antonio", "aunty", "belinda",
    "benjamin", "boris", "caleb", "david", "edward", "f1", "f2", "f3", "f4", "grandma", "grandpa", "gustave", "ian",
    "iven", "iven3", "john", "kaukovalta", "klatt2", "klatt4", "m1", "m2", "m3", "m4", "m5", "m6", "m8", "max",
    "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "sandro", "shelby", "steph", "steph3",
    "travis", "zac",
)
UNSEEN_VARIANTS = ("linda", "anika", "f5", "m7", "ed", "marcelo", "robert", "victor")
# fmt: on


def default(rng: random.Random) -> Style:
    """A voice as a program gets it that asks for nothing particular."""
    return Style(voice=rng.choice(ACCENTS[:2] * 3 + ACCENTS))


def seen(rng: random.Random) -> Style:
    """A voice of the training."""
    if rng.random() < 0.12:
        return default(rng)
    return varied(rng.choice(ACCENTS[:2] + ACCENTS), rng.choice(VARIANTS), rng)


def unseen(rng: random.Random) -> Style:
    """A voice whose accent, or variant, or both, the training never has."""
    kind = rng.random()
    accent = rng.choice(UNSEEN_ACCENTS if kind < 0.4 else ACCENTS)
    return varied(accent, rng.choice(UNSEEN_VARIANTS if kind > 0.2 else VARIANTS), rng)


def varied(accent: str, variant: str, rng: random.Random) -> Style:
    """With a random rate, pitch, range and gap."""
    return Style(
        voice=f"{accent}+{variant}" if variant else accent,
        rate=round(rng.gauss(175, 22)),
        pitch=min(90, max(10, round(rng.gauss(50, 15)))),
        range=min(90, max(10, round(rng.gauss(50, 15)))),
        gap=rng.choice((0, 0, 0, 0, 1, 2, 4)),
    )
