"""Estimates the guesses that a password takes, from the parts that it consists of.

Attackers try words, names, dates, keyboard patterns and repetitions before they try
single characters. Each part takes some guesses. The estimate is their product, for the
split with the smallest product.

The words and their ranks are those of zxcvbn. Its own search tries all combinations of
symbols that stand for letters, which takes seconds for some passwords. This one tries
three substitutions, so the work is bounded by the square of `LENGTH_RATED`.
"""

import math
import unicodedata
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from zxcvbn.frequency_lists import FREQUENCY_LISTS

LENGTH_RATED = 40  # characters; further ones only add guesses
LONGEST_WORD = 16
BEGINNING = 4  # letters that are looked up before the longer words
SHORTEST_COPY = 3

# The guesses for each kind of part, as a base 10 logarithm.
DIGIT, CHARACTER = 1.0, 1.4
PUNCTUATION = 0.5  # between words, or after them
YEAR = 2.0  # recent ones first
DATE = 4.3  # a day within sixty years, in one of the usual formats
COPY = 0.3  # of an earlier part: the length and the distance are added
STEPS = 0.3  # in addition, for a copy of steps
ALTERED = 0.3  # reversed, with capitals, or with symbols for letters

BETWEEN_WORDS = frozenset(" -_.,!?")
MONTHS = frozenset(f"{month:02}" for month in range(1, 13)) | {""}
DAYS = frozenset(f"{day:02}" for day in range(1, 32)) | {""}
YEARS = frozenset(map(str, range(1900, 2100))) | {f"{year:02}" for year in range(100)}
# The positions of the year, month and day, by the number of digits.
DATES = {
    4: ((slice(4), slice(0), slice(0)),),
    6: (
        (slice(4, 6), slice(2, 4), slice(2)),
        (slice(4, 6), slice(2), slice(2, 4)),
        (slice(2), slice(2, 4), slice(4, 6)),
    ),
    8: (
        (slice(4, 8), slice(2, 4), slice(2)),
        (slice(4, 8), slice(2), slice(2, 4)),
        (slice(4), slice(4, 6), slice(6, 8)),
    ),
}
SIGNS = str.maketrans("@4830$5!|+%26(<{[", "aabeossiitxzgcccc")
SHIFTED = str.maketrans('!@#$%^&*()_+{}:"<>?', "1234567890-=[];',./")
# Some symbols stand for two letters; a whole word may be typed with Shift.
READINGS = (SIGNS | {ord("1"): "i", ord("7"): "t"}, SIGNS | {ord("1"): "l"}, SHIFTED)
KEYS = {
    key: complex(column, row)
    for row, keys in enumerate(
        ("1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./")
    )
    for column, key in enumerate(keys)
}


class Rating(NamedTuple):
    """The guesses as a base 10 logarithm, and the number of common words."""

    guesses: float
    words: int


class _Part(NamedTuple):
    start: int
    end: int
    cost: float
    is_word: bool = False


def rate(password: str, enough: float = math.inf) -> Rating:
    """Estimate the minimum number of guesses for a password.

    For passwords longer than `LENGTH_RATED`, it is that of the beginning or the end,
    whichever is greater.

    Args:
        password: the password.
        enough: if the beginning takes this many guesses, the end is not rated.
    """
    rating = _rate(password[:LENGTH_RATED])
    if len(password) > LENGTH_RATED and rating.guesses < enough:
        end = _rate(password[-LENGTH_RATED:])
        return max(rating, end, key=lambda one: one.guesses)
    return rating


def _rate(password: str) -> Rating:
    """Find the split of a password into parts with the fewest guesses."""
    written = _without_accents(password)
    text = "".join(c.lower() if len(c.lower()) == 1 else c for c in written)
    ending: list[list[_Part]] = [[] for _ in range(len(text) + 1)]
    for part in (*_words(text, written), *_dates(text), *_copies(text)):
        ending[part.end].append(part)
    costs, chosen = [0.0], [_Part(0, 0, 0)]
    for end, sign in enumerate(text, 1):
        parts = [_Part(end - 1, end, _single(sign)), *ending[end]]
        best = min(parts, key=lambda part: costs[part.start] + part.cost)
        costs.append(costs[best.start] + best.cost)
        chosen.append(best)
    words, end = 0, len(text)
    while end:
        words += chosen[end].is_word
        end = chosen[end].start
    return Rating(costs[-1], words)


