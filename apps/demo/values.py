"""Make the values that nobody can know beforehand: names, order numbers, numbers, nonsense."""

import random

from apps.demo.phrases import Split, belongs, choose, values

VOWELS = "aeiouaeioaeiy"
CONSONANTS = "bcdfghjklmnprstvwz"
STARTS = (
    *CONSONANTS,
    "br",
    "ch",
    "dr",
    "fr",
    "gr",
    "kr",
    "ph",
    "sh",
    "st",
    "th",
    "tr",
    "kh",
    "zh",
    "qu",
    "x",
    "y",
    "sl",
)
ENDS = ("", "", "", "", "n", "r", "s", "l", "m", "k", "t", "th", "ll", "nn", "ck", "tt", "x", "d", "ss", "v")
ACCENTS = {"a": "áäåã", "e": "éèëê", "i": "íï", "o": "óöøô", "u": "úü", "n": "ñ", "c": "çć", "s": "šś", "z": "ž"}
EMOJI = "😀😂😍🤔👍👎🔥🎉💩🙏😡😢🏕⛺🥾🧥❤✨🚀🐶🐱🍕"


def invented_name(rng: random.Random) -> str:
    """Two to four syllables, some with doubled letters or accents."""
    name = ""
    for _ in range(rng.choice((1, 2, 2, 2, 3, 3, 4, 4))):
        consonant = "" if not name and rng.random() < 0.2 else rng.choice(STARTS)
        if len(consonant) == 1 and name and rng.random() < 0.2:
            consonant *= 2
        name += consonant + rng.choice(VOWELS)
    name += rng.choice(ENDS)
    if rng.random() < 0.08:
        name = random_letters(rng, rng.randint(3, 9))
    if rng.random() < 0.09:
        name = "".join(rng.choice(ACCENTS.get(letter, letter)) for letter in name)
    return name if len(name) > 1 else name + "n"


def first_name(rng: random.Random, split: Split) -> str:
    """A first name of `split` as it should be written; more than half are invented."""
    if rng.random() < 0.4:
        return choose(values("names"), rng, split)
    while True:
        name = invented_name(rng)
        if belongs(name, split):
            return name.capitalize()


def order_number(rng: random.Random, split: Split) -> str:
    """Four to eight digits, most often five."""
    while True:
        digits = rng.choice((4, 5, 5, 5, 5, 6, 6, 7, 8))
        number = str(rng.randint(10 ** (digits - 1), 10**digits - 1))
        if rng.random() < 0.15:
            number = "".join(rng.choice(number[:2]) for _ in range(digits))
        if belongs(number, split):
            return number


def random_letters(rng: random.Random, length: int) -> str:
    """Letters without rhyme or reason."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))


def junk(rng: random.Random) -> str:
    """What a cat on the keyboard writes."""
    kind = rng.random()
    if kind < 0.3:
        return random_letters(rng, rng.randint(2, 12))
    if kind < 0.5:
        return "".join(rng.choice("asdfghjkl") for _ in range(rng.randint(3, 10)))
    if kind < 0.65:
        return "".join(rng.choice("qwertyuiop1234567890!?.,") for _ in range(rng.randint(3, 9)))
    if kind < 0.8:
        return rng.choice("aehkloxzm") * rng.randint(3, 12)
    return rng.choice(("bla", "foo", "lala", "hmpf", "asd", "qwe", "blub", "xyz", "abc")) * rng.randint(1, 3)


def emoji(rng: random.Random) -> str:
    """One to four pictures."""
    return "".join(rng.choice(EMOJI) for _ in range(rng.choice((1, 1, 1, 2, 3, 4))))


def punctuation(rng: random.Random) -> str:
    """Signs alone."""
    sign = rng.choice("?!.,-*#&%$@:;)(/+=_~")
    return sign * rng.randint(1, 4) if rng.random() < 0.6 else "".join(rng.choice("?!.:;)(") for _ in range(3))


def small_number(rng: random.Random) -> str:
    """A number too short for an order."""
    return str(rng.choice((rng.randint(0, 9), rng.randint(0, 99), rng.randint(100, 999))))


def year(rng: random.Random) -> str:
    """A year, to ask about history."""
    return str(rng.randint(1000, 2030))
