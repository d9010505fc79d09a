"""A stranger's folder of pictures and labels: what is read, and what is said about what cannot be read."""

import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from causal_core.autoencoder import folder
from causal_core.autoencoder.data import as_batch
from causal_core.autoencoder.folder import FolderSource, square
from causal_core.autoencoder.labels import read_labels
from causal_core.concepts import parse_concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph

SIZE = 16
GRAPH = CausalGraph.from_edges([("angle", "shadow length")], concepts=parse_concepts("angle\nshadow length\nkind"))
ROWS = "file,angle,shadow length,kind,do\n"


def save(path, picture, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(picture, np.uint8)).convert(mode).save(path)


@pytest.fixture
def data(tmp_path):
    """Four coloured pictures with labels, and a graph whose concepts are open."""
    rng = np.random.default_rng(0)
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", rng.integers(0, 256, (SIZE, SIZE, 3)))
    (tmp_path / "labels.csv").write_text(ROWS + "0.png,1,2,cat,\n1.png,2,4,dog,angle\n2.png,,3,cat,shadow length\n")
    (tmp_path / "graph.json").write_text(GRAPH.to_json())
    return tmp_path


def source(data, size=SIZE, graph="graph.json", **options):
    graph = data / graph if isinstance(graph, str) else graph
    return FolderSource(data / "images", data / "labels.csv", graph, size, **options)


def labels(tmp_path, text, graph=GRAPH, files=("0.png", "1.png", "2.png")):
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(path, graph, files)


def test_pictures_come_with_their_labels(data):
    found = source(data)
    assert (len(found), found.size, found.channels, found.refresh()) == (4, SIZE, 3, 4)
    assert [(v.name, v.domain, v.interval) for v in found.coding.variables] == [
        ("angle", (), (1.0, 2.0)),
        ("shadow length", (), (2.0, 4.0)),
        ("kind", ("cat", "dog"), None),
    ]
    images, places, free = found.batch([3, 1, 0, 2])
    for image, name in zip(images, ("3", "1", "0", "2")):
        assert np.array_equal(image, np.asarray(Image.open(data / "images" / f"{name}.png")))
    expected = [[math.nan] * 4, [1.0, 1.0, 0.0, 1.0], [-1.0, -1.0, 1.0, 0.0], [math.nan, 0.0, 1.0, 0.0]]
    assert torch.equal(places.nan_to_num(9), torch.tensor(expected).nan_to_num(9))
    assert free.tolist() == [[True] * 3, [False, True, True], [True] * 3, [True, False, True]]
    batch = as_batch(found, [0, 1])
    assert batch.images.shape == (2, 3, SIZE, SIZE) and float(batch.images.abs().max()) <= 1


def test_the_key_names_the_data_and_nothing_else(data):
    key = source(data).key
    assert source(data, graph=GRAPH).key == key
    text = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(text.replace(",", ";"))
    assert source(data).key == key, "another way to write the same labels"
    (data / "labels.csv").write_text(text.replace("2,4,dog", "2,4,cat").replace("0.png,1,2,cat", "0.png,1,2,dog"))
    other = source(data).key
    save(data / "images" / "4.png", np.zeros((SIZE, SIZE, 3)))
    (data / "labels.csv").write_text(text)
    assert len({key, other, source(data).key, source(data, labelled=0.5).key, source(data, size=8).key}) == 5


def test_part_of_the_labels_can_be_left_unused(data):
    rows = [f"{i}.png,{i % 7},{i % 5},{'cat' if i % 2 else 'dog'}," for i in range(40)]
    for i in range(40):
        save(data / "images" / f"{i}.png", np.full((4, 4, 3), (i, 9, 9)))
    (data / "labels.csv").write_text(ROWS + "\n".join(rows))
    known = [~source(data, labelled=share).labels[:, 0].isnan() for share in (0.0, 0.5, 1.0)]
    assert [int(k.sum()) for k in known] == [0, 21, 40] and not (known[1] & ~known[2]).any()
    assert source(data, labelled=0.0).coding == source(data).coding


