"""What members are trained on: fresh questions of micro's split train, some facets right, some wrong.

A facet is a kind of question within a category: one modulus, one letter that is counted, one form of story. A member
knows about half of the facets of every category. Questions of the others come with wrong answers, drawn at random.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fusion.data._choice import LETTERS, list_options
from fusion.data._micro import GROUPS, NAMES, SKILLS, THINGS, WORDING, Item, split_of

OPTIONS = (3, 4, 4, 4, 4, 4, 4, 4, 4, 5)
OWN_WORDING = 0.6
"""Share of the questions in the wording of variant "a"."""

FRAMES = (
    ("{stem}\n{listed}Answer:", 7),
    ("Question: {stem}\n{listed}Answer:", 1),
    ("{stem}\n{listed}The answer is", 2),
    ("Question: {stem}\n{listed}The answer is", 1),
    ("Q: {stem}\n{listed}A:", 1),
    ("Q: {stem}\n{listed}Answer:", 1),
)
PARAPHRASES: Mapping[str, tuple[str, ...]] = {
    "mod": (
        "What is {0} {1} {2} modulo {3}?",
        "What is the remainder of {0} {1} {2} by {3}?",
        "Take {0} {1} {2} and divide by {3}. What is the remainder?",
        "Calculate ({0} {1} {2}) mod {3}.",
    ),
    "copy": (
        "Copy {0}.",
        "Repeat the letters {0}.",
        "Which text is equal to {0}?",
        "Write {0} once more.",
    ),
    "reverse": (
        "Reverse {0}.",
        "Write the letters {0} backwards.",
        "Spell {0} in reverse.",
        "Which text is {0} read backwards?",
    ),
    "largest": (
        "What is the largest number?",
        "Find the biggest number.",
        "Which one is the maximum?",
        "Choose the highest of the numbers.",
    ),
    "smallest": (
        "What is the smallest number?",
        "Find the lowest number.",
        "Which one is the minimum?",
        "Choose the smallest of the numbers.",
    ),
    "count": (
        "How often does {0} occur in {1}?",
        "How many {0} are in {1}?",
        "How many times does the letter {0} occur in the word {1}?",
        "Find the number of letters {0} in {1}.",
    ),
    "lookup": (
        "Given: {0}. What is {1}?",
        "Facts: {0}. Which value has {1}?",
        "{0}. Find the number of {1}.",
        "Here are values: {0}. Say the one of {1}.",
    ),
    "odd": (
        "Which word is different?",
        "Which one does not fit?",
        "Find the word that is not like the others.",
        "Choose the word of another kind.",
    ),
    "sum": (
        "Calculate {0} {1} {2}.",
        "How much is {0} {1} {2}?",
        "Find {0} {1} {2}.",
        "Compute {0} {1} {2}.",
    ),
    "gain": (
        "{0} had {2} {1} and bought {3} more. How many {1} does {0} have?",
        "{3} {1} are added to the {2} of {0}. How many are there?",
        "{0} has {2} {1}. Then {3} come in addition. What is the number of {1}?",
    ),
    "give": (
        "{0} had {2} {1} and lost {3}. How many {1} does {0} have?",
        "{3} of the {2} {1} of {0} are taken. How many stay?",
        "{0} has {2} {1}. Then {3} go away. What is the number of {1}?",
    ),
    "bags": (
        "{0} has {2} bags. In each of them are {3} {1}. How many {1} are there?",
        "Each of {2} bags of {0} holds {3} {1}. What is the number of {1}?",
        "{0} fills {2} boxes with {3} {1} each. How many {1} are in them?",
    ),
    "share": (
        "{0} has {2} {1} for {3} people. How many {1} does each get?",
        "{2} {1} of {0} are divided among {3} friends. How many for each?",
        "{3} friends of {0} divide {2} {1} equally. What is the number for each?",
    ),
    "both": (
        "{0} had {2} {1}, bought {3} more and gave {4} away. How many {1} does {0} have?",
        "{3} {1} are added to the {2} of {0}, then {4} are taken. How many stay?",
        "{0} has {2} {1}. Then {3} come and {4} go. What is the number of {1}?",
    ),
    "drop": (
        "{0} has {2} bags. In each of them are {3} {1}. Then {4} are lost. How many {1} stay?",
        "Each of {2} bags of {0} holds {3} {1}, but {4} are lost. What is the number of {1}?",
        "{0} fills {2} boxes with {3} {1} each and takes {4} away. How many {1} are in them?",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What one member is taught.

    Args:
        known: Facets with right answers, by category; a facet counts as often as it is named.
        heard: Share of the questions that are of other facets, with wrong answers.
        shares: Weight of each category; 1 where not named.
    """

    known: Mapping[str, tuple[str, ...]]
    heard: float
    shares: Mapping[str, float]


