"""One output serves every reader, and turning a control changes the picture and its words."""

import base64

import pytest
from matplotlib.figure import Figure

from paper_lib.ground.errors import CompanionError
from paper_lib.teaching.play import WIDGET, Play, choice

SIZES = [("small", 1), ("large", 3)]
PARTS = [(str(n), n) for n in range(1, 4)]
PNG = b"\x89PNG"


def inputs():
    return {"size": choice("Size", SIZES, 3, slider=True), "part": choice("Part", PARTS, 2)}


def draw(size, part):
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, size], [0, part])
    return figure, f"part {part} <of> {size}"


@pytest.fixture
def play():
    return Play(inputs(), draw)


def test_one_output_has_widgets_html_a_png_and_a_sentence(play):
    bundle = play._repr_mimebundle_()
    assert set(bundle) == {WIDGET, "text/html", "image/png", "text/plain"}
    assert bundle[WIDGET]["model_id"] == play.widget.model_id
    assert base64.b64decode(bundle["image/png"]).startswith(PNG)
    assert bundle["text/plain"] == "part 2 <of> 3"
    assert 'alt="part 2 &lt;of&gt; 3"' in bundle["text/html"]
    assert bundle["image/png"] in bundle["text/html"]


def test_it_is_one_picture_whatever_shows_it_and_the_same_bytes_again(play):
    assert play.first.png == Play(inputs(), draw).first.png
    assert play.first.source in play.picture.value


def test_turning_a_control_changes_the_picture_and_its_words(play):
    before = play.picture.value
    play.inputs["part"].value = 3
    assert play.picture.value.count("part 3 &lt;of&gt; 3") == 2  # as alternative text, and below it
    assert play.still(part=3).source in play.picture.value
    assert play.first.source in before


def test_a_start_that_is_not_offered_is_the_first_option():
    assert choice("Part", PARTS, 7).value == 1


def test_one_turn_draws_once(play):
    drawn = []
    play.picture.observe(lambda change: drawn.append(change["new"]), names="value")
    play.inputs["size"].value = 1
    assert len(drawn) == 1


def test_every_control_has_its_label(play):
    assert [each.description for each in play.inputs.values()] == ["Size", "Part"]


def test_a_control_without_options_is_refused():
    with pytest.raises(CompanionError, match="'Part' has nothing to choose from"):
        choice("Part", [])