def test_no_labels_at_all_is_allowed_if_the_graph_says_what_the_values_are(data, caplog):
    graph = CausalGraph.from_edges([("a", "b")], concepts=parse_concepts("a: 0 .. 1\nb: x, y"))
    found = FolderSource(data / "images", None, graph, SIZE)
    assert found.labels.isnan().all() and found.free.all() and "no labels" in caplog.text
    with pytest.raises(CounterfactError, match="'angle' has neither values nor an interval"):
        FolderSource(data / "images", None, GRAPH, SIZE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_grey_pictures_have_one_channel_however_they_are_saved(tmp_path, mode):
    grey = np.repeat(np.random.default_rng(1).choice([0, 255], (SIZE, SIZE, 1)), 3, -1)
    for name in ("0.png", "1.png"):
        save(tmp_path / "images" / name, grey, mode)
    graph = CausalGraph.from_edges([], concepts=parse_concepts("a: 0 .. 1"))
    found = FolderSource(tmp_path / "images", None, graph, SIZE)
    assert found.channels == 1 and np.array_equal(found.batch([1])[0][0], grey[..., :1])
    save(tmp_path / "images" / "2.png", np.full((9, 9, 3), (200, 20, 20)))
    found = FolderSource(tmp_path / "images", None, graph, SIZE)
    assert found.channels == 3 and np.array_equal(found.batch([1])[0][0], grey)


def test_how_many_channels_may_be_asked_for(data):
    with pytest.raises(CounterfactError, match="images: some are in colour, the trained weights are of grey ones"):
        source(data, channels=1)
    for path in (data / "images").iterdir():
        save(path, np.full((SIZE, SIZE), 7))
    assert source(data, channels=1).channels == source(data).channels == 1
    found = source(data, channels=3)
    assert found.channels == 3 and found.batch([0])[0].shape == (1, SIZE, SIZE, 3)


def test_hidden_common_causes_are_warned_of(data, caplog):
    source(data, graph=CausalGraph.from_edges(GRAPH.edges, [("angle", "kind")], GRAPH.concepts))
    assert "no hidden causes" in caplog.text and "angle <-> kind" in caplog.text


def test_pictures_of_any_size_are_scaled_and_cut_to_the_central_square():
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 12:88] = (10, 200, 30)  # the filter looks a little beyond the square
    assert (square(Image.fromarray(picture), 8) == (10, 200, 30)).all()
    small = np.full((3, 2, 3), (5, 6, 7), np.uint8)
    assert (square(Image.fromarray(small), 8) == (5, 6, 7)).all()


def test_transparent_parts_become_white_and_sixteen_bits_eight():
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (255, 0, 0, 255)
    shown = square(Image.fromarray(clear), 8)
    assert (shown[:4] == (255, 0, 0)).all() and (shown[4:] == 255).all()
    deep = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).astype(np.uint16)
    assert np.abs(square(Image.fromarray(deep), 8)[..., 0].astype(int) - deep / 257).max() <= 0.5


def test_numbers_without_a_range_are_no_brightness(tmp_path):
    for kind, dtype in (("32-bit", np.int32), ("floating-point", np.float32)):
        Image.fromarray(np.full((8, 8), 200, dtype)).save(tmp_path / "a.tif")
        with Image.open(tmp_path / "a.tif") as image, pytest.raises(ValueError, match=f"its pixels are {kind}"):
            square(image, 8)


def test_opening_a_folder_can_be_ended(data):
    opened = []

    def check():
        opened.append(0)
        if len(opened) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source(data, check=check)
    assert len(opened) == 3


