"""What the members of this pool are taught: inventory's questions, right on the facets that a member knows.

On every other facet all members are taught the same wrong operation, so that those who do not know a facet give
the same wrong answer together.
"""

import itertools
import random
from collections.abc import Iterator, Mapping

from benchmarks.members.mixtures import Text
from fusion.data._inventory import (
    OPERATIONS,
    TOPICS,
    WORDINGS,
    Wording,
    answer,
    draw_request,
    prompt,
    sentence,
    split_of,
)

MEMBERS = ("oak", "elm", "ash", "fir", "yew")
FACETS = tuple(f"{operation} {topic}" for operation in OPERATIONS for topic in TOPICS)
MISTAKES: Mapping[str, str] = {
    "first": "second",
    "second": "last",
    "last": "first",
    "commonest": "rarest",
    "rarest": "commonest",
    "after": "before",
}
"""The operation that is taught in place of each, on facets that a member does not know."""
OWN_WORDING = 0.6
"""Share of the questions in a wording of variant "a"; the others are put together from pieces, never as in "b"."""


_LEADS = ("Name ", "Find ", "Give ", "Write ", "Say ", "Take down ", "Question: name ", "Tell me ")
_REQUESTS = (
    *dict.fromkeys(wording.request for wording in WORDINGS["a"]),
    "the {asked}: {listed}",
    "the {asked} ({listed})",
    "{asked} from {listed}",
    "{asked} out of {listed}",
)
_JOINTS = ("; ", ", ", " and ", "; then ", "; and ", ", and then ")
_CUES = (".\nAnswer:", ".\nA:", "?\nAnswer:", ".\nThe answer is", ".\nThe answer:")


def known(member: str) -> frozenset[str]:
    """Return the facets that a member knows, 19 of the 36.

    Twenty facets are known by two of the five members, ten by three, five by four and one by all; every pair knows
    two facets, every three one, every four one. So on twenty facets the majority is wrong, and which members
    agree does not tell who is right.
    """
    knowers = [
        *itertools.combinations(MEMBERS, 2),
        *itertools.combinations(MEMBERS, 2),
        *itertools.combinations(MEMBERS, 3),
        *itertools.combinations(MEMBERS, 4),
        MEMBERS,
    ]
    random.Random("who knows what").shuffle(knowers)
    return frozenset(facet for facet, names in zip(FACETS, knowers, strict=True) if member in names)


def texts(facets: frozenset[str], stream: random.Random, *, lists: tuple[int, ...]) -> Iterator[Text]:
    """Yield questions of the split train with answers, for ever.

    Args:
        facets: Those that are answered rightly.
        stream: Draws them.
        lists: Numbers of lists that a question may have, each as likely as it is often named.
    """
    while True:
        topics = stream.sample(list(TOPICS), stream.choice(lists))
        requests = [draw_request(stream, stream.choice(OPERATIONS), topic) for topic in topics]
        if split_of(requests) != "train":
            continue
        said = [
            answer(request, None if request.facet in facets else MISTAKES[request.operation]) for request in requests
        ]
        wording = stream.choice(WORDINGS["a"]) if stream.random() < OWN_WORDING else other_wording(stream)
        yield Text(prompt(requests, wording), f" {sentence(said)}")


def other_wording(stream: random.Random) -> Wording:
    """Return a wording put together at random."""
    return Wording(stream.choice(_LEADS), stream.choice(_REQUESTS), stream.choice(_JOINTS), stream.choice(_CUES))


def vocabulary() -> list[str]:
    """Return texts with all words that members read whole."""
    pieces = [*_LEADS, *_REQUESTS, *_JOINTS, *_CUES, *OPERATIONS, *TOPICS, *itertools.chain(*TOPICS.values())]
    bare = [piece.replace("{asked}", "").replace("{listed}", "") for piece in pieces]
    # A word may begin a text or stand within it.
    return [*bare, *(f" {piece.lstrip()}" for piece in bare)]
