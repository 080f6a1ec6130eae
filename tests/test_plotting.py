"""Drawings of models: their boxes and arrows are the graph's, and a reader can make them out."""

from __future__ import annotations

import importlib
import json
import random
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from reportlab.pdfbase.pdfmetrics import stringWidth

from torchfunc import Input, Model, Sequential, layers
from torchfunc.utils import model_to_dot, plot_model

SVG = "{http://www.w3.org/2000/svg}"


def read_svg(data: bytes):
    """The boxes by number (all polygons' points, all texts with places) and the arrows as pairs of numbers."""
    boxes, arrows = {}, []
    for group in ElementTree.fromstring(data).iter(f"{SVG}g"):
        title = group.findtext(f"{SVG}title")
        if group.get("class") == "node":
            cells = [_extent(each.get("points")) for each in group.iter(f"{SVG}polygon")]
            texts = [
                (
                    float(each.get("x")),
                    float(each.get("font-size")),
                    each.text,
                    each.get("text-anchor"),
                    each.get("font-weight"),
                )
                for each in group.iter(f"{SVG}text")
            ]
            boxes[int(group.get("id").removeprefix("box"))] = cells, texts
        elif group.get("class") == "edge":
            arrows.append(tuple(int(end.removeprefix("box")) for end in title.split("->")))
    return dict(sorted(boxes.items())), arrows


def _extent(points: str):
    pairs = [tuple(map(float, point.split(","))) for point in points.split()]
    return min(x for x, _ in pairs), min(y for _, y in pairs), max(x for x, _ in pairs), max(y for _, y in pairs)


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def assert_readable(boxes) -> None:
    outlines = {}
    for number, (cells, texts) in boxes.items():
        outlines[number] = tuple(f(cell[i] for cell in cells) for i, f in enumerate((min, min, max, max)))
        left, _, right, _ = outlines[number]
        for x, size, text, anchor, weight in texts:
            assert anchor == "start"
            width = stringWidth(text, "Helvetica-Bold" if weight == "bold" else "Helvetica", size)
            assert left <= x, text
            assert x + width <= right + 1, text
    for (one, a), (other, b) in combinations(outlines.items(), 2):
        assert not _overlap(a, b), (one, other)


def connections_of(model: Model):
    """The names of what each box feeds, read off the recorded calls."""
    found = {(value, model.node_name(node)) for node in model.nodes for value in node.inputs}
    return sorted((model.node_name(value.node), name) for value, name in found)


def random_model(seed: int) -> Model:
    rng = random.Random(seed)
    inputs = [Input((4,), name=f"in{i}") for i in range(rng.randint(1, 3))]
    values, shared = list(inputs), layers.Dense(4, name="shared")
    for _ in range(rng.randint(2, 14)):
        a, b = rng.choice(values), rng.choice(values)
        kind = rng.randrange(6)
        if kind == 0:
            values.append(layers.Dense(4, activation="relu")(a))
        elif kind == 1:
            values.append(layers.Concatenate()([a, b])[:, :4])
        elif kind == 2:
            values.append(torch.nn.Linear(4, 4)(a))
        elif kind == 3:
            values.append(torch.tanh(a) + b)
        elif kind == 4:
            values.append(shared(a))
        else:
            values.append(layers.Add()([a, b]))
    return Model(inputs, [values[-1], layers.Dense(2, name="head")(layers.Concatenate()([*inputs, values[-1]]))])


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_boxes_and_arrows_of_random_graphs(first):
    for seed in range(first, first + 25):
        model = random_model(seed)
        boxes, arrows = read_svg(model_to_dot(model, show_shapes=True).create())
        names = [texts[0][2] for _, texts in boxes.values()]
        by_number = dict(zip(boxes, names, strict=True))
        assert sorted((by_number[start], by_number[end]) for start, end in arrows) == connections_of(model)
        assert_readable(boxes)


def _nested():
    inner_input = Input((4,), name="z")
    encoder = Model(inner_input, [layers.Dense(3)(inner_input), layers.Dense(2)(inner_input)], name="encoder")
    a, b = Input((4,), name="a"), Input((4,), name="b")
    first, second = encoder(a)
    third, _ = encoder(b)
    return Model([a, b], layers.Concatenate(name="joined")([first, second, third]), name="outer")


def test_a_shared_nested_model_is_one_box_with_several_arrows():
    boxes, arrows = read_svg(model_to_dot(_nested()).create())
    assert len(boxes) == 4
    assert sorted(arrows) == [(0, 2), (1, 2), (2, 3), (2, 3), (2, 3)]


