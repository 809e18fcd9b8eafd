"""What is asked (tasks, a plug-in package) and what was answered (tables).

Reading files and loading tasks import pyarrow and the task's own module, so these names are resolved on
first use.
"""

from typing import TYPE_CHECKING

from fusion._lazy import lazy
from fusion.data._table import PredictionTable, StrArray, describe_difference

if TYPE_CHECKING:
    from fusion.data._adhoc import make_question
    from fusion.data._choice import LETTERS
    from fusion.data._import import FORMATS, import_records, read_table, write_table
    from fusion.data._notes import table_notes
    from fusion.data._open import canonical
    from fusion.data._order import (
        accuracy_when_answering,
        by_accuracy,
        category_names,
        category_places,
        is_open,
        name_keys,
    )
    from fusion.data._parse import EXTRACTORS, get_extractor
    from fusion.data._rescore import rescore
    from fusion.data._right import best_rated, right_answers
    from fusion.data._splits import Split, folds, require_disjoint, split
    from fusion.data._tabulate import Call, FreeForm, Reader, tabulate
    from fusion.data._task import load_task
    from fusion.data._wide import WideLayout, from_pandas, read_wide

_HOMES = {
    "Call": "fusion.data._tabulate",
    "EXTRACTORS": "fusion.data._parse",
    "FORMATS": "fusion.data._import",
    "LETTERS": "fusion.data._choice",
    "FreeForm": "fusion.data._tabulate",
    "Reader": "fusion.data._tabulate",
    "Split": "fusion.data._splits",
    "WideLayout": "fusion.data._wide",
    "accuracy_when_answering": "fusion.data._order",
    "best_rated": "fusion.data._right",
    "by_accuracy": "fusion.data._order",
    "canonical": "fusion.data._open",
    "category_names": "fusion.data._order",
    "category_places": "fusion.data._order",
    "folds": "fusion.data._splits",
    "from_pandas": "fusion.data._wide",
    "get_extractor": "fusion.data._parse",
    "import_records": "fusion.data._import",
    "load_task": "fusion.data._task",
    "make_question": "fusion.data._adhoc",
    "is_open": "fusion.data._order",
    "name_keys": "fusion.data._order",
    "read_table": "fusion.data._import",
    "read_wide": "fusion.data._wide",
    "require_disjoint": "fusion.data._splits",
    "rescore": "fusion.data._rescore",
    "right_answers": "fusion.data._right",
    "split": "fusion.data._splits",
    "table_notes": "fusion.data._notes",
    "tabulate": "fusion.data._tabulate",
    "write_table": "fusion.data._import",
}

__all__ = [
    "EXTRACTORS",
    "FORMATS",
    "LETTERS",
    "Call",
    "FreeForm",
    "PredictionTable",
    "Reader",
    "Split",
    "StrArray",
    "WideLayout",
    "accuracy_when_answering",
    "best_rated",
    "by_accuracy",
    "canonical",
    "category_names",
    "category_places",
    "describe_difference",
    "folds",
    "from_pandas",
    "get_extractor",
    "import_records",
    "is_open",
    "load_task",
    "make_question",
    "name_keys",
    "read_table",
    "read_wide",
    "require_disjoint",
    "rescore",
    "right_answers",
    "split",
    "table_notes",
    "tabulate",
    "write_table",
]

__getattr__ = lazy(__name__, _HOMES)
