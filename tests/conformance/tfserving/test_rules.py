"""Every rule of docs/reference/tfserving.md has a test, and every test that names a rule names one of the page."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "tfserving.md"
NOT_SEEN_FROM_OUTSIDE = {"lookup-6"}
"""Ports open after the moment that it speaks of; ``tests/lifecycle`` has its test."""
_ID = re.compile(r"^\| `([a-z-]+-\d+)` \| \S", re.MULTILINE)


def rules_of(page: str) -> list[str]:
    """Return the ids in the tables of a page."""
    return _ID.findall(page)


def rules_named_in(source: str) -> Iterator[tuple[str, str]]:
    """Yield each test that names rules, with each of them: ``@rule("...")``, or ``@pytest.mark.rule("...")``."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in {"rule", "pytest.mark.rule"}:
                assert node.name.startswith(("test_", "check_")), f"{node.name} is no test"
                assert decorator.args, f"{node.name} names no rule"
                for argument in decorator.args:
                    yield node.name, ast.literal_eval(argument)


def named_by_tests() -> dict[str, set[str]]:
    """Return the tests of each rule that any file of tests names."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "tests").rglob("*.py")):
        source = file.read_text()
        if "rule(" in source:
            for test, rule in rules_named_in(source):
                found.setdefault(rule, set()).add(f"{file.relative_to(ROOT)}::{test}")
    return found


def test_every_rule_has_a_test() -> None:
    missing = set(rules_of(PAGE.read_text())) - named_by_tests().keys()
    assert not missing, f"no test names {sorted(missing)}"


def test_every_rule_is_judged_from_outside() -> None:
    """By clients of a live server that this project did not write: the stubs over grpcio, curl, plain HTTP."""
    here = {
        rule for rule, tests in named_by_tests().items() if any(each.startswith("tests/conformance/") for each in tests)
    }
    assert set(rules_of(PAGE.read_text())) - here == NOT_SEEN_FROM_OUTSIDE


def test_every_test_names_rules_of_the_page() -> None:
    known = set(rules_of(PAGE.read_text()))
    unknown = {rule: tests for rule, tests in named_by_tests().items() if rule not in known}
    assert not unknown


def test_every_row_of_the_page_is_one_rule() -> None:
    text = PAGE.read_text()
    ids = rules_of(text)
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| id ", "| --- "))]
    assert len(rows) == len(ids), "a row has no id, or one of another form"
    assert [rule for rule, times in Counter(ids).items() if times > 1] == []
    assert len(ids) > 150


def test_what_counts_as_naming_a_rule() -> None:
    source = """
@rule("a-1")
def check_x(api): ...

@pytest.mark.parametrize("n", [1])
@pytest.mark.rule("a-2", "b-1")
def test_y(n): ...

def test_z(): rule("c-1")
"""
    assert list(rules_named_in(source)) == [("check_x", "a-1"), ("test_y", "a-2"), ("test_y", "b-1")]
