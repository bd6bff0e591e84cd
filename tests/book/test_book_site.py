"""The built book works in a browser that has no network: make check-book."""

import re
from urllib.parse import urldefrag

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import SITE, typeset
from playwright.sync_api import expect

pytestmark = pytest.mark.site

SERIOUS = ("critical", "serious")


def test_the_claims_of_a_notebook_are_a_table(offline):
    page = offline.new_page()
    for name in ("03_sparsity", "04_pca", "05_locking", "06_controls"):
        page.goto((SITE / "notebooks" / f"{name}.html").as_uri())
        expect(page.locator("th", has_text=re.compile("^claim$")).first).to_be_visible()
        expect(page.locator("p", has_text="| claim |")).to_have_count(0)


def test_the_start_page_has_the_answer_and_four_doors(offline):
    page = offline.new_page()
    page.goto((SITE / "index.html").as_uri())
    assert page.locator("#what-we-found table tbody tr").count() == 6
    assert page.locator("#what-we-found ol > li").count() == 5
    assert page.locator(".figure-card img").count() == 4
    assert page.locator("#four-doors .sd-card").count() == 4


@pytest.mark.parametrize(("name", "least"), [("index", 4), ("figures", 25)])
def test_a_card_leads_to_its_figure(offline, name, least):
    page = offline.new_page()
    page.goto((SITE / f"{name}.html").as_uri())
    assert page.locator(".figure-card img").count() >= least
    page.locator(".figure-card").first.click()
    page.wait_for_url("**/notebooks/0*")
    page.locator(f"[id='{urldefrag(page.url)[1]}'] img").wait_for()


def test_the_first_mention_of_a_term_leads_to_the_glossary(offline):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / "05_locking.html").as_uri())
    page.get_by_role("link", name="stable rank", exact=True).first.click()
    page.wait_for_url("**/glossary.html#term-stable-rank")
    assert page.url.endswith("glossary.html#term-stable-rank")
    expect(page.locator("#term-stable-rank")).to_be_visible()


@pytest.mark.parametrize("equation", ["stable_rank", "frobenius_norm", "hill_index"])
def test_each_equation_of_figure_4_is_one_click_from_its_code(offline, equation):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / "05_locking.html").as_uri())
    page.get_by_role("link", name=f"spectra.{equation}", exact=True).first.click()
    page.wait_for_url(f"**/_modules/paper_lib/geometry/spectra.html#{equation}")
    expect(page.locator(f"#{equation}")).to_contain_text(f"def {equation}(")


@pytest.mark.parametrize(
    "name",
    [
        *("index", "figures", "findings", "data-reference", "glossary", "ledger", "teaching"),
        *("live", "notebooks/03_sparsity", "notebooks/06_controls"),
    ],
)
def test_pages_have_no_serious_barrier(offline, name):
    # Thousands of words of code have the same few colours on every page: one page shows them.
    parts = {} if name == "live" else {"exclude": [[".highlight"]]}
    page = offline.new_page()
    page.goto((SITE / f"{name}.html").as_uri())
    typeset(page)
    found = Axe().run(page, parts).response["violations"]
    page.emulate_media(color_scheme="dark")
    contrast = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
    found += Axe().run(page, parts, contrast).response["violations"]
    serious = [
        f"{each['id']}: {node['target']} {node['failureSummary'][:200]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"][:3]
    ]
    assert serious == []


def test_the_rollout_viewer_works_without_a_kernel_and_by_keyboard(offline):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / "01_train.html").as_uri())
    view = page.locator('[data-view="rollout"]')
    tokens, shown = view.locator('[data-output="tokens"]'), view.locator('[data-output="alpha"]')
    before = tokens.inner_text()
    completion = view.locator('[data-control="completion"]')
    completion.select_option(index=(completion.evaluate("select => select.selectedIndex") + 1) % 8)
    expect(tokens).not_to_have_text(before, use_inner_text=True)
    view.locator('[data-control="alpha"]').focus()
    page.keyboard.press("Home")
    expect(shown).to_have_text(re.compile(r"^0(\.0*)?$"))
    assert float(shown.inner_text()) == 0
    at_zero = tokens.inner_text()
    page.keyboard.press("End")
    expect(shown).to_have_text(re.compile(r"^1(\.0*)?$"))
    assert float(shown.inner_text()) == 1
    expect(tokens).not_to_have_text(at_zero, use_inner_text=True)


@pytest.mark.parametrize("name", ["05_locking", "06_controls"])
def test_a_chart_to_play_with_works_without_a_kernel_and_by_keyboard(offline, name):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / f"{name}.html").as_uri())
    view = page.locator('[data-view="chart"]').first
    said, first = view.locator('[data-output="said"]'), view.locator("[data-control]").first
    first.focus()
    heard = []
    for key in ("Home", "End"):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
        heard.append(said.inner_text())
    assert len(set(heard)) == 2
    expect(view.locator('[data-output="still"]')).to_be_hidden()
