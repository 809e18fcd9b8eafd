"""Answer extractors: the registry, what they share, free-form answers, and what holds for every text.

Letters and numbers have files of their own; tests/test_parse_recorded.py measures on recorded texts.
"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.data._parse import (
    EXTRACTORS,
    Extraction,
    answer_part,
    get_extractor,
    normalise_free_form,
    normalise_number,
)
from fusion.errors import UnknownName

# Pieces that the rules look for, so that random texts reach every branch.
PIECES = st.lists(
    st.sampled_from(
        [
            *("the answer is ", "Answer: ", "(A)", "(b)", "B", " I ", "I think", " a dog", ".", "\n", "\n\n", "**"),
            *("#### ", "18", "$", "-", "1,234", "3/4", "\\frac{1}{2}", "=", "<<3*5=15>>", "%", "10^5", "2:00", "A:"),
            *("<think>", "</think>", "<|im_end|>", "Question: ", "\\boxed{", "}", " or ", " is incorrect", "\u2212"),
            *("option ", "correct option is ", "I choose ", " is the correct answer", "the closest is (C)", "\u0664"),
        ]
    ),
    max_size=12,
).map("".join)
ANY_TEXT = st.one_of(st.text(max_size=200), PIECES)


def read(extractor: str, text: str, num_options: int | None = None) -> str | None:
    return get_extractor(extractor)(text, num_options=num_options).value


def test_every_extractor_is_found_by_id_and_by_name() -> None:
    wanted = {"letter/strict", "letter/flexible", "mmlu_pro/published", "first_letter"}
    wanted |= {"gsm8k/strict", "gsm8k/flexible", "gsm8k/restated", "bbh/strict", "bbh/flexible"}
    assert {extractor.name for extractor in EXTRACTORS.values()} == wanted
    for identifier, extractor in EXTRACTORS.items():
        assert identifier == extractor.id == f"{extractor.name}@{extractor.version}"
        assert get_extractor(identifier) is extractor
        assert get_extractor(extractor.name) is extractor
        assert identifier in repr(extractor)


def test_unknown_extractor_suggests_near_names() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'gsm8k/flexible@1'"):
        get_extractor("gsm8k/flexibel@1")
    with pytest.raises(UnknownName, match="extractor"):
        get_extractor("gsm8k/flexible@99")


def test_extraction_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Extraction("A", "answer_is").value = "B"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        ("The answer is (A).", "The answer is (A)."),
        ("<think>maybe (B)</think>\nThe answer is (A).", "The answer is (A)."),
        ("no opening tag, (B)</think>(A)", "(A)"),
        ("<think>one</think> <think>two</think>(A)", "(A)"),
        ("(A)<think>never closed: the answer is (B)", "(A)"),
        ("<think>never closed: the answer is (B)", ""),
        ("[THINK]x[/THINK](A)", "(A)"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>(A)<|return|>", "(A)"),
        ("(A)<|im_end|>\n<|im_start|>user\nnext", "(A)"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\n(A)<|eot_id|>", "(A)"),
        ("(A)</s>(B)", "(A)"),
        ("(A)\n\nQuestion:\nnext one", "(A)\n"),
        ("(A)\nQ: next one\nA: (B)", "(A)"),
        ("(A)\n### Problem 2: next one", "(A)"),
        ("(A)\n**Question 2:** next one", "(A)"),
        (
            "Let me restate it:\n\nQuestion: how many?\nAnswer: (A)",
            "Let me restate it:\n\nQuestion: how many?\nAnswer: (A)",
        ),
        ("Question: how many?\nAnswer: (A)", "Question: how many?\nAnswer: (A)"),
    ],
)
def test_answer_part(text: str, part: str) -> None:
    assert answer_part(text) == part


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("So the answer is (A).", "A", "A"),
        ("So the answer is (A) 02/11/2002.", "A", "A"),
        ("So the answer is Yes.", "yes", "yes"),
        ("So the answer is True.", "true", "true"),
        ("So the answer is invalid.", "invalid", "invalid"),
        ("So the answer is 123.", "123", "123"),
        ("So the answer is -1,024.", "-1024", "-1024"),
        ("So the answer is apple, banana cherry.", "apple banana cherry", "apple banana cherry"),
        ("So the answer is ] ) }.", "] ) }", "] ) }"),
        ("So the answer is No, because he lies. Really.", "no because he lies. really", "no"),
        ("So the answer is **No**.", "no", "no"),
        ("The answer is: valid", None, "valid"),
        ("So it is \\boxed{Yes}", None, "yes"),
        ("Answer: plausible", None, "plausible"),
        ("**Answer:** (c)", None, "C"),
        ("The correct option is (C).", None, "C"),
        ("(C)", None, "C"),
        ("Let us see.\nNo", None, "no"),
        ("No - he lies", None, "no"),
        ("A: 42", None, "42"),
        ("", None, None),
        ("<think>the answer is (A)", None, None),
        ("he goes on " * 20, None, None),
    ],
)
def test_free_form(text: str, strict: str | None, flexible: str | None) -> None:
    assert read("bbh/strict@1", text) == strict
    assert read("bbh/flexible@1", text) == flexible


@pytest.mark.parametrize(
    ("target", "normalised"),
    [
        ("(A)", "A"),
        ("A", "A"),
        ("(B) 3 May", "B"),
        ("True", "true"),
        ("-0", "0"),
        ("2,125", "2125"),
        ("])", "] )"),
        ("] )", "] )"),
        ("Apple, Pear.", "apple pear"),
        ("a", "a"),
        ("  ", None),
        (".", None),
    ],
)
def test_normalise_free_form(target: str, normalised: str | None) -> None:
    assert normalise_free_form(target) == normalised
    assert normalised is None or normalise_free_form(normalised) == normalised


@given(ANY_TEXT, st.none() | st.integers(1, 26))
def test_any_text_gives_a_valid_value_or_none(text: str, num_options: int | None) -> None:
    for extractor in EXTRACTORS.values():
        extraction = extractor(text, num_options=num_options)
        value = extraction.value
        assert extraction == extractor(text, num_options=num_options)
        if value is None:
            assert extraction.rule in {"none", "out_of_range"}
            continue
        assert extraction.rule not in {"none", "out_of_range", ""}
        if extractor.name.startswith("gsm8k"):
            assert normalise_number(value) == value
        elif extractor.name.startswith("bbh"):
            assert value
            assert value == value.strip()
        else:
            assert len(value) == 1
            assert "A" <= value <= "Z"
            assert num_options is None or ord(value) - ord("A") < num_options


@given(ANY_TEXT)
def test_normalised_values_are_fixed_points(text: str) -> None:
    for normalise in (normalise_number, normalise_free_form):
        value = normalise(text)
        assert value is None or normalise(value) == value


HOSTILE = {
    "blanks": " ",
    "lines": "\n",
    "stars": "*",
    "digits": "9",
    "grouped": "1,234,",
    "fractions": "1/",
    "equations": "1=",
    "signs": "=",
    "minus": "-",
    "answers": "answer ",
    "the answer is": "the answer is ",
    "letters": "(A), ",
    "letter words": "A and ",
    "answer with letters": "answer is A or ",
    "boxes": "\\boxed{",
    "hash marks": "#### ",
    "hashes": "#",
    "calculators": "<<",
    "tags": "<think>",
    "closing tags": "</think>",
    "turns": "<|a|>",
    "questions": ":\nQ:",
    "options": "correct option ",
    "closings": " is (A)",
    "bold": "**a",
    "foreign digits": "\u0664",
    "sentences": "x. ",
    "leads": "answer is the the ",
    "lists": "\nA. x",
    "powers": "1 x 10^",
    "a:": "\nA:",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_time_is_linear_on_hostile_texts(unit: str) -> None:
    """200 kB of each pattern under all extractors; a quadratic rule takes minutes, a linear one about 0.1 s."""
    text = unit * (200_000 // len(unit))
    for extractor in EXTRACTORS.values():
        for whole in (text, f"The answer is {text} is (A)."):
            start = time.process_time()
            extractor(whole, num_options=10)
            assert time.process_time() - start < 5.0, extractor.id
