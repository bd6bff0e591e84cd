"""The book: executed notebooks, ledger, glossary and reference, as a site that needs no network."""

import sys
from importlib.util import find_spec
from pathlib import Path

from paper_lib import __version__

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "making"))

# A package that carries MathJax: nothing is asked of a CDN.
MATHJAX = find_spec("sphinx-mathjax-offline")
assert MATHJAX is not None
assert MATHJAX.submodule_search_locations
mathjax_path = "mathjax/tex-chtml.js"

project = 'A companion to "On the Geometry of On-Policy Distillation"'
author = "The companion's maintainers"
copyright = "the companion's maintainers"
release = version = __version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.mathjax",
    "sphinxcontrib.bibtex",
    "docstrings",
    "linking",
]
exclude_patterns = ["answer.md", "verdicts.md", "badges.md", "_extra"]
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3

copybutton_prompt_text = ">>> "

# The notebooks were executed by Papermill, and `executed` took out what would need a kernel.
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # by itself it knows no tables

viewcode_follow_imported_members = False  # a name has its code where it is defined

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
smartquotes = False

html_theme = "furo"
html_title = "The geometry of on-policy distillation: a companion"
html_static_path = ["static", *(f"{place}/static" for place in MATHJAX.submodule_search_locations)]
html_extra_path = ["../build/book-source/_extra"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