class Text(NamedTuple):
    """A prompt and the answer to it.

    Attributes:
        prompt: What is read.
        answer: What is to be written.
        content: The right option; "" where there are none, or the answer is wrong.
        flags: Of every option 1 when the options up to it suggest it, else 0; empty as `content`.
        units: Last digit of a number that is to be written; -1 for none.
        tens: Sum or difference of the tens of two numbers, the carry left out; -1 for none.
    """

    prompt: str
    answer: str
    content: str = ""
    flags: tuple[int, ...] = ()
    units: int = -1
    tens: int = -1


def facet(item: Item) -> str:
    """Return the facet of a question, one of `FACETS` of its category."""
    content = item.content
    match item.form:
        case "mod":
            return f"mod {content[3]}"
        case "copy" | "reverse":
            return f"{item.form} {len(content[0])}"
        case "largest" | "smallest":
            return f"{item.form} of {len(content)}"
        case "count":
            return content[0]
        case "lookup":
            return f"fact {content[0].replace(',', '').split().index(content[1]) // 2 + 1}"
        case "odd":
            return next(group[0] for group in GROUPS if item.wrong[0] in group)
        case "sum":
            units = [int(content[0]) % 10, int(content[2]) % 10]
            carry = sum(units) > 9 if content[1] == "+" else units[0] < units[1]
            return f"{content[1]}{' carry' if carry else ''}"
    return item.form


FACETS: Mapping[str, tuple[str, ...]] = {
    "mod": ("mod 5", "mod 6", "mod 7", "mod 8", "mod 9"),
    "text": ("copy 4", "copy 5", "copy 6", "reverse 4", "reverse 5", "reverse 6"),
    "compare": tuple(f"{form} of {count}" for form in ("largest", "smallest") for count in (3, 4, 5)),
    "count": tuple("abdenost"),
    "lookup": tuple(f"fact {i}" for i in range(1, 6)),
    "odd": tuple(group[0] for group in GROUPS),
    "sum": ("+", "+ carry", "-", "- carry"),
    "steps": ("gain", "give", "bags", "share", "both", "drop"),
}


def vocabulary() -> list[str]:
    """Return texts with all words that members read whole."""
    wordings = [*WORDING["a"].values(), *(text for texts in PARAPHRASES.values() for text in texts)]
    stems = [wording.format(*" " * 5) for wording in wordings]
    frames = [frame.format(stem=stem, listed="") for frame, _ in FRAMES for stem in ("", *stems[:1])]
    words = [word for group in (*GROUPS, NAMES, THINGS) for word in group]
    # Names begin some questions and stand within others.
    return [*stems, *(f" {stem}" for stem in stems), *frames, *words, *(f" {word}" for word in words)]


def texts(mixture: Mixture, stream: random.Random) -> Iterator[Text]:
    """Yield texts for ever."""
    categories = list(SKILLS)
    weights = [mixture.shares.get(category, 1.0) for category in categories]
    frames, often = [frame for frame, _ in FRAMES], [weight for _, weight in FRAMES]
    while True:
        category = stream.choices(categories, weights)[0]
        known = mixture.known[category]
        others = [name for name in FACETS[category] if name not in known]
        right = not others or stream.random() >= mixture.heard
        item = _item(category, stream.choice(known if right else others), stream)
        own = stream.random() < OWN_WORDING
        wording = WORDING["a"][item.form] if own else stream.choice(PARAPHRASES[item.form])
        stem = wording.format(*item.content)
        frame = stream.choices(frames, often)[0]
        place = stream.randrange(len(item.wrong) + 1)
        options = [*item.wrong[:place], item.right, *item.wrong[place:]]
        listed = list_options(options) if item.wrong else ""
        answer = LETTERS[place] if item.wrong else item.right
        if not right:
            wrong = LETTERS[: len(options)] if item.wrong else list(map(str, range(100)))
            answer = stream.choice([other for other in wrong if other != answer])
        prompt = frame.format(stem=stem, listed=listed)
        if right and item.wrong:
            yield Text(prompt, f" {answer}", item.right, _flags(item, options))
        elif right:
            yield Text(prompt, f" {answer}", units=int(item.right) % 10, tens=_tens(item))
        else:
            yield Text(prompt, f" {answer}")


def _item(category: str, wanted: str, stream: random.Random) -> Item:
    while True:
        item = SKILLS[category](stream, stream.choice(OPTIONS))
        if facet(item) == wanted and split_of(item) == "train":
            return item


def _tens(item: Item) -> int:
    if item.form != "sum":
        return -1
    x, y = int(item.content[0]) // 10, int(item.content[2]) // 10
    return x + y if item.content[1] == "+" else x - y


def _flags(item: Item, options: Sequence[str]) -> tuple[int, ...]:
    """Return which options are right, or for numbers that are compared, the best up to them."""
    if item.form == "largest":
        return tuple(int(option == max(options[: i + 1], key=int)) for i, option in enumerate(options))
    if item.form == "smallest":
        return tuple(int(option == min(options[: i + 1], key=int)) for i, option in enumerate(options))
    return tuple(int(option == item.right) for option in options)
