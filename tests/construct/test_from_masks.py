"""Own videos: masks of every layout stay as they are, pixel by pixel, and phrases find their instance."""

import json
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from swim.cli.from_masks import main
from swim.construct.from_masks import tagged
from swim.construct.mask_files import VideoFacts, read_masks
from swim.data.records import parse_record
from swim.errors import DataError, Reason

from ..chat_server import ChatServer
from ..video.clips import pictures, write_video
from .player import edited, play


@pytest.fixture
def video(tmp_path):
    """12 frames of 56 x 84."""
    return write_video(tmp_path / "clip.mp4", pictures(12))


def squares(frame: int) -> np.ndarray:
    """uint8[56, 84]: instance 1 moves to the right, instance 2 comes in frame 4."""
    indices = np.zeros((56, 84), np.uint8)
    indices[5:15, 2 * frame : 2 * frame + 10] = 1
    if frame >= 4:
        indices[30:44, 40:60] = 2
    return indices


NUMBERS = (0, 2, 4)


def write_palette(folder, numbers=NUMBERS, frames=NUMBERS):
    folder.mkdir()
    for number, frame in zip(numbers, frames):
        image = Image.fromarray(squares(frame), mode="P")
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        image.save(folder / f"{number:05d}.png")
    return folder


def write_object_files(folder):
    folder.mkdir()
    for number in NUMBERS:
        for instance in (1, 2):
            Image.fromarray((squares(number) == instance) * np.uint8(255)).save(
                folder / f"{number:05d}_mask_{instance}.png"
            )
    return folder


def write_object_folders(folder):
    for instance in (1, 2):
        (folder / str(instance)).mkdir(parents=True)
        for number in NUMBERS:
            mask = Image.fromarray(squares(number) == instance)
            mask.save(folder / str(instance) / f"{number:05d}.png")
    return folder


