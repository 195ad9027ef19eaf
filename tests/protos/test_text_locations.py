"""Where fields stand in a text."""

from __future__ import annotations

import pytest

from servable.protos.text_locations import field_places

TEXT = """# a { comment: "here" }
list: {
  item { name: "a{b", tags: [1, 2] tags: 3; }
  item: [ < name: 'c' "d"
      'e' >, { name: "f" } ] }
[type.googleapis.com/x.Y] { deep: -1 }
last: END"""


def test_each_field_has_its_line_and_column() -> None:
    found = {path: str(place) for path, place in field_places(TEXT).items()}
    assert found == {
        ("list", 0): "2:1",
        ("list", 0, "item", 0): "3:3",
        ("list", 0, "item", 0, "name", 0): "3:10",
        ("list", 0, "item", 0, "tags", 0): "3:23",
        ("list", 0, "item", 0, "tags", 1): "3:23",
        ("list", 0, "item", 0, "tags", 2): "3:36",
        ("list", 0, "item", 1): "4:3",
        ("list", 0, "item", 1, "name", 0): "4:13",
        ("list", 0, "item", 2): "4:3",
        ("list", 0, "item", 2, "name", 0): "5:16",
        ("[type.googleapis.com/x.Y]", 0): "6:1",
        ("[type.googleapis.com/x.Y]", 0, "deep", 0): "6:29",
        ("last", 0): "7:1",
    }


@pytest.mark.parametrize("text", ["", "a", "a:", "a {", "a: [", "}", "]", "[", '"', "a: [{", "a { b: 1", "::", "a: [1"])
def test_what_is_no_such_text_gives_less_and_no_error(text: str) -> None:
    assert len(field_places(text)) <= 2
