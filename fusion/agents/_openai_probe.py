"""Finding out about a server: by what means it scores, and what would go wrong with asking it."""

import email.utils
import time
from collections.abc import Sequence
from dataclasses import replace

from fusion.agents._http_retry import Fault, WrongShapeError
from fusion.agents._openai_body import MEANS, PER_TEXT, check_request, is_labels, served_name
from fusion.agents._openai_endpoint import Endpoint
from fusion.agents._openai_score import NoLabelError, scores_of, untold
from fusion.errors import EngineError, suggest
from fusion.schema import Finding, Request

_NOT_OFFERED = frozenset({400, 405, 413, 415, 422, 501})
_CLOCK_OFF_S = 60


async def best_means(endpoint: Endpoint, request: Request) -> str | None:
    """Return the best means that the server offers for requests like this one; None when there is none.

    Args:
        endpoint: The server.
        request: One with continuations; one call is made for each means that is tried.

    Raises:
        EngineError: When the server does not say.
    """
    labels = is_labels(request.continuations)
    for means in MEANS[endpoint.dialect.api]:
        if (means in PER_TEXT or labels) and await _offers(endpoint, replace(request, scoring=means)):
            return means
    return None


async def _offers(endpoint: Endpoint, request: Request) -> bool:
    sent = await endpoint.try_means(request)
    if sent.answer is None:
        assert sent.fault is not None, "a request is answered or has failed"
        if sent.fault.code in _NOT_OFFERED:
            return False
        raise EngineError(
            f"cannot find out how {endpoint.base_url} scores options: {endpoint.redacted(sent.fault.detail)}; "
            "see to the server, or set the engine's score_by to none or to the name of a means"
        )
    try:
        scores_of(sent.answer, request, endpoint.dialect, 0)
    except (WrongShapeError, NoLabelError):
        return False
    # A label of two characters that is not told may be two tokens, and would then never be.
    long = [label for label in request.continuations if len(label.strip()) > 1]
    return request.scoring in PER_TEXT or not untold(sent.answer, endpoint.dialect, long)


async def examine(endpoint: Endpoint, request: Request) -> Sequence[Finding]:
    """Return what is wrong with key, server, model or clock."""
    try:
        check_request(request, endpoint.dialect)
        listed = await endpoint.models()
    except EngineError as error:
        return (Finding("error", str(error), "mend the engine's parameters"),)
    name = served_name(request)
    if isinstance(listed, Fault):
        return (_unlisted(endpoint, listed),)
    names, date = listed
    found = []
    if names and name not in names:
        what = f"{endpoint.base_url} lists no model {name!r}{suggest(name, names)}"
        found.append(Finding("error", what, "set the agent's model to one that is listed"))
    skew = _skew_s(date)
    if abs(skew) > _CLOCK_OFF_S:
        what = f"the server's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
        found.append(Finding("note", what, "set the clock of the machine that is wrong"))
    return tuple(found)


def _unlisted(endpoint: Endpoint, fault: Fault) -> Finding:
    said = endpoint.redacted(fault.detail)
    if fault.code in (401, 403):
        return Finding("error", f"{endpoint.base_url} refuses the key: {said}", "put a valid key into the variable")
    if fault.code:
        what = f"{endpoint.base_url}/models cannot be read: {said}"
        return Finding("warning", what, "check base_url; whether the model exists is not known")
    return Finding("error", f"{endpoint.base_url} cannot be reached: {said}", "start the server, or mend base_url")


def _skew_s(date: str) -> float:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time() if date else 0.0
    except (ValueError, OverflowError):
        return 0.0
