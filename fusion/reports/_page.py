"""The report as one HTML page: fills the skeleton in `assets` with text, numbers and compressed arrays.

The page asks nobody for anything: style, script and data are inside, and a content security policy forbids the rest,
so that not even a hostile name of an agent could run or load something.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np

from fusion.reports import _page_parts as parts
from fusion.reports import _page_policy as policy
from fusion.reports import _page_study as study_of
from fusion.reports import _page_trust as trust
from fusion.reports._page_data import ReportData, SubsetCloud
from fusion.reports._page_parts import Dot, percent, points, text
from fusion.reports._page_study import Study
from fusion.schema import FloatArray, IntArray, Json

# In this order: what stands in an earlier file is used by later ones.
_SCRIPTS = (
    *("report_page.js", "report_heat.js", "report_charts.js", "report_trust.js"),
    *("report_policy.js", "report_cloud.js", "report_items.js", "report.js"),
)
_LEVELS = 65535  # of a number in a cloud: below a hundred-thousandth of its range, far finer than a pixel


def page(data: ReportData) -> str:
    """Return the whole page."""
    study = Study.of(data)
    script = f'(() => {{\n"use strict";\n{"".join(_asset(name) for name in _SCRIPTS)}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    kept = _kept(data, study)
    skeleton = _without_blocks(_asset("report.html"), kept)
    values = {
        "title": text(data.title),
        "css": _asset("report.css"),
        "script": script,
        "script_hash": f"sha256-{digest}",
        "contents": _contents(skeleton, errors_heading=_errors_heading(study)),
        "payload": _payload(data, study, kept),
        **_verdict(data, study),
        **_static(data, study),
        **_cloud_parts(data),
        **trust.static(data),
        **policy.static(data),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], skeleton)


def _kept(data: ReportData, study: Study) -> set[str]:
    """Return the blocks of the skeleton that have something to show."""
    conditions = {
        "verdict": True,
        "systems": bool(data.systems),
        "diversity": data.subsets is not None,
        "errors": study.pairs is not None,
        "failures": study.failures is not None,
        "failing_sets": bool(study.sets),
        "pareto": bool(_pareto(data)) or len(_priced(data)) > 1,
        "pareto_table": bool(_pareto(data)),
        "policies": bool(data.policies),
        "confidence": bool(data.confidences),
        "weights": bool(data.weights),
        "worth": data.worth is not None,
        "stability": bool(data.stability),
        "categories": study.strengths is not None,
        "items": True,
        "provenance": bool(data.notes or data.provenance),
    }
    return {name for name, kept in conditions.items() if kept}


def _pareto(data: ReportData) -> list[int]:
    return [] if data.subsets is None else data.subsets.pareto.tolist()


def _priced(data: ReportData) -> list[Json]:
    """Return the systems that the cost chart can place."""
    return [
        {
            "label": row.label,
            "role": row.role,
            "accuracy": row.accuracy,
            "low": row.low,
            "high": row.high,
            "calls": row.calls_per_question,
            "usd": row.usd_per_question,
        }
        for row in data.systems
        if row.calls_per_question is not None or row.usd_per_question is not None
    ]


def _asset(name: str) -> str:
    return (resources.files("fusion.reports") / "assets" / name).read_text(encoding="utf-8")


def _without_blocks(skeleton: str, kept: set[str]) -> str:
    """Return `skeleton` without the blocks that are not in `kept`, and without the marks around the others."""

    def chosen(found: re.Match[str]) -> str:
        return _without_blocks(found[2], kept) if found[1] in kept else ""

    return re.sub(r"[ \t]*<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->\n", chosen, skeleton, flags=re.DOTALL)


def _contents(skeleton: str, *, errors_heading: str) -> str:
    sections = re.findall(r'<section id="(\w+)"(?: aria-label="(\w+)")?>\s*(?:<h2>(.*?)</h2>)?', skeleton)
    return "\n".join(
        f'      <li><a href="#{name}">{(label or heading).replace("{{errors_heading}}", errors_heading)}</a></li>'
        for name, label, heading in sections
    )


def _errors_heading(study: Study) -> str:
    return "Who agrees with whom" if study.right is None else "Who errs alike"


def _verdict(data: ReportData, study: Study) -> dict[str, str]:
    headline, *rest = data.verdict or (data.title,)
    return {
        "headline": text(headline),
        "verdict_rest": parts.paragraphs(rest),
        "figures": "\n".join(parts.figure(value, words) for value, words in study_of.headline_figures(data, study)),
    }


def _static(data: ReportData, study: Study) -> dict[str, str]:
    labelled = study.right is not None
    searched = "Find id or text" if data.question_texts else "Find id"
    return {
        "systems_words": text(study_of.systems_words(data)),
        "systems_legend": parts.roles_legend(row.role for row in data.systems),
        "systems_table": _systems_table(data),
        "errors_heading": _errors_heading(study),
        "errors_words": text(study_of.pairs_words(data, study.pairs, labelled=labelled)) if study.pairs else "",
        "errors_no_labels": "" if labelled else "hidden disabled",
        "failures_words": text(study_of.failures_words(study)),
        "failures_table": _failures_table(data, study),
        "worth_words": (
            "Accuracy of everybody together minus accuracy without the member (leave one out), and the member's mean "
            "gain over all orders of joining (Shapley value), in percentage points."
        ),
        "worth_table": _worth_table(data),
        "stability_table": parts.share_table(
            ("members", "among the ten best"),
            [(study_of.listed(row.agents), row.share) for row in data.stability or ()],
        ),
        "categories_words": text(study_of.categories_words(data, study.strengths)) if study.strengths else "",
        "items_words": _items_words(labelled=labelled),
        "num_agents": str(len(data.agents)),
        "search_words": searched,
        "notes": parts.bullets(data.notes),
        "provenance": parts.definitions(data.provenance),
    }


def _items_words(*, labelled: bool) -> str:
    if labelled:
        return "Every question and every answer. Open a line to see who said what."
    return "Every question and every answer; right and wrong are not known. Open a line to see who said what."


def _systems_table(data: ReportData) -> str:
    if not data.systems:
        return ""
    rows = sorted(data.systems, key=lambda row: -row.accuracy)
    headings = ["", "accuracy %", "95 % CI"]
    calls, prices = (
        any(getattr(row, name) is not None for row in rows) for name in ("calls_per_question", "usd_per_question")
    )
    headings += ["calls"] * calls + ["USD / 1000"] * prices
    dots = []
    for row in rows:
        cells = [percent(row.accuracy), parts.interval(percent(row.low), percent(row.high))]
        cells += [_optional(row.calls_per_question, "{:.3g}")] * calls
        cells += [_optional(row.usd_per_question and 1000 * row.usd_per_question, "{:.3f}")] * prices
        dots.append(
            Dot(label=row.label, role=row.role, value=row.accuracy, low=row.low, high=row.high, cells=tuple(cells))
        )
    members = [row.accuracy for row in rows if row.role == "member"]
    return parts.dot_table(
        dots,
        headings=headings,
        caption="Accuracy of members and ensembles",
        reference=max(members) if members else None,
    )


def _optional(value: float | None, form: str) -> str:
    return "\u2013" if value is None else form.format(value)


def _failures_table(data: ReportData, study: Study) -> str:
    rows = [
        (
            study_of.set_words(found.members, data.agents),
            str(len(found.members)),
            f"{found.count:,}",
            f"{found.expected:,.1f}" if found.expected >= 0.05 else "<0.1",
        )
        for found in study.sets
    ]
    return parts.plain_table(("exactly these fail", "members", "questions", "if independent"), rows)


def _worth_table(data: ReportData) -> str:
    worth = data.worth
    if worth is None:
        return ""
    dots = [
        Dot(
            label=worth.agents[at],
            role="worth",
            value=float(worth.shapley[at]),
            low=float(worth.shapley_low[at]),
            high=float(worth.shapley_high[at]),
            tick=float(worth.loo[at]),
            cells=(
                points(worth.shapley[at]),
                parts.interval(points(worth.shapley_low[at]), points(worth.shapley_high[at])),
                points(worth.loo[at]),
            ),
        )
        for at in np.argsort(-worth.shapley, kind="stable")
    ]
    headings = ("", "Shapley", "95 % CI", "left out")
    return parts.dot_table(dots, headings=headings, caption="What each member adds, in points", signed=True)


def _cloud_parts(data: ReportData) -> dict[str, str]:
    cloud = data.subsets
    names = ("diversity_words", "diversity_label", "diversity_table", "pareto_words", "pareto_table")
    empty = dict.fromkeys(names, "")
    if cloud is None:
        return empty | {"pareto_words": "Accuracy against the number of calls a question takes, and against its price."}
    top = np.argsort(-cloud.accuracy, kind="stable")[:10]
    front = cloud.pareto[np.argsort(cloud.accuracy[cloud.pareto], kind="stable")]
    return {
        "diversity_words": text(study_of.diversity_words(data)),
        "diversity_label": f"{cloud.num_subsets:,} sub-ensembles by diversity and accuracy",
        "diversity_table": _subsets_table(data, cloud, top.tolist()),
        "pareto_words": (
            "Sub-ensembles that no other one beats at the same size or price."
            + (" Hollow marks: the same ones on other questions." if cloud.test_accuracy is not None else "")
        ),
        "pareto_table": _subsets_table(data, cloud, front.tolist()),
    }


def _subsets_table(data: ReportData, cloud: SubsetCloud, rows: Sequence[int]) -> str:
    headings = ["members", "size", "accuracy %", "focal"]
    headings += ["test %"] * (cloud.test_accuracy is not None) + ["USD / 1000"] * (cloud.cost is not None)
    cells = []
    for row in rows:
        members = [data.agents[agent] for agent in cloud.members[row] if agent >= 0]
        line = [study_of.listed(members), str(len(members)), percent(cloud.accuracy[row], digits=2)]
        line.append(f"{cloud.focal[row]:.3f}".replace("-", "\u2212"))
        line += [] if cloud.test_accuracy is None else [percent(cloud.test_accuracy[row], digits=2)]
        line += [] if cloud.cost is None else [f"{1000 * cloud.cost[row]:.3f}"]
        cells.append(line)
    return parts.plain_table(headings, cells)


def _payload(data: ReportData, study: Study, kept: set[str]) -> str:
    """Return the data elements: one of JSON, and compressed arrays and texts."""
    values: dict[str, Json] = {
        "agents": list(data.agents),
        "ensembles": [*data.ensembles],
        "questions": len(data.question_ids),
        "sections": [*sorted(kept)],
        "systems": _priced(data),
        **trust.payload(data),
        **policy.payload(data),
    }
    if study.right is not None:
        values["accuracy"] = _numbers(study.right.mean(axis=0))
    if study.pairs is not None:
        values["pairs"] = {
            "value": _numbers(study.pairs.value.ravel()),
            "together": _integers(study.pairs.together),
            "same": _integers(study.pairs.same),
            "order": _integers(study.pairs.order),
        }
    if study.failures is not None and study.chance is not None:
        values["failures"] = {"observed": _integers(study.failures), "chance": _numbers(study.chance)}
    if study.strengths is not None:
        values["strengths"] = {
            "names": list(study.strengths.names),
            "counts": _integers(study.strengths.counts),
            "value": _numbers(study.strengths.value.ravel()),
        }
    blobs = dict(_item_blobs(data, values))
    if data.subsets is not None:
        blobs.update(_cloud_blobs(data.subsets, values))
    # In a script element only "<" can do harm: it could end the element, or begin a comment.
    told = json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    elements = [f'<script type="application/json" id="report-data">{told}</script>']
    elements += [
        f'<script type="text/plain" id="blob-{name}">{base64.b64encode(zlib.compress(raw, 9)).decode()}</script>'
        for name, raw in blobs.items()
    ]
    return "\n".join(elements)


def _integers(values: IntArray) -> list[Json]:
    """Return all entries in one row."""
    return [int(value) for value in values.ravel()]


def _numbers(values: FloatArray) -> list[Json]:
    """Return numbers for JSON, nan as null."""
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]


def _item_blobs(data: ReportData, values: dict[str, Json]) -> Iterator[tuple[str, bytes]]:
    """Yield what the question browser reads; says in `values` how wide the numbers are."""
    columns = [data.answers.T, *(answers_N[None] for answers_N in data.ensembles.values())]
    columns += [] if data.labels is None else [data.labels[None]]
    stacked = np.concatenate([column.astype(np.int16) for column in columns])
    narrow = stacked.min() >= -128 and stacked.max() < 128
    values["answer_bytes"] = 1 if narrow else 2
    # Agent by agent: neighbours in the file are then answers of one agent, which compresses best.
    yield "answers", stacked.astype(np.int8 if narrow else "<i2").tobytes()
    yield "ids", _texts(data.question_ids)
    if data.categories is not None:
        names = sorted(set(data.categories))
        codes = {name: code for code, name in enumerate(names)}
        values["categories"] = list(names)
        yield "categories", np.array([codes[name] for name in data.categories], dtype="<u4").tobytes()
    if data.question_texts is not None:
        yield "questions", _texts(data.question_texts)
    if data.option_texts is not None:
        yield "options", _texts(data.option_texts)


def _texts(values: Sequence[str] | Sequence[Sequence[str]]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _cloud_blobs(cloud: SubsetCloud, values: dict[str, Json]) -> Iterator[tuple[str, bytes]]:
    """Yield the sub-ensembles: members first to last, and every quantity in 65,536 levels."""
    ranges: dict[str, Json] = {}
    for name, column in cloud.columns.items():
        low, high = float(column.min()), float(column.max())
        ranges[name] = [low, high]
        yield f"cloud-{name}", _levels(column, low, high)
    wide = cloud.members.max() >= 255
    values["cloud"] = {
        "size": cloud.num_subsets,
        "width": cloud.members.shape[1],
        "member_bytes": 2 if wide else 1,
        "ranges": ranges,
        "best": cloud.best,
        "pareto": _integers(cloud.pareto),
        "sampled_from": cloud.sampled_from,
    }
    # -1 becomes the largest unsigned number.
    yield "cloud-members", cloud.members.T.astype("<i2").astype("<u2" if wide else "u1").tobytes()


def _levels(column: FloatArray, low: float, high: float) -> bytes:
    """Return uint16 [P] as two planes, high bytes and low bytes: similar bytes side by side compress better."""
    scale = _LEVELS / (high - low) if high > low else 0.0
    levels_P: IntArray = np.rint((column.astype(np.float64) - low) * scale).astype("<u2")
    return (levels_P >> 8).astype(np.uint8).tobytes() + (levels_P & 255).astype(np.uint8).tobytes()
