"""Write as people type: lower case, no punctuation, abbreviations, wrong letters.

Values that a reply must echo are hidden behind one-letter marks first, so they stay whole.
"""

import random
import re

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
SHORT = {
    "your": ("ur", "yor", "youre"), "you": ("u", "ya"), "are": ("r",), "please": ("pls", "plz", "pleas"),
    "what's": ("whats", "wats", "what s"), "what": ("wat", "wht", "waht"), "where's": ("wheres",), "i'm": ("im", "iam"),
    "don't": ("dont",), "doesn't": ("doesnt",), "can't": ("cant",), "didn't": ("didnt",), "thanks": ("thx", "thnx", "tnx"),
    "okay": ("k", "ok"), "the": ("teh", "da", "the"), "and": ("n", "&", "an"), "to": ("2",), "for": ("4", "fr"),
    "because": ("cuz",), "address": ("adress", "addres"), "receive": ("recieve",), "have": ("hav", "hve"), "about": ("abt",),
    "want to": ("wanna",), "how much": ("hw much", "howmuch"), "it's": ("its",), "that's": ("thats",), "colour": ("color",),
    "colours": ("colors",), "trousers": ("trowsers", "trouser"), "is": ("s", "iz"), "isn't": ("isnt",), "tomorrow": ("tmrw", "tomorow"),
    "jacket": ("jaket", "jackt", "jacket"), "people": ("ppl",), "there": ("their", "ther"), "open": ("opn", "opened"),
    "size": ("sise", "sz"), "delivery": ("delivary", "devilery"), "sweater": ("sweter",), "cancel": ("cancle", "cansel"),
    "do you have": ("you have", "u have", "do u have", "got"), "do you": ("do u", "d you", "you"), "how do i": ("how i", "how 2"),
    "hello": ("helo", "hallo"), "receipt": ("reciept",), "i would like": ("id like", "i wld like"), "i'd": ("id",),
}  # fmt: skip
WORD = re.compile(r"[A-Za-z']+")


def typo(word: str, rng: random.Random) -> str:
    """Swap, drop, double or miss one letter."""
    at = rng.randrange(len(word))
    kind = rng.random()
    if kind < 0.3 and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind < 0.6 and len(word) > 2:
        return word[:at] + word[at + 1 :]
    if kind < 0.75:
        return word[: at + 1] + word[at:]
    return word[:at] + neighbour(word[at], rng) + word[at + 1 :]


def neighbour(letter: str, rng: random.Random) -> str:
    """A key beside `letter`."""
    for row in ROWS:
        if (at := row.find(letter.lower())) >= 0:
            return row[max(0, at - 1) if rng.random() < 0.5 else min(len(row) - 1, at + 1)]
    return letter


def shorten(text: str, rng: random.Random, share: float) -> str:
    """Abbreviate or misspell the words that people do."""
    for word, forms in SHORT.items():
        if word in text.lower() and rng.random() < share:
            text = re.sub(rf"(?i)\b{word}\b", rng.choice(forms), text)
    return text


def misspell(text: str, rng: random.Random, count: int) -> str:
    """Put a typo in `count` of the longer words."""
    for _ in range(count):
        words = [found for found in WORD.finditer(text) if len(found[0]) > 3]
        if words:
            found = rng.choice(words)
            text = text[: found.start()] + typo(found[0], rng) + text[found.end() :]
    return text


def roughen(text: str, rng: random.Random, level: float) -> str:
    """`text` as typed by someone; `level` from 0 (tidy) to 1 (half of all messages have errors)."""
    if rng.random() < 0.35 * level:
        text = shorten(text, rng, 0.5)
    if rng.random() < 0.35 * level:
        text = misspell(text, rng, rng.choice((1, 1, 1, 2)))
    if rng.random() < 0.3:
        text = re.sub(r"[',]", "", text)
    case = rng.random()
    if case < 0.45:
        return text.lower()
    return text.upper() if case < 0.48 else text