def test_an_expanded_model_is_a_frame_with_its_inside():
    drawing = model_to_dot(_nested(), expand_nested=True)
    boxes, arrows = read_svg(drawing.create())
    titles = ["".join(text[2] for text in texts) for _, texts in boxes.values()]
    assert titles == ["a (InputLayer)", "b (InputLayer)", "z (InputLayer)", "dense (Dense)", "dense_1 (Dense)"] + [
        "joined (Concatenate)"
    ]
    assert sorted(arrows) == [(0, 2), (1, 2), (2, 3), (2, 4), (3, 5), (3, 5), (4, 5)]
    assert 'label="encoder (Functional)"' in drawing.source
    assert_readable(boxes)


def test_an_expanded_sequential_takes_its_input_at_its_first_layer():
    x = Input((4,), name="x")
    inner = Sequential([Sequential([layers.Dense(2), layers.Dense(3)]), layers.Dense(4)])
    boxes, arrows = read_svg(model_to_dot(Model(x, inner(x)), expand_nested=True).create())
    assert len(boxes) == 4
    assert sorted(arrows) == [(0, 1), (1, 2), (2, 3)]


def test_the_mask_that_a_nested_model_returns_is_dashed():
    x, tokens = Input((4, 1), name="x"), Input((4, 1), name="tokens")
    inner = Model(x, layers.Masking()(layers.Dense(2)(x)))
    model = Model(tokens, layers.LSTM(3)(inner(tokens)))
    for expand, ends in ((False, ("1", "2")), (True, ("3", "4"))):
        source = model_to_dot(model, expand_nested=expand, show_masks=True).source
        assert ends in re.findall(r"box(\d) -> box(\d) \[style=dashed\]", source)


def test_masks_are_dashed_on_request():
    inputs = Input((None,), dtype="int64", name="tokens")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    model = Model(inputs, layers.LSTM(3)(x))
    plain = model_to_dot(model)
    assert "dashed" not in plain.source
    assert len(read_svg(plain.create())[0]) == 3
    masked = model_to_dot(model, show_masks=True)
    assert re.findall(r"box(\d) -> box(\d) \[style=dashed\]", masked.source) == [("2", "3")]
    # The mask is not an input that the user gave.
    assert "[(" not in model_to_dot(model, show_shapes=True).source


def test_a_mask_the_user_gives_is_an_input_like_others():
    inputs, mask = Input((5, 3), name="x"), Input((5,), dtype="bool", name="m")
    model = Model([inputs, mask], layers.LSTM(2)(inputs, mask=mask))
    _, arrows = read_svg(model_to_dot(model).create())
    assert sorted(arrows) == [(0, 2), (1, 2)]


def test_what_boxes_tell():
    model = Sequential([Input((4,)), layers.Dense(3, activation="relu", trainable=False), layers.Dense(1)])
    source = model_to_dot(
        model, show_shapes=True, show_dtype=True, show_layer_activations=True, show_trainable=True, rankdir="LR"
    ).source
    for text in (">relu<", ">(None, 4)<", ">(None, 3)<", ">float32<", ">yes<", ">no<", "rankdir=LR"):
        assert text in source
    bare = model_to_dot(model, show_layer_names=False).source
    assert ">relu<" not in bare
    assert "dense" not in bare
    assert "<b>Dense</b>" in bare


@pytest.mark.skipif(shutil.which("dot") is not None, reason="a Graphviz of the system shares widths out otherwise")
def test_names_of_facts_leave_the_room_to_the_values():
    model = Sequential([Input((4,)), layers.BatchNormalization(name="a_long_name_of_a_layer")])
    cells, _ = read_svg(model_to_dot(model, show_shapes=True).create())[0][0]
    left, right = min(cell[0] for cell in cells), max(cell[2] for cell in cells)
    names = [cell[2] - left for cell in cells if cell[0] == left and cell[2] < right]
    assert len(names) >= 2  # input and output
    assert max(names) < (right - left) / 3


def test_the_pictures_of_the_readme_are_those_of_the_script(tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "scripts"))
    importlib.import_module("pictures").draw(tmp_path)
    shown = re.findall(r"!\[.*\]\((examples/pictures/.*)\)", (root / "README.md").read_text(encoding="utf-8"))
    assert sorted(Path(each).name for each in shown) == sorted(path.name for path in tmp_path.iterdir())
    assert sorted(root / each for each in shown) == sorted((root / "examples" / "pictures").iterdir())
    for path in shown:
        with Image.open(root / path) as committed, Image.open(tmp_path / Path(path).name) as drawn:
            assert shutil.which("dot") or committed.size == drawn.size


def test_a_model_with_parameters_constants_and_modules():
    inputs = Input((3,))
    x = torch.nn.LayerNorm(3)(inputs) * torch.nn.Parameter(torch.ones(3)) + torch.arange(3.0)
    boxes, arrows = read_svg(model_to_dot(Model(inputs, x)).create())
    names = {number: texts[0][2] for number, (_, texts) in boxes.items()}
    assert sorted((names[start], names[end]) for start, end in arrows) == [
        ("constant", "add"),
        ("input_layer", "layer_norm"),
        ("layer_norm", "mul"),
        ("mul", "add"),
        ("parameter", "mul"),
    ]