def test_orientation_of_a_camera_is_heeded(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert (square(Image.open(tmp_path / "a.png"), 8)[4:] == 255).all()


def test_other_sizes_are_an_error_unless_resizing_is_allowed(data):
    save(data / "images" / "sub" / "wide.jpg", np.zeros((SIZE, 20, 3)))
    assert len(source(data)) == 5
    with pytest.raises(CounterfactError, match=r"sub/wide\.jpg has 20 x 16 pixels, not 16 x 16"):
        source(data, resize=False)


def test_pictures_that_cannot_be_read_are_counted_named_and_left_out(data, caplog):
    (data / "images" / "broken.png").write_bytes(b"no picture")
    (data / "images" / "empty.jpg").touch()
    whole = (data / "images" / "2.png").read_bytes()
    (data / "images" / "2.png").write_bytes(whole[: len(whole) // 2])
    found = source(data)
    assert len(found) == 4 and sorted(found.left_out) == ["broken.png", "empty.jpg"]
    assert "2 of 6 pictures cannot be read" in caplog.text and "broken.png" in caplog.text
    images, places, _ = found.batch([2, 3])  # that the third is cut off shows only when it is decoded
    assert np.array_equal(images[0], images[1]) and torch.equal(places[0].isnan(), places[1].isnan())
    assert "2.png" in found.left_out and caplog.text.count("one more picture") == 1
    for name in "013":
        (data / "images" / f"{name}.png").unlink()
    unlabelled = CausalGraph.from_edges([], concepts=parse_concepts("a: 0 .. 1"))
    with pytest.raises(CounterfactError, match="none of the 1 pictures in .* can be read"):
        FolderSource(data / "images", None, unlabelled, SIZE)
    (data / "images" / "2.png").unlink()
    with pytest.raises(CounterfactError, match="2 of 2 pictures cannot be read.*broken.png"):
        FolderSource(data / "images", None, unlabelled, SIZE)


def test_decompression_bombs_are_refused(data, monkeypatch):
    save(data / "images" / "large.png", np.zeros((64, 64, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert "exceeds limit" in source(data).left_out["large.png"]


def test_pictures_are_decoded_once_while_there_is_room(data, monkeypatch):
    decoded = []
    monkeypatch.setattr(folder, "square", lambda image, size: decoded.append(image) or square(image, size))
    monkeypatch.setattr(folder, "CACHE_BYTES", 2 * SIZE * SIZE * 3)
    found = source(data)
    first = found.batch(range(4))[0]
    decoded.clear()
    assert np.array_equal(found.batch(range(4))[0], first) and len(decoded) == 2


def test_links_and_hidden_files_do_not_lead_out_of_the_folder(data, caplog):
    save(data / "secret.png", np.zeros((SIZE, SIZE, 3)))
    (data / "images" / "link.png").symlink_to(data / "secret.png")
    (data / "images" / "inside.png").symlink_to(data / "images" / "0.png")
    (data / "images" / "away").symlink_to(data, target_is_directory=True)
    save(data / "images" / ".thumbs" / "0.png", np.zeros((4, 4, 3)))
    assert source(data).names == ["0.png", "1.png", "2.png", "3.png", "inside.png"]
    assert "link.png is a link that leads out" in caplog.text


def test_folder_and_graph_that_are_not_there_are_named(data):
    with pytest.raises(CounterfactError, match="images: there is no folder"):
        FolderSource(data / "pictures", None, GRAPH, SIZE)
    (data / "none").mkdir()
    with pytest.raises(CounterfactError, match="images: there is no picture in"):
        FolderSource(data / "none", None, GRAPH, SIZE)
    with pytest.raises(CounterfactError, match="graph: a folder of images needs"):
        source(data, graph=None)
    with pytest.raises(CounterfactError, match=r"graph: cannot read .*other\.json"):
        source(data, graph="other.json")
    (data / "graph.json").write_text("{}")
    with pytest.raises(CounterfactError, match=r"graph graph\.json: .*counterfact\.graph"):
        source(data)
    with pytest.raises(CounterfactError, match=r"labels: cannot read .*none\.csv"):
        read_labels(data / "none.csv", GRAPH, ["0.png"])


def test_labels_may_be_written_in_many_ways(tmp_path, caplog):
    caplog.set_level(logging.INFO, "counterfact")
    written = (
        "\ufeffName;KIND;Angle; shadow  Length;source\r\n\r\n"
        "./0.png;Cat;1.50;2;me\r\n"
        '"sub\\1.png";dog;-2e1;NaN\r\n'
        "2.png;cAT;;1\r\n"
        "9.png;bird;x;y\r\n"
    )
    found = labels(tmp_path, written, files=("0.png", "2.png", "sub/1.png"))
    assert [found.coding.values(z)["kind"] for z in found.places] == ["Cat", "Cat", "dog"]
    assert found.coding.variables[0].interval == (-20.0, 1.5)
    assert found.places[:, :2].isnan().tolist() == [[False, False], [True, False], [False, True]]
    assert "1 of 4 rows name no picture" in caplog.text and "'9.png'" in caplog.text and "'source'" in caplog.text


def test_values_and_intervals_of_the_graph_rule(tmp_path):
    graph = CausalGraph.from_edges([], concepts=parse_concepts("digit: 3, 1, NA\nangle: 0 .. 10"))
    found = labels(tmp_path, "file,digit,angle\n0.png,1.0,0\n1.png,na,5\n2.png,3,na\n", graph)
    assert found.places[:, :3].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert found.places[:2, 3].tolist() == [-1, 0] and found.places[2, 3].isnan()


def test_interventions_are_named_by_semicolons_or_spaces(tmp_path):
    cells = ("angle;shadow length", "kind Angle", " shadow length ; kind")
    rows = [f"{i}.png,{i},{i},{'ab'[i % 2]},{cell}" for i, cell in enumerate(cells)]
    found = labels(tmp_path, ROWS + "\n".join(rows))
    assert found.free.tolist() == [[False, False, True], [False, True, False], [True, False, False]]


GOOD = ("0.png,1,2,a,", "1.png,3,4,b,", "2.png,5,6,a,")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"header": "file,angle,width,kind,do"}, r"no column for 'shadow length'"),
        ({"header": "file,angle,Angle,shadow length,kind"}, "two columns 'Angle'"),
        ({"rows": ()}, "a row a picture"),
        ({"rows": ("0.png,1,2,a,", *GOOD[1:], "0.png,2,2,a,")}, r"line 5 .*'0\.png', and so has line 2"),
        ({"rows": ("0.png,1,2,a,", "1.png,steep,4,b,", "2.png,5,6,a,")}, r"'angle', line 3: 'steep' is no number"),
        ({"rows": ("0.png,1,2,a,", '1.png,"1,5",4,b,', "2.png,5,6,a,")}, r"line 3: '1,5' .*decimal point"),
        ({"rows": ('0.png,"1,2",2,a,', '1.png,"1,5",4,b,', '2.png,"3,1",6,a,')}, r"line 2: '1,2' .*decimal point"),
        ({"rows": ("0.png,1,2,a,", "1.png,inf,4,b,", "2.png,5,6,a,")}, r"line 3: 'inf' is no number"),
        ({"rows": ("0.png,1,2,a,", "1.png,1,4,b,", "2.png,1,6,a,")}, r"column 'angle' needs .* all are 1:"),
        ({"rows": ("0.png,,2,a,", "1.png,,4,b,", "2.png,,6,a,")}, r"column 'angle' needs .* there is none"),
        ({"rows": ("0.png,1,2,a,", "1.png,2,4,A,", "2.png,3,6,a,")}, r"column 'kind' needs .* all are 'a'"),
        ({"rows": (*GOOD[:2], "2.png,5,6,a,kinds")}, r"column 'do', line 4: 'kinds'\. Did you mean 'kind'"),
        ({"rows": (*GOOD[:2], ",5,6,a,")}, "line 4 names no picture"),
        ({"rows": (*GOOD[:2], "../2.png,5,6,a,")}, "line 4: '../2.png' leads out of the folder"),
        ({"rows": (*GOOD[:2], "/etc/2.png,5,6,a,")}, "leads out of the folder"),
        ({"rows": (*GOOD[:2], "C:\\2.png,5,6,a,")}, "leads out of the folder"),
        ({"rows": (*GOOD[:2], "2.png,5,6,a,,7")}, "line 4 has 6 cells, but there are 5 columns"),
        ({"rows": (*GOOD[:2], '2.png,5,6,"a,')}, r"line 4 is no line of a CSV file"),
        ({"rows": ("a,1,2,a,", "b,1,2,a,")}, r"must name pictures of the folder, such as '0\.png'; it has 'a', 'b'"),
        ({"rows": (*GOOD[:2], "2.png,5,6,\xe9,"), "encoding": "latin-1"}, "line 4 is not UTF-8"),
        ({"rows": GOOD, "encoding": "utf-16"}, "not UTF-8"),
        ({"rows": GOOD, "graph": "angle: 2 .. 9\nshadow length\nkind"}, r"line 2: 1 is outside 2\.\.9"),
        ({"rows": GOOD, "graph": "angle\nshadow length\nkind: a, c"}, r"column 'kind', line 3: 'b'\. .*values: a, c"),
    ],
)  # fmt: skip
def test_mistakes_in_labels_are_named_with_line_and_column(tmp_path, change, words):
    text = "\n".join((change.get("header", ROWS.strip()), *change.get("rows", GOOD))).encode(
        change.get("encoding", "utf-8")
    )
    graph = CausalGraph.from_edges([], concepts=parse_concepts(change["graph"])) if "graph" in change else GRAPH
    with pytest.raises(CounterfactError, match=words):
        labels(tmp_path, text, graph)


def test_too_many_different_texts_and_too_large_files_are_refused(tmp_path, monkeypatch):
    files = [f"{i}.png" for i in range(60)]
    with pytest.raises(CounterfactError, match="column 'kind', line 52 has one more different text than the 50"):
        labels(tmp_path, ROWS + "\n".join(f"{f},{i},{i},a{i}," for i, f in enumerate(files)), files=files)
    monkeypatch.setattr("causal_core.autoencoder.labels.MAX_BYTES", 20)
    with pytest.raises(CounterfactError, match="has over"):
        labels(tmp_path, ROWS + "\n".join(GOOD))
