"""The report: one self-contained HTML page that opens from disk and asks nobody for anything."""

from fusion.reports._page import page
from fusion.reports._page_data import (
    AnsweredPart,
    ConfidenceRow,
    MemberWorth,
    PolicyTable,
    ReportData,
    RowRole,
    StabilityRow,
    SubsetCloud,
    SystemRow,
    WeightTable,
)


def render(data: ReportData) -> str:
    """Return the page as text; write it as UTF-8.

    It shows the verdict; accuracies with intervals; scored sub-ensembles by diversity and accuracy; who errs alike,
    and who fails together, against what independence would give; what accuracy costs; whom policies ask, and what they
    are worth stopped earlier; how far to trust what systems say of their answers; what votes weigh; what each member
    adds; strengths by category; and every question with every answer. Sections without data are left out.
    """
    return page(data)


__all__ = [
    "AnsweredPart",
    "ConfidenceRow",
    "MemberWorth",
    "PolicyTable",
    "ReportData",
    "RowRole",
    "StabilityRow",
    "SubsetCloud",
    "SystemRow",
    "WeightTable",
    "render",
]
