"""The lists and requests of the task inventory: drawing them, wording them, and taking an answer apart."""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SPLIT_OF_HASH = ("train", "train", "validation", "test")
_SIZES = (3, 4, 5)
_TOPICS_ASKED = 3

TOPICS: Mapping[str, tuple[str, ...]] = {
    "fruit": ("apple", "pear", "plum", "cherry", "lemon", "grape", "melon", "peach", "banana", "fig", "lime", "mango"),
    "tool": ("hammer", "saw", "axe", "drill", "nail", "screw", "file", "brush", "rope", "ladder", "shovel", "rake"),
    "animal": ("cat", "dog", "cow", "horse", "sheep", "goat", "lion", "mouse", "rabbit", "tiger", "duck", "bear"),
    "garment": ("coat", "hat", "shirt", "skirt", "sock", "shoe", "glove", "scarf", "belt", "dress", "boot", "vest"),
    "vehicle": ("bus", "car", "train", "plane", "ship", "bike", "tram", "truck", "boat", "taxi", "van", "sled"),
    "vessel": ("cup", "bowl", "pan", "kettle", "jar", "glass", "bottle", "pot", "jug", "bucket", "vase", "barrel"),
}
OPERATIONS = ("first", "second", "last", "commonest", "rarest", "after")


class Wording(NamedTuple):
    """How a question is put: how it begins, each request, what stands between two of them, how it ends."""

    lead: str
    request: str
    joint: str
    cue: str


WORDINGS: Mapping[str, tuple[Wording, ...]] = {
    "a": tuple(
        Wording(lead, f"the {{asked}} {among} {{listed}}", "; ", ".\nAnswer:")
        for lead in ("Name ", "Find ", "Give ")
        for among in ("among", "of", "in")
    ),
    "b": (Wording("Write down ", "the {asked} from {listed}", "; then ", ".\nThe answer is"),),
}


class Request(NamedTuple):
    """One list, and what is asked about it.

    Attributes:
        operation: One of `OPERATIONS`.
        topic: One of `TOPICS`.
        things: Three to five different ones of the topic.
        numbers: How many there are of each, all different, 1 to 9.
        key: For "after", the thing that the answer follows, neither first nor last; "" for the others.
    """

    operation: str
    topic: str
    things: tuple[str, ...]
    numbers: tuple[int, ...]
    key: str = ""

    @property
    def facet(self) -> str:
        """Operation and topic, the kind of the request that its wording shows."""
        return f"{self.operation} {self.topic}"


def answer(request: Request, operation: str | None = None) -> str:
    """Return the thing that is asked for, or the one that another operation would give on the same list.

    Args:
        request: What is asked.
        operation: One of `OPERATIONS`, or "before": the thing that comes before the key.

    Example:
        >>> request = Request("after", "tool", ("saw", "axe", "rake"), (4, 9, 2), key="axe")
        >>> answer(request), answer(request, "before"), answer(request, "commonest")
        ('rake', 'saw', 'axe')
    """
    things, numbers = request.things, request.numbers
    match operation or request.operation:
        case "first":
            return things[0]
        case "second":
            return things[1]
        case "last":
            return things[-1]
        case "commonest":
            return things[numbers.index(max(numbers))]
        case "rarest":
            return things[numbers.index(min(numbers))]
        case "before":
            return things[things.index(request.key) - 1]
    return things[things.index(request.key) + 1]


def draw_request(stream: random.Random, operation: str, topic: str) -> Request:
    """Return a request with a list drawn at random."""
    size = stream.choice(_SIZES)
    things = tuple(stream.sample(TOPICS[topic], size))
    numbers = tuple(stream.sample(range(1, 10), size))
    key = things[stream.randrange(1, size - 1)] if operation == "after" else ""
    return Request(operation, topic, things, numbers, key)


def draw_requests(stream: random.Random) -> tuple[Request, ...]:
    """Return three requests about three topics."""
    topics = stream.sample(list(TOPICS), _TOPICS_ASKED)
    return tuple(draw_request(stream, stream.choice(OPERATIONS), topic) for topic in topics)


def content(requests: Sequence[Request]) -> str:
    """Return what a question is about, whatever order its requests are in."""
    return " | ".join(sorted(f"{r.facet} {r.key} {' '.join(map(str, (*r.things, *r.numbers)))}" for r in requests))


def split_of(requests: Sequence[Request]) -> str:
    """Return the one split that may hold these requests."""
    digest = hashlib.blake2b(content(requests).encode(), digest_size=1).digest()
    return _SPLIT_OF_HASH[digest[0] % len(_SPLIT_OF_HASH)]


def asked(request: Request) -> str:
    """Return the request without its list, such as "last tool" or "tool after axe"."""
    return f"{request.topic} after {request.key}" if request.key else request.facet


def listed(request: Request) -> str:
    """Return the list, such as "saw 4, axe 9, rake 2"."""
    return ", ".join(f"{thing} {number}" for thing, number in zip(request.things, request.numbers, strict=True))


def prompt(requests: Sequence[Request], wording: Wording) -> str:
    """Return the question."""
    worded = [wording.request.format(asked=asked(request), listed=listed(request)) for request in requests]
    return f"{wording.lead}{wording.joint.join(worded)}{wording.cue}"


def sentence(parts: Sequence[str]) -> str:
    """Return the parts as one sentence.

    Example:
        >>> sentence(["rake", "plum", "cat"])
        'rake, plum and cat.'
    """
    return f"{', '.join(parts[:-1])} and {parts[-1]}." if len(parts) > 1 else f"{parts[0]}."


def split_parts(text: str) -> tuple[str, ...]:
    """Return the parts of an answer in canonical form: lower case, single blanks, no final full stop.

    Example:
        >>> split_parts(" Rake, plum  and cat. "), split_parts("rake plum"), split_parts(" . ")
        (('rake', 'plum', 'cat'), ('rake plum',), ())
    """
    words = " ".join(text.casefold().split()).rstrip(". ")
    parts = (part.strip() for part in re.split(r",| and ", words))
    return tuple(part for part in parts if part)
