"""One's own numbers, placed in the page as Python places them; by keyboard, by paste, narrow and wide.

Skipped where there is no Chromium.
"""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright import sync_api as playwright
from test_views_in_browser import browser, expect_said, part, show  # noqa: F401

from paper_lib.compare.placing import REFERENCE
from paper_lib.geometry.metrics import METRICS
from paper_lib.ground.tables import read_table
from paper_lib.teaching.placing import NULL_ENDS, RANGES, placing_axis, play_placing, words_at

pytestmark = pytest.mark.slow
START = {"update_sparsity": 0.302, "relative_norm": 0.00731, "stable_rank": 14.2}
TABLES = read_table(REFERENCE), read_table(NULL_ENDS)
AXES = {name: placing_axis(name, *TABLES) for name in RANGES}
PASTE = """(input, text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text", text);
  input.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(params=[400, 1280])
def opened(browser, request):  # noqa: F811
    """A narrow and a wide page with the view."""
    yield from show(browser, play_placing(*TABLES, START).html, request.param)


def field(page, name):
    return part(page, "placing", name, "control")


def enter(page, name, text):
    """Write into a field and leave it: what is said changes at once, not after a pause."""
    field(page, name).fill(text)
    field(page, name).blur()


def said(**values):
    return " ".join(words_at(AXES[name], value) for name, value in values.items())


def written(name, value):
    """A value as it is shown, and what a page reads from it."""
    text = METRICS[name].show(value)
    return text, float(text.removesuffix("%")) / METRICS[name].scale


def clear(page):
    for name in RANGES:
        enter(page, name, "")


def values_of(name):
    """Values at, between, near and beyond the regimes and their nulls, and the ends of the range."""
    axis, (low, high) = AXES[name], RANGES[name]
    known = [end for ends in axis["columns"].values() for end in ends]
    known += [value for of in axis["nulls"].values() for value in of.values()]
    spread = [value * factor for value in known for factor in (0.5, 0.8, 0.93, 0.98, 1, 1.02, 1.07, 1.3, 2.5)]
    return [value for value in (low, high, *spread) if low <= value <= high]


def test_it_starts_with_the_numbers_given_as_the_picture_does(opened):
    expect_said(opened, "placing", said(**START))
    assert part(opened, "placing", "said").get_attribute("aria-live") == "polite"
    assert not part(opened, "placing", "still").is_visible()
    assert play_placing(*TABLES, START).words == said(**START)


@pytest.mark.parametrize("name", list(RANGES))
def test_the_page_places_every_number_as_python_does(opened, name):
    clear(opened)
    pairs = [written(name, value) for value in values_of(name)]
    shown = field(opened, name).evaluate(
        """(input, texts) => texts.map((text) => {
          input.value = text;
          input.dispatchEvent(new Event("change"));
          return input.closest(".paper-view").querySelector('[data-output="said"]').innerText.trim();
        })""",
        [text for text, _ in pairs],
    )
    wanted = [words_at(AXES[name], value) for _, value in pairs]
    assert shown == wanted
    kinds = {line.split(": ")[1].split()[0] for line in wanted}
    assert {"at", "near", "between", "beyond"} <= kinds
    assert any("without structure" in line for line in wanted) == bool(AXES[name]["nulls"])


def test_the_keyboard_is_enough_and_any_subset_will_do(opened):
    clear(opened)
    expect_said(opened, "placing", "No number yet.")
    field(opened, "update_sparsity").focus()
    opened.keyboard.press("Tab")
    opened.keyboard.type("1.7e-2")
    expect_said(opened, "placing", said(relative_norm=0.017).replace("1.7 %", "1.7e-2"))
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


REFUSED = [
    ("update_sparsity", "half", "“half” is no number"),
    ("update_sparsity", "0,33", "“0,33” is no number"),
    ("update_sparsity", "33", "33 is out of range, 0 to 1 (100 %); for a percentage write 33 %"),
    ("update_sparsity", "133 %", "133 % is out of range"),
    ("relative_norm", "−0.1", "-0.1 is out of range"),
    ("stable_rank", "0.4", "0.4 is out of range"),
    ("stable_rank", "4 %", "stable rank is no percentage"),
]


def test_what_is_no_number_or_out_of_range_is_said_and_not_drawn(opened):
    for name, text, words in REFUSED:
        clear(opened)
        enter(opened, name, text)
        playwright.expect(part(opened, "placing", "said")).to_contain_text(words)
        playwright.expect(field(opened, name).locator("+ .hint")).to_contain_text(words)
        assert field(opened, name).get_attribute("aria-invalid") == "true"
        assert opened.locator("svg .own").count() == 0
        enter(opened, name, "1")
        playwright.expect(field(opened, name)).to_have_attribute("aria-invalid", "false")


PASTED = [
    "0.302 0.00731\t14.2",
    "30.2 %; 0.731 %; 14.2",
    '{"stable_rank": 14.2, "update_sparsity": 0.302, "relative_norm": 0.00731}',
    "Relative norm: 0.731 %\nupdate sparsity = 30.2%\nstable rank | 14.2",
    "frobenius_norm: 4.7, sparsity: 0.302, norm: 0.00731, rank: 14.2",
    json.dumps({"rank_90": 3, "metrics": {k: {"paper": "", "value": v} for k, v in START.items()}}, indent=2),
]


def test_several_numbers_are_pasted_at_once_in_order_or_by_name(opened):
    for text in PASTED:
        clear(opened)
        field(opened, "update_sparsity").evaluate(PASTE, text)
        shown = [field(opened, name).input_value() for name in RANGES]
        values = [float(each.split("%")[0]) / (100 if "%" in each else 1) for each in shown]
        assert values == pytest.approx(list(START.values())), text
        assert opened.locator("svg .own").count() == 3


def test_a_value_past_the_edge_is_drawn_at_it(opened):
    enter(opened, "stable_rank", "90000")
    playwright.expect(part(opened, "placing", "said")).to_contain_text("90000: beyond SFT")
    svg = opened.locator("svg").nth(2)
    edge = svg.locator(".own").get_attribute("x1")
    assert float(edge) < float(svg.get_attribute("viewBox").split()[2])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(opened, scheme):
    opened.emulate_media(color_scheme=scheme)
    field(opened, "stable_rank").fill("four")
    playwright.expect(part(opened, "placing", "said")).to_contain_text("is no number")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [rule["id"] for rule in Axe().run(opened).response["violations"]] == []
    note = part(opened, "placing", "note").inner_text()
    assert "depend on the model's size, the steps and the learning rate" in note