def encoded(frame: int, instance: int) -> dict:
    rle = coco.encode(np.asfortranarray(squares(frame) == instance, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def write_coco(folder):
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({str(i): {str(n): encoded(n, i) for n in NUMBERS} for i in (1, 2)}))
    return path


def write_coco_list(folder):
    path = folder.with_suffix(".json")
    entries = [{"instance": i, "frame": n, "segmentation": encoded(n, i)} for i in (1, 2) for n in NUMBERS]
    path.write_text(json.dumps(entries))
    return path


def write_sa_v(folder):
    """Every second frame of twelve."""
    path = folder.with_suffix(".json")
    masklet = [[encoded(frame, instance) for instance in (1, 2)] for frame in range(0, 12, 2)]
    path.write_text(json.dumps({"video_id": "x", "masklet": masklet, "masklet_id": [1, 2], "video_frame_count": 12.0}))
    return path


LAYOUTS = {
    "palette": (write_palette, 1),
    "object files": (write_object_files, 1),
    "object folders": (write_object_folders, 1),
    "COCO": (write_coco, 1),
    "COCO list": (write_coco_list, 1),
    "SA-V": (write_sa_v, 2),
    "palette of every second frame": (lambda folder: write_palette(folder, (0, 1, 2)), 2),
}
HAND = ["--phrase", "1=the red square", "--phrase", "2=a <ins>box</ins> below"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_of_every_layout_are_pixel_identical(video, tmp_path, layout):
    write, step = LAYOUTS[layout]
    masks, output = write(tmp_path / "masks"), tmp_path / "out.json"
    flags = ["--video", str(video), "--masks", str(masks), "--output", str(output), "--frame_step", str(step)]
    assert main([*flags, *HAND]) == 0
    (record,) = json.loads(output.read_text())
    frames = range(0, 12, 2) if layout == "SA-V" else NUMBERS
    assert [list(map(int, instance)) for instance in record["annotation"]] == [
        list(frames),
        [frame for frame in frames if frame >= 4],
    ]
    for number, instance in enumerate(record["annotation"], 1):
        for frame, found in instance.items():
            assert np.array_equal(coco.decode(found["segmentation"]), squares(int(frame)) == number)
    parsed = parse_record(record, "x", tmp_path)
    assert parsed.path == video and [turn.text for turn in parsed.turns] == [
        "Name 2 objects that can be seen in this video.",
        "The red square and a box below.",
    ]
    assert [(s.phrase, i) for turn in parsed.turns for s, i in zip(turn.spans, turn.instances)] == [
        ("red square", 0),
        ("box", 1),
    ]


def test_captions_become_records_of_their_own(video, tmp_path, capsys):
    table = tmp_path / "phrases.csv"
    table.write_text('instance,phrase,caption\n2,"the box, left","It stands, still."\n')
    masks, output = write_palette(tmp_path / "masks"), tmp_path / "out.json"
    assert main(["--video", str(video), "--masks", str(masks), "--output", str(output), "--phrases", str(table)]) == 0
    (record,) = json.loads(output.read_text())
    assert [turn["value"] for turn in record["conversations"]] == [
        "<video>\nPlease give a detailed description of the <ins>box, left</ins>.",
        "It stands, still.",
    ]
    assert len(record["annotation"]) == 1 and list(record["annotation"][0]) == ["4"]
    assert "left out, without a phrase: 1" in capsys.readouterr().out


def test_a_model_names_what_it_sees_outlined(video, tmp_path, capsys):
    masks, output = write_palette(tmp_path / "masks"), tmp_path / "out.json"
    flags = [
        "--video",
        str(video),
        "--masks",
        str(masks),
        "--output",
        str(output),
        "--model",
        "m",
        "--backoff_s",
        "0.01",
    ]
    with ChatServer(play) as server:
        assert main([*flags, "--base_url", server.url, "--with_frames", "2"]) == 0
        (request,) = server.requests
        kinds = [part["type"] for part in request["messages"][1]["content"]]
        assert kinds == ["image_url", "image_url", "text"]
    (record,) = json.loads(output.read_text())
    assert record["conversations"][1]["value"] == "The <ins>dog</ins> and the <ins>laptop</ins>."
    assert parse_record(record, "x", tmp_path).turns[1].instances == [0, 1]
    with ChatServer(edited(str.upper)) as server:
        assert main([*flags, "--base_url", server.url, "--with_frames", "2"]) == 1
    assert "refused, instance 1, 2: " in capsys.readouterr().out and json.loads(output.read_text()) == []


def test_phrases_are_tagged_without_their_article():
    assert tagged("the white dog ") == "the <ins>white dog</ins>"
    assert tagged("Rex") == "<ins>Rex</ins>" and tagged("the") == "<ins>the</ins>"
    assert tagged("the <ins>dog</ins> on the bed") == "the <ins>dog</ins> on the bed"
    with pytest.raises(ValueError, match="unclosed"):
        tagged("the <ins>dog")
    with pytest.raises(ValueError, match="found 2"):
        tagged("<ins>dog</ins> and <ins>cat</ins>")


def larger(folder):
    write_palette(folder)
    Image.new("P", (90, 84)).save(folder / "00006.png")
    return folder


def named_otherwise(folder):
    write_palette(folder)
    (folder / "00000.png").rename(folder / "first.png")
    return folder


def coloured(folder):
    folder.mkdir()
    Image.new("RGB", (84, 56), "red").save(folder / "00000.png")
    return folder


def empty(folder):
    folder.mkdir()
    Image.new("P", (84, 56)).save(folder / "00000.png")
    return folder


def broken(folder):
    folder.mkdir()
    (folder / "00000.png").write_bytes(b"no image")
    return folder


def json_of(value):
    def write(folder):
        path = folder.with_suffix(".json")
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


BAD = {
    "another size": (larger, HAND, "00006.png: expected a mask of 56 x 84"),
    "a frame past the end": (write_palette, [*HAND, "--frame_step", "4"], "4 * frame_step 4 = 16, the video has 12"),
    "SA-V without its step": (write_sa_v, HAND, "6 annotated frames, one for every 1 of 12 would be 12"),
    "a name without number": (named_otherwise, HAND, "no masks here"),
    "colours": (coloured, HAND, "a palette PNG is expected, found mode RGB"),
    "nothing annotated": (empty, HAND, "no mask with a pixel in it"),
    "no PNG": (broken, HAND, "unreadable PNG"),
    "no such folder": (lambda folder: folder, HAND, "expected a folder of PNGs or a .json file"),
    "no JSON": (json_of("{"), HAND, "malformed JSON"),
    "another JSON": (json_of([{"frame": 1}]), HAND, "or a list of"),
    "a broken RLE": (json_of({"1": {"0": {"size": [56, 84], "counts": "zz"}}}), HAND, "not a COCO RLE"),
    "twice": (json_of([{"instance": 1, "frame": 0, "segmentation": encoded(0, 1)}] * 2), HAND, "is given twice"),
    "an unknown instance": (write_palette, ["--phrase", "7=the dog"], "'7'; the masks have 1, 2"),
    "one noun for two": (write_palette, ["--phrase", "1=the dog", "--phrase", "2=a Dog"], "both called 'dog'"),
    "an empty phrase": (write_palette, ["--phrase", "1= "], "the phrase of instance 1 is empty"),
    "no equals sign": (write_palette, ["--phrase", "dog"], 'expected "INSTANCE=the phrase"'),
    "no phrases": (write_palette, [], "give either phrases"),
    "phrases and a model": (write_palette, [*HAND, "--model", "m"], "give either phrases"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_clear_line(video, tmp_path, name, capsys):
    write, flags, message = BAD[name]
    masks, output = write(tmp_path / "masks"), tmp_path / "out.json"
    assert main(["--video", str(video), "--masks", str(masks), "--output", str(output), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and not output.exists(), error


def test_a_csv_that_does_not_fit_is_named(video, tmp_path, capsys):
    masks, table = write_palette(tmp_path / "masks"), tmp_path / "p.csv"
    flags = [
        "--video",
        str(video),
        "--masks",
        str(masks),
        "--output",
        str(tmp_path / "o.json"),
        "--phrases",
        str(table),
    ]
    for text, message in (
        ("name,phrase\n1,dog\n", "expected the columns instance and phrase"),
        ("instance,phrase\n1,dog\n1,cat\n", "instance 1 is given twice"),
        ("instance,phrase,caption\n1,dog,x\n9,cat,y\n", "a phrase for instance '9'"),
    ):
        table.write_text(text)
        assert main(flags) == 2
        assert message in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------------
# PNGs of every kind
# ----------------------------------------------------------------------------------------------------------------------

FACTS = VideoFacts(frames=12, height=56, width=84)
FRAME = 4  # of `squares`, with both instances
ONE, BOTH = squares(FRAME) == 1, squares(FRAME) > 0
OFF_CENTRE = np.zeros((56, 84), bool)
OFF_CENTRE[3:9, 5:20] = True


def written_png(folder, image: Image.Image, name: str = "00004.png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, "PNG", **options)
    return folder


def grey_png(indices: np.ndarray, bits: int) -> bytes:
    """A greyscale PNG of so few bits a pixel, which Pillow does not write."""
    height, width = indices.shape
    parts = np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in parts)
    return (
        b"\x89PNG\r\n\x1a\n" + header(width, height, bits) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def header(width: int, height: int, bits: int = 8) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def found_in(folder) -> dict[str, np.ndarray]:
    """bool[H, W] of each instance in frame FRAME."""
    masks = read_masks(folder, FACTS)
    assert all(list(frames) == [FRAME] for frames in masks.values())
    return {name: coco.decode(frames[FRAME]).astype(bool) for name, frames in masks.items()}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return list(found) == list(expected) and all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_in_a_label_picture_of_any_depth_the_stored_number_is_the_instance(tmp_path, bits):
    highest = min(2**bits - 1, 1000)
    pixels = BOTH * np.uint16(highest)
    if bits < 8:
        (tmp_path / "masks").mkdir()
        (tmp_path / "masks" / "00004.png").write_bytes(grey_png(pixels.astype(np.uint8), bits))
    else:
        written_png(tmp_path / "masks", Image.fromarray(pixels if bits == 16 else pixels.astype(np.uint8)))
    assert same(found_in(tmp_path / "masks"), {str(highest): BOTH})


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_in_a_palette_of_any_depth_the_index_is_the_instance(tmp_path, bits):
    image = Image.fromarray(squares(FRAME) if bits > 1 else squares(FRAME) & 1, mode="P")
    image.putpalette([200, 0, 0, 0, 0, 0, 0, 200, 0])  # its colours mean nothing
    written_png(tmp_path / "masks", image, bits=bits, transparency=1)
    expected = {"1": ONE, "2": squares(FRAME) == 2} if bits > 1 else {"1": ONE}
    assert same(found_in(tmp_path / "masks"), expected)


def painted(mask: np.ndarray, channels: int, inside, outside) -> Image.Image:
    pixels = np.where(mask[..., None], np.array(inside, np.uint8), np.array(outside, np.uint8))
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


OBJECT_PICTURES = {
    "grey": lambda mask: painted(mask, 1, [255], [0]),
    "nearly black grey": lambda mask: painted(mask, 1, [1], [0]),
    "two colours": lambda mask: Image.fromarray(mask),
    "16 bits": lambda mask: Image.fromarray(mask * np.uint16(65535)),
    "16 bits, nearly black": lambda mask: Image.fromarray(mask * np.uint16(1)),
    "16 bits, its low byte empty": lambda mask: Image.fromarray(mask * np.uint16(256)),
    "colours": lambda mask: painted(mask, 3, [0, 0, 255], [0, 0, 0]),
    "nearly black colours": lambda mask: painted(mask, 3, [0, 0, 1], [0, 0, 0]),
    "opaque": lambda mask: painted(mask, 4, [255, 255, 255, 255], [0, 0, 0, 255]),
    "cut out, on black": lambda mask: painted(mask, 4, [255, 255, 255, 255], [0, 0, 0, 0]),
    "cut out, on white": lambda mask: painted(mask, 4, [255, 255, 255, 255], [255, 255, 255, 0]),
    "cut out, grey": lambda mask: painted(mask, 2, [255, 255], [255, 0]),
    "a palette": lambda mask: paletted(mask, [0, 0, 0, 200, 0, 0]),
    "a palette from bright to dark": lambda mask: paletted(~mask, [255, 255, 255, 0, 0, 0]),
}


def paletted(indices: np.ndarray, palette: list[int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette(palette)
    return image


@pytest.mark.parametrize("name", OBJECT_PICTURES)
@pytest.mark.parametrize("where", ["00004_mask_7.png", "7/00004.png"])
def test_what_is_painted_in_a_picture_of_one_object_is_the_object(tmp_path, name, where):
    folder = tmp_path / "masks"
    written_png((folder / where).parent, OBJECT_PICTURES[name](ONE), (folder / where).name)
    assert same(found_in(folder), {"7": ONE})


def test_a_transparent_colour_is_background(tmp_path):
    written_png(tmp_path / "a", painted(ONE, 1, [9], [5]), "00004_mask_1.png", transparency=5)
    assert same(found_in(tmp_path / "a"), {"1": ONE})
    folder = written_png(tmp_path / "b", paletted(ONE, [255, 255, 255, 255, 0, 0]), "00004_mask_1.png", transparency=0)
    assert same(found_in(folder), {"1": ONE})


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["00004.png", "00004_mask_1.png"])
def test_a_turned_mask_is_upright_as_its_frame(tmp_path, orientation, name):
    back = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: np.transpose, 6: np.rot90, 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.ascontiguousarray(back(OFF_CENTRE)) * np.uint8(1)
    written_png(tmp_path / "masks", paletted(pixels, [0, 0, 0, 9, 9, 9]), name, exif=exif)
    assert same(found_in(tmp_path / "masks"), {"1": OFF_CENTRE})


def test_what_an_apple_leaves_beside_a_mask_is_none(tmp_path):
    folder = write_palette(tmp_path / "masks")
    (folder / "._00000.png").write_bytes(b"Mac OS X")
    assert list(read_masks(folder, FACTS)["1"]) == list(NUMBERS)
    (write_object_folders(tmp_path / "more") / "1" / "._00000.png").write_bytes(b"Mac OS X")
    assert list(read_masks(tmp_path / "more", FACTS)["1"]) == list(NUMBERS)


WHOLE = grey_png(squares(FRAME), 8)
NOISE = grey_png(np.random.default_rng(0).integers(0, 256, (56, 84), np.uint8), 8)


def damaged(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def bomb(side: int) -> bytes:
    return WHOLE[:8] + header(side, side) + WHOLE[33:]


def jpeg() -> bytes:
    content = BytesIO()
    painted(ONE, 1, [255], [0]).save(content, "JPEG")
    return content.getvalue()


BROKEN_PNGS = {
    "empty": (b"", Reason.UNREADABLE, "it is no PNG"),
    "a JPEG by another name": (jpeg(), Reason.UNREADABLE, "it is no PNG"),
    "of no size": (bomb(0), Reason.UNREADABLE, "it is no PNG"),
    "cut off": (NOISE[: len(NOISE) // 2], Reason.UNREADABLE, "truncated"),
    "cut off in its header": (WHOLE[:20], Reason.UNREADABLE, ""),
    "cut off before its pixels": (WHOLE[:33], Reason.UNREADABLE, ""),
    "a flipped byte": (damaged(NOISE, 200), Reason.UNREADABLE, "broken"),
    "a flipped byte in its header": (damaged(WHOLE, 18), Reason.UNREADABLE, ""),
    "a flipped byte in a chunk's name": (damaged(WHOLE, 37), Reason.UNREADABLE, ""),
    "one that says it has 3,600 million pixels": (bomb(60_000), Reason.UNREADABLE, "decompression bomb"),
    "one that says it has 100 million pixels": (
        bomb(10_000), Reason.BAD_MASK, "expected a mask of 56 x 84 as its frame, found 10000 x 10000",
    ),
    "turned by a quarter": (grey_png(squares(FRAME).T.copy(), 8), Reason.BAD_MASK, "found 84 x 56"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_PNGS)
@pytest.mark.parametrize("where", ["00004.png", "00004_mask_1.png"])
def test_a_png_that_cannot_be_a_mask_is_named(tmp_path, name, where):
    content, reason, message = BROKEN_PNGS[name]
    path = tmp_path / where
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of Pillow; a user sees one line
        with pytest.raises(DataError) as caught:
            read_masks(tmp_path, FACTS)
    assert caught.value.where == str(path) and caught.value.reason is reason and message in caught.value.message
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"masklet": None},
        {"masklet": 3},
        {"masklet": [None] * 12},
        {"masklet": [[3]] * 12},
        {"masklet": [[encoded(0, 1)]] * 12, "masklet_id": 3},
        {"masklet": [[encoded(0, 1)]] * 11 + ["x"], "masklet_id": [1]},
    ],
    ids=str,
)
def test_an_sa_v_file_of_another_shape_is_named(video, tmp_path, content, capsys):
    path = json_of(content)(tmp_path / "masks")
    assert main(["--video", str(video), "--masks", str(path), "--output", str(tmp_path / "out.json"), *HAND]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: ")


def test_a_table_of_another_encoding_or_with_an_endless_field_is_named(video, tmp_path, capsys):
    masks, table = write_palette(tmp_path / "masks"), tmp_path / "p.csv"
    flags = [
        "--video",
        str(video),
        "--masks",
        str(masks),
        "--output",
        str(tmp_path / "o.json"),
        "--phrases",
        str(table),
    ]
    for content, message in (
        ("instance,phrase\n1,dog\n".encode("utf-16"), "expected UTF-8, found UTF-16; save the file as UTF-8"),
        ("instance,phrase\n1,café\n".encode("latin-1"), "expected UTF-8, found"),
        (
            b'instance,phrase\n1,"' + b"x" * 200_000 + b'"\n',
            "malformed CSV after line 1: field larger than field limit",
        ),
        (b"", "expected the columns instance and phrase, found none"),
    ):
        table.write_bytes(content)
        assert main(flags) == 2
        assert f"error: {table}: {message}" in capsys.readouterr().err


def indices_of(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_real_davis_palettes_are_pixel_identical(test_data, tmp_path):
    root = test_data / "cutie_examples" / "examples"
    output = tmp_path / "judo.json"
    known = np.unique(np.concatenate([indices_of(path).ravel() for path in (root / "masks/judo").glob("*.png")]))
    known = known[known > 0].tolist()
    phrases = [flag for index in known for flag in ("--phrase", f"{index}=the athlete {index}")]
    flags = ["--video", str(root / "images/judo"), "--masks", str(root / "masks/judo"), "--output", str(output)]
    assert main([*flags, *phrases]) == 0
    (record,) = json.loads(output.read_text())
    paths = sorted((root / "masks/judo").glob("*.png"))
    assert {frame for instance in record["annotation"] for frame in instance} == {str(int(p.stem)) for p in paths}
    for index, instance in zip(known, record["annotation"], strict=True):
        for frame, found in instance.items():
            expected = indices_of(root / f"masks/judo/{int(frame):05d}.png") == index
            assert np.array_equal(coco.decode(found["segmentation"]), expected)


def test_real_object_files_and_rle_are_pixel_identical(test_data, tmp_path):
    root = test_data / "dam_video1" / "videos"
    output, again = tmp_path / "car.json", tmp_path / "again.json"
    flags = ["--video", str(root / "1.mp4"), "--phrase", "1=the silver SUV"]
    assert main([*flags, "--masks", str(root / "1_masks"), "--output", str(output)]) == 0
    (record,) = json.loads(output.read_text())
    paths = sorted((root / "1_masks").glob("*.png"))
    assert list(record["annotation"][0]) == [str(number) for number in range(12)]
    for path, found in zip(paths, record["annotation"][0].values()):
        assert np.array_equal(coco.decode(found["segmentation"]), indices_of(path) > 0)
    rles = tmp_path / "rles.json"
    rles.write_text(json.dumps({"1": record["annotation"][0]}))
    assert main([*flags, "--masks", str(rles), "--output", str(again)]) == 0
    assert again.read_text() == output.read_text()