def _single(sign: str) -> float:
    if sign in BETWEEN_WORDS:
        return PUNCTUATION
    return DIGIT if sign.isdigit() else CHARACTER


def _without_accents(password: str) -> str:
    parts = unicodedata.normalize("NFKD", password)
    return "".join(c for c in parts if not unicodedata.combining(c))[:LENGTH_RATED]


@cache
def _places() -> dict[str, float]:
    """Return the cost of each word: the logarithm of its best rank in any list."""
    costs: dict[str, float] = {}
    for words in FREQUENCY_LISTS.values():
        for place, word in enumerate(words, 2):
            costs[word] = min(costs.get(word, math.inf), math.log10(place))
    return costs


@cache
def _beginnings() -> frozenset[str]:
    """Return the first letters of all words."""
    return frozenset(word[:BEGINNING] for word in _places())


def _words(text: str, written: str) -> Iterator[_Part]:
    """Find words: unchanged, with symbols for letters, and reversed."""
    costs, length = _places(), len(text)
    for start, end in _spans(text):
        cost = costs[text[start:end]] + _capitals(written[start:end])
        yield _Part(start, end, cost, is_word=True)
    for reading in {text.translate(signs) for signs in READINGS} - {text}:
        for start, end in _spans(reading):
            if reading[start:end] != text[start:end]:
                cost = costs[reading[start:end]] + _capitals(written[start:end])
                yield _Part(start, end, cost + ALTERED, is_word=True)
    reading = text[::-1]
    for first, last in _spans(reading) if reading != text else ():
        start, end = length - last, length - first
        cost = costs[reading[first:last]] + _capitals(written[start:end])
        yield _Part(start, end, cost + ALTERED, is_word=True)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each word."""
    costs, beginnings = _places(), _beginnings()
    for start in range(len(text)):
        for end in range(start + 2, min(start + LONGEST_WORD, len(text)) + 1):
            part = text[start:end]
            if part in costs:
                yield start, end
            if end - start == BEGINNING and part not in beginnings:
                break


def _capitals(word: str) -> float:
    """Return the cost of the capitals in a word: low for common positions."""
    capitals = sum(c.isupper() for c in word)
    usual = word in (word.upper(), word.capitalize())
    return ALTERED * (min(capitals, 1) if usual else capitals + 1)


def _dates(text: str) -> Iterator[_Part]:
    """Find years, and dates of six or eight digits in the usual formats."""
    for start in range(len(text)):
        for length, forms in DATES.items():
            digits = text[start : start + length]
            if len(digits) < length or not (digits.isascii() and digits.isdigit()):
                break
            for year, month, day in forms:
                if (
                    digits[month] in MONTHS
                    and digits[day] in DAYS
                    and digits[year] in YEARS
                ):
                    cost = YEAR if length == len("YYYY") else DATE
                    yield _Part(start, start + length, cost)
                    break


def _copies(text: str) -> Iterator[_Part]:
    """Find repeated characters, keyboard patterns and alphabet sequences."""
    keys = [KEYS.get(c.translate(SHIFTED)) for c in text]
    walk: list[Hashable] = [
        object() if a is None or b is None else b - a for a, b in pairwise(keys)
    ]
    alphabet = [ord(b) - ord(a) for a, b in pairwise(text)]
    yield from _repeats(text, 0)
    yield from _repeats(walk, 1)
    yield from _repeats(alphabet, 1)


def _repeats(signs: Sequence[Hashable], first: int) -> Iterator[_Part]:
    """Find the longest runs that repeat the text some distance before them."""
    for distance in range(1, len(signs)):
        start = None
        for at in range(distance, len(signs) + 1):
            if at < len(signs) and signs[at] == signs[at - distance]:
                start = at if start is None else start
            elif start is not None:
                if (length := at - start) >= SHORTEST_COPY:
                    cost = COPY + STEPS * first + math.log10(distance * length)
                    yield _Part(start + first, at + first, cost)
                start = None
