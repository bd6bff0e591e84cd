"""The print of a module of rules, taken before the runs that it is to judge and compared ever after.

`data/results/<profile>/rules.json` holds {"rules": names of modules in `ledger.rules`, "fingerprint": theirs,
"frozen": the day, ISO}. It is committed before the first run that the profile reports; extraction copies it
into the metadata of every table that it writes.
"""

import ast
import hashlib
import inspect
from types import ModuleType
from typing import Any


def rules_fingerprint(*modules: ModuleType) -> str:
    """16 hexadecimal digits that change with any margin, rule or word of a claim in these modules.

    They do not change with comments, docstrings, layout or the version of Python. What a module imports
    counts where its module is named as well: margins of a frozen module stand in the module itself.
    """
    trees = [_plain(ast.parse(inspect.getsource(module))) for module in modules]
    return hashlib.sha256(repr(trees).encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """A syntax tree as nested lists, without positions, bare strings and empty fields."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *((name, _plain(value)) for name, value in fields)]
    if isinstance(node, list):
        bare = [isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) for each in node]
        return [_plain(each) for each, idle in zip(node, bare, strict=True) if not idle]
    return repr(node)