@pytest.mark.parametrize("ending", ["svg", "png", "pdf", "dot", "mmd", "html"])
def test_files(tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    drawing = plot_model(_nested(), path, show_shapes=True, expand_nested=True, dpi=50)
    data = path.read_bytes()
    begins = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF", "dot": b"digraph", "mmd": b"flowchart TB"}
    assert data.startswith(begins.get(ending, b"<!doctype html>"))
    assert data == drawing.create(format=ending) or ending == "pdf"


def test_mermaid_lists_boxes_frames_and_arrows():
    text = model_to_dot(_nested(), expand_nested=True, show_shapes=True).create(format="mmd").decode()
    assert 'box3["dense (Dense)<br/>input: (None, 4)<br/>output: (None, 3)"]:::layer' in text
    assert text.count("-->") == 7
    assert text.count("subgraph") == text.count("end\n") == 1


def test_the_page_knows_each_box_and_ends_no_script_early():
    inputs = Input((4,), name="<!--<script>")
    model = Model(inputs, layers.Dense(2, activation="relu", name="d")(inputs))
    page = model_to_dot(model).create(format="html").decode()
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    known = json.loads(re.search(r'id="boxes">(.*?)</script>', page)[1])
    assert known["box0"]["name"] == "<!--<script>"
    assert known["box1"]["facts"]["parameters"] == "10"
    assert known["box1"]["facts"]["units"] == "2"
    assert "test_plotting.py" in known["box1"]["facts"]["source"]
    assert 'id="box1"' in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium to open the page in")
def test_a_click_in_a_browser_shows_what_a_box_is(tmp_path):
    inputs = Input((4,))
    path = tmp_path / "model.html"
    plot_model(Model(inputs, layers.Dense(2, activation="relu", name="d")(inputs)), path)
    click = 'document.getElementById("box1").dispatchEvent(new MouseEvent("click", {bubbles: true}))'
    path.write_text(path.read_text("utf-8").replace("</html>", f"<script>{click}</script></html>"), "utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    picture = tmp_path / "page.png"
    for each in ("--dump-dom", f"--screenshot={picture}"):
        done = subprocess.run([*command, each, path.as_uri()], capture_output=True, text=True, check=True, timeout=60)
        if each == "--dump-dom":
            dom = done.stdout
    assert re.search(r"<h1>d</h1>.*<td>units</td><td>2</td>.*<td>activation</td><td>relu</td>", dom)
    assert 'class="node chosen"' in dom
    colors = Image.open(picture).convert("L").getextrema()
    assert colors[0] < 60
    assert colors[1] > 240


def test_odd_names_are_drawn_as_they_are():
    inputs = Input((4,), name='a "b" <c> & \\d')
    boxes, _ = read_svg(model_to_dot(Model(inputs, layers.Dense(2, name="größe_层")(inputs))).create())
    assert ["".join(text[2] for text in texts) for _, texts in boxes.values()] == [
        'a "b" <c> & \\d (InputLayer)',
        "größe_层 (Dense)",
    ]


def test_a_range_of_layers():
    model = Sequential([Input((4,)), layers.Dense(3, name="a"), layers.Dense(3, name="b"), layers.Dense(3, name="c")])
    boxes, arrows = read_svg(model_to_dot(model, layer_range=["b", "c"]).create())
    assert len(boxes) == 2
    assert arrows == [(0, 1)]
    with pytest.raises(ValueError, match="No layer matches 'q'"):
        model_to_dot(model, layer_range=["q", "c"])


class Subclassed(Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_shows_its_layers():
    model = Subclassed()
    with pytest.raises(ValueError, match="is not built"):
        model_to_dot(model)
    model(torch.ones(1, 3))
    assert len(read_svg(model_to_dot(model).create())[0]) == 1


def test_wrong_uses_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"`to_file` ends in \.svg, .*got .*model\.jpg"):
        plot_model(_nested(), tmp_path / "model.jpg")
    with pytest.raises(ValueError, match="`rankdir` is one of TB, LR, BT, RL, got 'down'"):
        model_to_dot(_nested(), rankdir="down")
    with pytest.raises(ValueError, match="A drawing can be"):
        model_to_dot(_nested()).create(format="bmp")


def test_without_a_graphviz(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda *args, **kwargs: None)
    with pytest.raises(ImportError, match=r"pip install 'torchfunc\[plot\]'"):
        plot_model(_nested(), tmp_path / "model.svg")
    drawing = plot_model(_nested(), tmp_path / "model.dot")
    assert "pip install" in drawing._repr_mimebundle_()["text/plain"]


def test_a_notebook_shows_a_drawing():
    bundle = model_to_dot(_nested())._repr_mimebundle_()
    assert "<svg" in bundle["image/svg+xml"]
    assert bundle["text/plain"] == "<Drawing of 'outer': 4 boxes, 5 arrows>"
