"""The eight skills of the micro-benchmark: drawing a question of each, and the two ways of wording it."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

_SPLIT_OF_HASH = ("train", "train", "validation", "test")


class Item(NamedTuple):
    """One question before it is worded: what it is about, the right option or number, and the wrong options if any."""

    form: str
    content: tuple[str, ...]
    right: str
    wrong: Sequence[str]


def split_of(item: Item) -> str:
    """Return the one split that may hold `item`.

    What it is about is sorted first: 12 + 34 and 34 + 12 are one question to whoever has learnt either.
    """
    key = f"{item.form} {' '.join(sorted(item.content))}"
    return _SPLIT_OF_HASH[hashlib.blake2b(key.encode(), digest_size=1).digest()[0] % len(_SPLIT_OF_HASH)]


def _mod(stream: random.Random, num_options: int) -> Item:
    modulus = stream.randrange(5, 10)
    x, y, sign = stream.randrange(1, 100), stream.randrange(1, 100), stream.choice("+-")
    x, y = (max(x, y), min(x, y)) if sign == "-" else (x, y)
    rest = (x + y if sign == "+" else x - y) % modulus
    wrong = stream.sample([str(other) for other in range(modulus) if other != rest], num_options - 1)
    return Item("mod", (str(x), sign, str(y), str(modulus)), str(rest), wrong)


def _text(stream: random.Random, num_options: int) -> Item:
    word = "".join(stream.choice("bdfgklmnprst" if i % 2 == 0 else "aeiou") for i in range(stream.randrange(4, 7)))
    form = stream.choice(("copy", "reverse"))
    right, other = (word, word[::-1]) if form == "copy" else (word[::-1], word)
    texts = list(dict.fromkeys((right, other)))
    while len(texts) < num_options:
        letters = list(stream.choice((right, other)))
        i, j = stream.sample(range(len(letters)), 2)
        letters[i], letters[j] = letters[j], letters[i]
        texts += [] if "".join(letters) in texts else ["".join(letters)]
    return Item(form, (word,), right, stream.sample(texts[1:], num_options - 1))


def _compare(stream: random.Random, num_options: int) -> Item:
    numbers = stream.sample(range(100, 1000), num_options)
    form = stream.choice(("largest", "smallest"))
    right = max(numbers) if form == "largest" else min(numbers)
    content = tuple(str(number) for number in sorted(numbers))
    return Item(form, content, str(right), [str(number) for number in numbers if number != right])


def _count(stream: random.Random, num_options: int) -> Item:
    letter, times = stream.choice("abdenost"), stream.randrange(1, 6)
    others = [stream.choice([other for other in "abdenost" if other != letter]) for _ in range(stream.randrange(2, 5))]
    letters = [letter] * times + others
    stream.shuffle(letters)
    wrong = stream.sample([str(other) for other in range(1, 6) if other != times], num_options - 1)
    return Item("count", (letter, "".join(letters)), str(times), wrong)


def _lookup(stream: random.Random, num_options: int) -> Item:
    # Sorted, as another order of the same facts would be the same question to a solver but not to the hash.
    names, values = sorted(stream.sample(GROUPS[0], num_options)), stream.sample(range(10), num_options)
    facts = [f"{name} {value}" for name, value in zip(names, values, strict=True)]
    asked = stream.randrange(num_options)
    wrong = stream.sample([str(value) for i, value in enumerate(values) if i != asked], num_options - 1)
    return Item("lookup", (", ".join(facts), names[asked]), str(values[asked]), wrong)


def _odd(stream: random.Random, num_options: int) -> Item:
    common, alien = stream.sample(GROUPS, 2)
    wrong, right = stream.sample(common, num_options - 1), stream.choice(alien)
    return Item("odd", (*sorted(wrong), right), right, wrong)


def _sum(stream: random.Random, _: int) -> Item:
    x, y, sign = stream.randrange(10, 100), stream.randrange(10, 100), stream.choice("+-")
    x, y = (max(x, y), min(x, y)) if sign == "-" else (x, y)
    return Item("sum", (str(x), sign, str(y)), str(x + y if sign == "+" else x - y), ())


def _steps(stream: random.Random, _: int) -> Item:
    form = stream.choice(("gain", "give", "bags", "share", "both", "drop"))
    many, x, y, z = (stream.randrange(2, most) for most in (21, 10, 10, 10))
    story = {
        "gain": ((many, y), many + y),
        "give": ((many + y, y), many),
        "bags": ((x, y), x * y),
        "share": ((x * y, y), x),
        "both": ((many + z, y, z), many + y),
        "drop": ((x, y, min(z, x * y)), x * y - min(z, x * y)),
    }
    numbers, right = story[form]
    content = (stream.choice(NAMES), stream.choice(THINGS), *map(str, numbers))
    return Item(form, content, str(right), ())


SKILLS: Mapping[str, Callable[[random.Random, int], Item]] = {
    "mod": _mod,
    "text": _text,
    "compare": _compare,
    "count": _count,
    "lookup": _lookup,
    "odd": _odd,
    "sum": _sum,
    "steps": _steps,
}
GROUPS = (
    ("red", "blue", "green", "black", "white", "pink", "brown", "grey", "yellow", "purple"),
    ("cat", "dog", "cow", "horse", "sheep", "goat", "lion", "mouse", "rabbit", "tiger"),
    ("apple", "pear", "plum", "cherry", "lemon", "grape", "melon", "peach", "banana", "fig"),
    ("spoon", "knife", "fork", "plate", "cup", "bowl", "pan", "kettle", "jar", "glass"),
    ("arm", "leg", "nose", "ear", "hand", "foot", "knee", "mouth", "neck", "finger"),
    ("bus", "car", "train", "plane", "ship", "bike", "tram", "truck", "boat", "taxi"),
)
NAMES = ("Ann", "Ben", "Eve", "Ida", "Leo", "Max", "Pia", "Tom")
THINGS = ("pens", "eggs", "nuts", "keys", "hats", "coins", "cards", "books")
WORDING: Mapping[str, Mapping[str, str]] = {
    "a": {
        "mod": "What is ({0} {1} {2}) mod {3}?",
        "copy": "Copy the letters: {0}",
        "reverse": "Reverse the letters: {0}",
        "largest": "Which number is the largest?",
        "smallest": "Which number is the smallest?",
        "count": "How many times is {0} in {1}?",
        "lookup": "Values: {0}. What is the value of {1}?",
        "odd": "Which word does not belong?",
        "sum": "What is {0} {1} {2}?",
        "gain": "{0} has {2} {1} and gets {3} more. How many {1} does {0} have now?",
        "give": "{0} has {2} {1} and gives {3} away. How many {1} does {0} have now?",
        "bags": "{0} buys {2} bags of {3} {1} each. How many {1} is that?",
        "share": "{0} shares {2} {1} among {3} friends. How many {1} does each get?",
        "both": "{0} has {2} {1}, gets {3} more and loses {4}. How many {1} does {0} have now?",
        "drop": "{0} buys {2} bags of {3} {1} each and drops {4}. How many {1} are left?",
    },
    "b": {
        "mod": "Divide {0} {1} {2} by {3}. What remains?",
        "copy": "Write the same word as {0}.",
        "reverse": "Write {0} from back to front.",
        "largest": "Pick the greatest number.",
        "smallest": "Pick the least number.",
        "count": "Count the letter {0} in the word {1}.",
        "lookup": "We know: {0}. Which number goes with {1}?",
        "odd": "Find the odd one out.",
        "sum": "Work out {0} {1} {2}.",
        "gain": "{0} owned {2} {1}, then found {3} others. Count the {1} of {0}.",
        "give": "From {2} {1} {0} lent {3} to a friend. Count the {1} that {0} kept.",
        "bags": "There are {2} boxes with {3} {1} in each, all for {0}. Count the {1}.",
        "share": "{3} children split {2} {1} that {0} brought. Count the {1} of one child.",
        "both": "{0} owned {2} {1}, found {3} others and sold {4}. Count the {1} of {0}.",
        "drop": "There are {2} boxes with {3} {1} in each, but {0} broke {4}. Count the whole {1}.",
    },
}
