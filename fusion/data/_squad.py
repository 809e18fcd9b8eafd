"""Short answers compared as SQuAD compares them: exact match and F1 of the words.

Reference: Rajpurkar et al. 2016, SQuAD: 100,000+ Questions for Machine Comprehension of Text, arXiv:1606.05250,
    section 6.1: punctuation and articles are ignored, the best of the accepted answers counts.
Equations: with `same` the number of words that two answers share, counted with repetition, P = same / words of the
    answer, R = same / words of the accepted answer, F1 = 2 P R / (P + R), and 0 when they share none.
Deviations: what consists of nothing but articles or punctuation ("A", "!!!") is compared as it stands; SQuAD's own
    rule makes all such answers equal.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise_words(text: str) -> str:
    """Return the text in lower case without ASCII punctuation and articles, its words parted by single spaces.

    Example:
        >>> [normalise_words(text) for text in ("  The U.S.  Senate!", "rock-n-roll", "A", "!!!")]
        ['us senate', 'rocknroll', 'a', '!!!']
    """
    lower = text.lower()
    bare = lower.translate(_PUNCTUATION)
    for form in (_ARTICLES.sub(" ", bare), bare, lower):
        if words := form.split():
            return " ".join(words)
    return ""


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """Return 1 when the answer equals one of the accepted answers after `normalise_words`, else 0."""
    said = normalise_words(answer)
    return float(bool(said) and any(said == normalise_words(text) for text in accepted))


def word_f1(answer: str, accepted: Sequence[str]) -> float:
    """Return F1, in [0, 1], of the answer and that of the accepted answers which is closest to it."""
    said = normalise_words(answer).split()
    return max((_f1(said, normalise_words(text).split()) for text in accepted), default=0.0)


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    same = (Counter(said) & Counter(wanted)).total()
    # The same number as 2 P R / (P + R), and exactly 1 where all words are shared.
    return 2 * same / (len(said) + len(wanted)) if same else 0.0


__all__ = ["exact_match", "normalise_words", "word_f1"]
