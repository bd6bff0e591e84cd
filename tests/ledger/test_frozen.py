"""Rules that were frozen before their runs are still the rules that judge them."""

import importlib.util
import json
from importlib import import_module
from pathlib import Path

import pytest
from frozen import rules_fingerprint

from paper_lib.ground.tables import table_parts
from paper_lib.ledger import rules

RESULTS = Path(__file__).parents[2] / "data" / "results"
RULE = '''"""Words."""
MARGIN = 0.1  # why


def rule(a, b):
    """More words."""
    return a > b + MARGIN
'''


@pytest.fixture
def print_of(tmp_path):
    def of(source, name="rule"):
        path = tmp_path / f"{name}_{abs(hash(source))}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return rules_fingerprint(module)

    return of


def test_words_about_a_rule_and_its_layout_leave_its_print(print_of):
    said = RULE.replace("Words", "Other words").replace("  # why", "").replace("More words", "Fewer")
    assert print_of(said.replace("return a > b + MARGIN", "return (a\n        > b + MARGIN)")) == print_of(
        RULE
    )
    without = RULE.replace('    """More words."""\n', "")
    assert print_of(without) == print_of(RULE)


@pytest.mark.parametrize(
    ("old", "new"), [("0.1", "0.10001"), (">", ">="), ("b + MARGIN", "b - MARGIN"), ("a, b", "b, a")]
)
def test_a_margin_or_a_rule_changes_it(print_of, old, new):
    assert print_of(RULE.replace(old, new)) != print_of(RULE)


def test_several_modules_have_a_print_of_their_own():
    modules = [import_module(f"{rules.__name__}.{name}") for name in ("weights", "projection")]
    prints = {rules_fingerprint(*modules), *map(rules_fingerprint, modules)}
    assert len(prints) == 3
    assert all(len(each) == 16 for each in prints)


def test_the_rules_of_a_profile_are_those_frozen_before_its_runs():
    changed = []
    for path in RESULTS.glob("*/rules.json"):
        frozen = json.loads(path.read_text())
        modules = [import_module(f"{rules.__name__}.{name}") for name in frozen["rules"]]
        held = [table_parts(table)["rules"] for table in path.parent.glob("*.parquet")]
        if rules_fingerprint(*modules) != frozen["fingerprint"] or any(each != frozen for each in held):
            changed.append(path.parent.name)
    assert not changed
