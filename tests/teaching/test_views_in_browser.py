"""In a browser, without a kernel, a view says what Python says, by keyboard, and stays in its place.

Skipped where there is no Chromium.
"""

import re

import pytest
from browsers import find_chromium
from playwright import sync_api as playwright
from test_views import rollouts, tables

from paper_lib.teaching.mixing import mixing_record, play_mixing
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
    return {"rollout": play_rollouts(**rollouts(), row=1), "mixing": play_mixing(*tables(), modules=["q"])}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, plays):
    """A page of narrow width with every view twice; a warning or error on its console fails the test."""
    heard = []
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "request", lambda request: heard.append(request.url) if not request.url.startswith("data:") else None
    )
    page.set_content(PAGE.format("".join(2 * play.html for play in plays.values())))
    yield page
    page.close()
    assert heard == []


def part(page, view, name, kind="output", place=0):
    return page.locator(f'[data-view="{view}"]').nth(place).locator(f'[data-{kind}="{name}"]')


def expect_said(page, view, words, place=0):
    """Wait until a view says these words: a key pressed may be handled a moment later."""
    playwright.expect(part(page, view, "said", place=place)).to_have_text(words, use_inner_text=True)


@pytest.mark.parametrize("view", ["rollout", "mixing"])
def test_a_view_starts_where_the_picture_does_and_takes_its_place(opened, plays, view):
    for place in (0, 1):
        expect_said(opened, view, plays[view].still.words, place)
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
    expect_said(opened, "rollout", plays["rollout"].still.words, place=1)  # the other copy did not move


def test_the_keyboard_is_enough(opened, plays):
    part(opened, "mixing", "alpha", "control").focus()
    opened.keyboard.press("End")
    paths = mixing_record(*tables(), modules=["q"])["runs"][2]["paths"]
    expect_said(opened, "mixing", paths["stable_rank"]["said"])
    opened.keyboard.press("Tab")
    opened.keyboard.press("ArrowDown")
    expect_said(opened, "mixing", paths["frobenius_norm"]["said"])
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_nothing_is_wider_than_a_narrow_page(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


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
    assert part(page, "rollout", "still").get_attribute("alt") == plays["rollout"].still.words
    assert not part(page, "rollout", "live").is_visible()
    context.close()
