"""In a browser, without a kernel, a view says what Python says, by keyboard, and stays in its place.

Skipped where there is no Chromium.
"""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import find_chromium
from playwright import sync_api as playwright
from test_play_tables import choices, tolerances
from test_views import rollouts, tables

from paper_lib.teaching.charts import SHOWN, play_mixing, play_tolerance
from paper_lib.teaching.rollout import mixed, play_rollouts, rollout_record, said_at, signed

pytestmark = pytest.mark.slow
CHROMIUM = find_chromium()
PAGE = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>views</title>'
    '<meta name="viewport" content="width=device-width"></head>'
    "<body><main><h1>Views</h1>{}</main></body></html>"
)


@pytest.fixture(scope="module")
def plays():
    """By the view's name; the page has each twice."""
    rollout = play_rollouts(rollout_record(**rollouts()), row=1)
    return {"rollout": rollout, "chart": play_mixing(*tables(), modules=["q"])}


@pytest.fixture(scope="module")
def tolerance():
    values = {("opd", 0, "bfloat16", k): 0.5 + k for k in (0.0, 1e-3, 1e-2)}
    values |= {("opd", 0, "float32", k): k for k in (0.0, 1e-3)}
    values |= {("sft", seed, "bfloat16", k): 0.1 + k + seed / 50 for k in (0.0, 1e-3) for seed in range(3)}
    return play_tolerance(tolerances(values), runs=["sft", "opd"], eta=1e-3)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def show(browser, html, width):
    """A page with this HTML; a warning or error on its console fails the test."""
    heard = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "request", lambda request: heard.append(request.url) if not request.url.startswith("data:") else None
    )
    page.set_content(PAGE.format(html))
    yield page
    page.close()
    assert heard == []


@pytest.fixture(params=[400, 1280])
def opened(browser, plays, request):
    """A narrow and a wide page with every view twice."""
    html = "".join(2 * play.html for play in plays.values())
    yield from show(browser, html, request.param)


@pytest.fixture(params=[400, 1280])
def chart(browser, tolerance, request):
    """A narrow and a wide page with the view of tolerances."""
    yield from show(browser, tolerance.html, request.param)


def part(page, view, name, kind="output", place=0):
    return page.locator(f'[data-view="{view}"]').nth(place).locator(f'[data-{kind}="{name}"]')


def expect_said(page, view, words, place=0):
    """Wait until a view says these words: a key pressed may be handled a moment later."""
    playwright.expect(part(page, view, "said", place=place)).to_have_text(words, use_inner_text=True)


@pytest.mark.parametrize("view", ["rollout", "chart"])
def test_a_view_starts_where_the_picture_does_and_takes_its_place(opened, plays, view):
    for place in (0, 1):
        expect_said(opened, view, plays[view].words, place)
        assert not part(opened, view, "still", place=place).is_visible()
        assert part(opened, view, "said", place=place).get_attribute("aria-live") == "polite"


def test_choosing_a_completion_and_turning_alpha_says_what_python_says(opened, plays):
    record = rollout_record(**rollouts())
    for prompt, completion, alpha in ((0, 0, 0.0), (0, 3, 1.0), (1, 2, 0.3), (0, 1, 0.57)):
        part(opened, "rollout", "prompt", "control").select_option(str(prompt))
        part(opened, "rollout", "completion", "control").select_option(str(completion))
        part(opened, "rollout", "alpha", "control").fill(str(alpha))
        words = said_at(record["prompts"][prompt]["completions"][completion], alpha)
        expect_said(opened, "rollout", words)
        rows = part(opened, "rollout", "tokens").locator("tbody tr").all()
        shown = [row.locator("td").nth(5).inner_text() for row in rows]
        credits = mixed(record["prompts"][prompt]["completions"][completion], alpha)
        assert [text for text in shown if text] == [signed(credit) for credit in credits]
    expect_said(opened, "rollout", plays["rollout"].words, place=1)  # the other copy did not move


def test_the_keyboard_is_enough(opened, plays):
    said = choices(plays["chart"])
    part(opened, "chart", "alpha", "control").focus()
    opened.keyboard.press("End")
    expect_said(opened, "chart", said["α = 1, OPD", "stable rank"])
    opened.keyboard.press("Tab")
    opened.keyboard.press("ArrowDown")
    expect_said(opened, "chart", said["α = 1, OPD", list(SHOWN.values())[1]])
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_options_follow_the_controls_before_them(chart, tolerance):
    said = choices(tolerance)
    part(chart, "chart", "eta", "control").focus()
    chart.keyboard.press("End")
    expect_said(chart, "chart", said["OPD", "bf16", "0.01"])
    part(chart, "chart", "precision", "control").select_option(label="fp32")  # not measured at 0.01
    expect_said(chart, "chart", said["OPD", "fp32", "0"])
    part(chart, "chart", "run", "control").select_option(label="SFT")  # nor in fp32
    expect_said(chart, "chart", said["SFT", "bf16", "0"])
    assert part(chart, "chart", "precision", "control").locator("option").all_inner_texts() == ["bf16"]


def test_the_ring_lies_on_the_line_that_it_marks(chart):
    ring = chart.locator("svg .ring")
    dots = [[dot.get_attribute(name) for name in ("cx", "cy")] for dot in chart.locator("svg .dot").all()]
    assert [ring.get_attribute(name) for name in ("cx", "cy")] in dots


def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    twice = {"rules": {"landmark-unique": {"enabled": False}}}  # as this page has every view twice
    assert [rule["id"] for rule in Axe().run(opened, options=twice).response["violations"]] == []


def test_axe_finds_nothing_in_a_view_of_several_panels(chart):
    assert chart.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [rule["id"] for rule in Axe().run(chart).response["violations"]] == []


def test_dark_and_light_follow_the_system_and_then_the_theme(opened):
    def ground() -> int:
        color = opened.evaluate("getComputedStyle(document.querySelector('.paper-view')).backgroundColor")
        return sum(map(int, re.findall(r"\d+", color)[:3]))

    opened.emulate_media(color_scheme="light")
    light = ground()
    opened.emulate_media(color_scheme="dark")
    dark = ground()
    opened.evaluate("document.documentElement.dataset.theme = 'light'")
    assert ground() == light
    opened.emulate_media(color_scheme="light")
    opened.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert ground() == dark < light


def test_without_scripts_the_picture_is_there(browser, plays):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(PAGE.format(plays["rollout"].html))
    assert part(page, "rollout", "still").is_visible()
    assert part(page, "rollout", "still").get_attribute("alt") == plays["rollout"].words
    assert not part(page, "rollout", "live").is_visible()
    context.close()
