"""Folders and tables as people have them: understood exactly, or refused with the cure. None is read by half."""

from collections import Counter
from pathlib import Path

import pytest

from sare_core.errors import ConfigError
from sare_core.index.adapters import find
from sare_core.index.listing import Problem
from tests.trees import forensynths_tree, genimage_tree

Cell = tuple[str, str, int | None]  # subset, split, label
REAL, FAKE = 0, 1


def make(root: Path, tree: str) -> Path:
    """A tree from words like "train/real=3": so many files in a folder; they need not be images to be found."""
    for part in tree.split():
        folder, _, count = part.partition("=")
        place = root / folder
        place.mkdir(parents=True, exist_ok=True)
        for number in range(int(count or 1)):
            (place / f"{number}.png").touch()
    return root


def cells(root: Path, problems: list[Problem] | None = None, layout: str = "folder") -> Counter[Cell]:
    found = find(layout, str(root), [] if problems is None else problems)
    return Counter((file.subset, file.split, file.label) for file in found)


PAIR = {("images", "test", REAL): 2, ("images", "test", FAKE): 3}
UNDERSTOOD: dict[str, tuple[str, dict[Cell, int]]] = {
    "real and fake": ("real=2 fake=3", PAIR),
    "as ForenSynths calls them": ("0_real=2 1_fake=3", PAIR),
    "as GenImage calls them": ("nature=2 ai=3", PAIR),
    "real and ai": ("real=2 ai=3", PAIR),
    "capitals": ("Real=2 Fake=3", PAIR),
    "all capitals": ("REAL=2 FAKE=3", PAIR),
    "plural": ("reals=2 fakes=3", PAIR),
    "human and synthetic": ("human=2 synthetic=3", PAIR),
    "AI-generated": ("real=2 AI-generated=3", PAIR),
    "loose files beside both": (".=1 real=2 fake=3", PAIR),
    "loose files in a split": ("test=1 test/real=2 test/fake=3", PAIR),
    "an empty folder of reals": ("real=0 fake=3", {("images", "test", FAKE): 3}),
    "fakes only": ("fake=3", {("images", "test", FAKE): 3}),
    "fakes of one generator only": ("fake/sdxl=3", {("sdxl", "test", FAKE): 3}),
    "reals only": ("real=2", {("real", "test", REAL): 2}),
    "long names of splits": (
        "training/real training/fake validation/real validation/fake testing/real testing/fake",
        {("images", split, label): 1 for split in ("train", "val", "test") for label in (REAL, FAKE)},
    ),
    "splits in capitals": (
        "Train/Real=2 Train/Fake=3 TEST/real=1 TEST/fake=1",
        {("images", "train", 0): 2, ("images", "train", 1): 3, ("images", "test", 0): 1, ("images", "test", 1): 1},
    ),
    "one generator": ("real=2 fake/sdxl=3", {("sdxl", "test", REAL): 2, ("sdxl", "test", FAKE): 3}),
    "several generators": (
        "train/real=2 train/fake/sdxl=3 train/fake/flux=4",
        {("real", "train", REAL): 2, ("sdxl", "train", FAKE): 3, ("flux", "train", FAKE): 4},
    ),
    "generators that are called like splits or labels in part": (
        "real=2 fake/realistic-vision=3 fake/test-drive-xl=4",
        {("real", "test", REAL): 2, ("realistic-vision", "test", FAKE): 3, ("test-drive-xl", "test", FAKE): 4},
    ),
    "labels below generators": (
        "flux/real=2 flux/fake=3 sdxl/real=4 sdxl/fake=5",
        {("flux", "test", 0): 2, ("flux", "test", 1): 3, ("sdxl", "test", 0): 4, ("sdxl", "test", 1): 5},
    ),
    "0_real and 1_fake below generators": (
        "flux/0_real=2 flux/1_fake=3",
        {("flux", "test", REAL): 2, ("flux", "test", FAKE): 3},
    ),
    "split, generator, label": (
        "train/flux/real=2 train/flux/fake=3 test/sdxl/real=4 test/sdxl/fake=5",
        {("flux", "train", 0): 2, ("flux", "train", 1): 3, ("sdxl", "test", 0): 4, ("sdxl", "test", 1): 5},
    ),
    "generator, split, label": (
        "flux/train/nature=2 flux/train/ai=3 flux/val/nature=4 flux/val/ai=5",
        {("flux", "train", 0): 2, ("flux", "train", 1): 3, ("flux", "val", 0): 4, ("flux", "val", 1): 5},
    ),
    "a folder around both labels": ("mine/real=2 mine/fake=3", {("mine", "test", REAL): 2, ("mine", "test", FAKE): 3}),
    "numbered folders of photos": ("0=1 1=2 2=3", {("images", "test", None): 6}),
    "photos of many things": ("holiday=1 surreal=1 nature-walk=1 airport=1", {("images", "test", None): 4}),
    "nothing but files": (".=4", {("images", "test", None): 4}),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_understood(tmp_path: Path, name: str) -> None:
    tree, expected = UNDERSTOOD[name]
    assert cells(make(tmp_path / "root", tree)) == expected


REFUSED: dict[str, tuple[str, str]] = {
    "generators beside real": ("real=2 sd14=3 midjourney=4", r"midjourney holds images without.*into a folder fake"),
    "a folder beside both labels": ("real=2 fake=3 sd14=4", "sd14 holds images without a label.*Move it into a folder"),
    "photos around fake": (".=9 fake=2", "the root holds images without.*into a folder real.*--layout unlabelled"),
    "fake among photos": ("fake=2 holiday=9", "holiday holds images without.*into a folder real.*--layout unlabelled"),
    "numbers as labels": ("train/0=2 train/1=3", "looks like a split, but there are no labels.*train/real"),
    "numbers alone": ("0=2 1=3", "0 and 1 do not say which is real.*Name the folders real and fake"),
    "splits without labels": ("train=2 test=3", "there are no labels.*Name the folders real and fake.*unlabelled"),
    "nature among photos": ("nature=2 city=3", "'nature' may be a label or a subject.*--layout unlabelled"),
    "ai alone": ("ai=3", "'ai' may be a label or a subject.*Name the folders real and fake"),
    "labels in longer names": ("real_images=2 fake_images=3", "'fake_images' looks like a label.*real and fake"),
    "one label in a longer name": ("real=2 fake_images=3", "fake_images holds images without.*into a folder fake"),
    "labels grown together": ("realimages=2 fakeimages=3", "'fakeimages' looks like a label"),
    "splits in longer names": ("train2017/real train2017/fake", "'train2017' looks like a split.*train, val and test"),
    "splits with -set": ("trainset/real trainset/fake testset/real", "'testset' looks like a split"),
    "a split of another name": ("train/real train/fake holdout/real holdout/fake", "two forms.*<subset>.*<split>"),
    "splits below labels": ("real/train real/test fake/train fake/test", "a split below the label.*train/real"),
    "splits below generators": ("real/coco/train fake/sdxl/train", "a split below the label.*train/real"),
    "labels below labels": ("fake/sdxl/0_real fake/sdxl/1_fake", "a label within a label"),
    "labels in some folders only": ("train/real train/fake test", "test holds images without a label"),
    "some fakes without generator": ("real fake=2 fake/sdxl=3", "images right in the folder of fakes.*Give them"),
    "the same folders on both sides": (
        "real/dog real/cat fake/dog fake/cat",
        "both hold a folder 'cat'.*<generator>/real",
    ),
    "two words for fake": (
        "real fake=2 ai=3",
        "both mean fake.*Put them into one folder",
    ),
    "two words for real": ("real Real fake", "both mean real"),
    "two spellings of a generator": ("train/real train/fake/SDXL test/fake/sdxl", "differ in case only.*SDXL, sdxl"),
    "two spellings of a subset": (
        "train/Flux/real train/Flux/fake test/flux/real test/flux/fake",
        "differ in case only",
    ),
    "two forms": ("real fake flux/real flux/fake", "folders of two forms"),
    "one level too high": (
        "mine/real mine/fake/sdxl mine/fake/flux",
        "either may be the generator.*give --root .*/root/mine[.]",
    ),
    "one level too high, with splits": ("mine/train/real mine/train/fake/sdxl", "give --root .*/root/mine[.]"),
    "two levels too high": ("a/b/real a/b/fake", "too many folders above.*Give a --root further down"),
    "two splits": ("train/val/real train/val/fake", "too many folders above the label"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_cure(tmp_path: Path, name: str) -> None:
    tree, message = REFUSED[name]
    root = make(tmp_path / "root", tree)
    with pytest.raises(ConfigError, match=message) as error:
        cells(root)
    assert str(error.value).startswith(f"{root}: ") and " files)" in str(error.value), "shows what was found"


@pytest.mark.parametrize("name", REFUSED)
def test_without_labels_anything_can_be_scored(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / "root", REFUSED[name][0])
    files = sum(path.is_file() for path in root.rglob("*"))
    assert cells(root, layout="unlabelled") == {("images", "test", None): files}


@pytest.mark.parametrize("own", ["fake", "Real", "1_fake", "ai", "nature"])
def test_the_root_is_a_label(tmp_path: Path, own: str) -> None:
    with pytest.raises(ConfigError, match=f"the root itself is called '{own}'.*Give the folder above it"):
        cells(make(tmp_path / own, ".=2 holiday=1"))
    assert cells(make(tmp_path / own / "images", "real=2 fake=3")) == PAIR, "a name further up means nothing"


def test_the_root_is_a_split(tmp_path: Path) -> None:
    assert cells(make(tmp_path / "train", "real=2 fake=3")) == {("images", "train", 0): 2, ("images", "train", 1): 3}


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    problems: list[Problem] = []
    cells(make(tmp_path / "b", ".=2 real=1 fake=1"), problems)
    cells(make(tmp_path / "c", "real=1 fake=0"), problems)
    assert [problem.problem for problem in problems] == [
        "2 files not read: neither in real/ nor in fake/",
        "no fake images",
    ]


def test_layouts_of_the_public_data_sets_are_not_taken_for_folders(tmp_path: Path) -> None:
    genimage = genimage_tree(tmp_path / "genimage", per_cell=1, subsets=["adm", "sdv1.4"])
    forensynths = forensynths_tree(tmp_path / "forensynths", per_cell=1, folders=["progan", "biggan"])
    with pytest.raises(ConfigError, match="Use --layout genimage"):
        cells(genimage)
    with pytest.raises(ConfigError, match="Use --layout genimage"):
        cells(genimage / "ADM" / "imagenet_ai_0508_adm")
    for root in (forensynths, forensynths / "progan"):
        with pytest.raises(ConfigError, match="Use --layout forensynths"):
            cells(root)
    (forensynths / "progan").rename(forensynths / "train")
    with pytest.raises(ConfigError, match="Use --layout forensynths"):
        cells(forensynths / "train")
    for layout in ("genimage", "forensynths"):
        with pytest.raises(ConfigError, match="use --layout folder for your own images"):
            cells(make(tmp_path / "own", "real=1 fake=1"), layout=layout)


# Tables

LABELLED = {("images", "test", REAL): 1, ("images", "test", FAKE): 1}
TABLES: dict[str, tuple[str, dict[Cell, int]]] = {
    "path": ("path,label\na.png,0\nb.png,1\n", LABELLED),
    "filename": ("filename,label\na.png,real\nb.png,fake\n", LABELLED),
    "file": ("file,label\na.png,real\nb.png,fake\n", LABELLED),
    "image_path": ("image_path,label\na.png,human\nb.png,ai\n", LABELLED),
    "Image": ("Image,Label\na.png,nature\nb.png,Generated\n", LABELLED),
    "url": ("url,label\na.png,REAL\nb.png,synthetic\n", LABELLED),
    "path beside another": ("path,filename,label\na.png,x,0\nb.png,y,1\n", LABELLED),
    "semicolons": ("path;label\na.png;0\nb.png;1\n", LABELLED),
    "tabs": ("path\tlabel\na.png\t0\nb.png\t1\n", LABELLED),
    "byte order mark": ("\ufeffpath,label\na.png,0\nb.png,1\n", LABELLED),
    "byte order mark and semicolons": ("\ufeffpath;label\r\na.png;0\r\nb.png;1\r\n", LABELLED),
    "quotes": ('"path";"label"\n"a.png";"0"\n"b.png";"1"\n', LABELLED),
    "is_fake": ("path,is_fake\na.png,False\nb.png,True\n", LABELLED),
    "numbers with a point": ("path,label\na.png,0.0\nb.png,1.0\n", LABELLED),
    "generator": (
        "path,label,generator\na.png,1,flux\nb.png,1,sdxl\n",
        {("flux", "test", 1): 1, ("sdxl", "test", 1): 1},
    ),
    "splits": (
        "path,split\na.png,Training\nb.png,validation\n",
        {("images", "train", None): 1, ("images", "val", None): 1},
    ),
    "no label": ("path\na.png\nb.png\n", {("images", "test", None): 2}),
    "commas in a name": ('path,label\n"a,1.png",0\nb.png,1\n', LABELLED),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_understood(tmp_path: Path, name: str) -> None:
    text, expected = TABLES[name]
    (tmp_path / "table.csv").write_text(text, encoding="utf-8", newline="")
    assert cells(tmp_path / "table.csv") == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.tsv", "path\tlabel\na.png\t0\nb.png\t1\n"),
        ("table.jsonl", '{"path": "a.png", "label": 0}\n{"path": "b.png", "label": 1, "more": [1, {"x": 2}]}\n'),
        ("TABLE.CSV", "path,label\na.png,0\nb.png,1\n"),
    ],
)
def test_other_kinds_of_tables(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert cells(tmp_path / name) == LABELLED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,url,label\na.png,b,0\n", "filename, url: each may be the path. Call the right one 'path'"),
        ("name,label\na.png,0\n", "no column `path`. It holds: name, label"),
        ("path,label\na.png,True\n", "row 1: label 'True'; use 0 or real"),
        ("path,label\na.png,-1\n", "row 1: label '-1'"),
        ("path,label\na.png,10\n", "row 1: label '10'"),
        ("path,class\na.png,real\nb.png,fake\n", "column 'class' holds labels. Call it 'label'"),
        ("path,subset\na.png,train\nb.png,test\n", "column 'subset' holds splits. Call it 'split'"),
        ("path,target\na.png,1\n", "no column `label`, but 'target'.*0 for real and 1 for fake"),
        ("path,is_real\na.png,1\n", "no column `label`, but 'is_real'"),
        ("path,label,is_fake\na.png,1,1\n", None),  # ours goes first; the other has no use
        ("path,label\n", None),
    ],
)
def test_a_table_that_cannot_be_meant(tmp_path: Path, text: str, message: str | None) -> None:
    (tmp_path / "table.csv").write_text(text)
    if message is None:
        cells(tmp_path / "table.csv")
        return
    with pytest.raises(ConfigError, match=message):
        cells(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        ("path,type\na.jpg,real\nb.jpg,fake", "type"),
        ("path,generator\na.jpg,real\nb.jpg,ai\nc.jpg,sdxl", "generator"),
        ("path,class\na.jpg,real\nb.jpg,fake\nc.jpg,unknown", "class"),
        ("path,label,partition\na.jpg,0,train\nb.jpg,1,test", "partition"),
    ],
)
def test_labels_and_splits_in_other_columns_are_not_lost(tmp_path: Path, rows: str, column: str) -> None:
    (tmp_path / "table.csv").write_text(rows)
    with pytest.raises(ConfigError, match=f"column '{column}' holds (labels|splits)"):
        list(find("folder", str(tmp_path / "table.csv"), []))


@pytest.mark.parametrize("word", ["非AI", "fake?"])
def test_letters_of_other_scripts_and_doubts_count(tmp_path: Path, word: str) -> None:
    (tmp_path / "table.csv").write_text(f"path,label\na.jpg,{word}\nb.jpg,AI")
    with pytest.raises(ConfigError, match="use 0 or real, 1 or fake"):
        list(find("folder", str(tmp_path / "table.csv"), []))


@pytest.mark.parametrize("root", ["train2017/real", "originals", "x/live", "a/label_0"])
def test_what_may_be_a_split_or_a_label_is_asked_for(tmp_path: Path, root: str) -> None:
    other = {"real": "fake", "originals": "manipulated", "live": "spoof", "label_0": "label_1"}
    place = tmp_path / "data" / root
    for folder in (place, place.with_name(other[place.name])):
        folder.mkdir(parents=True)
        (folder / "0.png").touch()
    start = tmp_path / "data" / ("train2017" if "train" in root else "")
    with pytest.raises(ConfigError, match=r"do not say which is real|training images, or not"):
        list(find("folder", str(start), []))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nosuch://a/b.png", "cannot be opened: Protocol not known"),
        ("github://a.png", "cannot be opened: .*missing"),
        ("ftp://127.0.0.1:9/a.png", "not reachable .*refused"),
        ("a\0b.png", "null character"),
    ],
)
def test_a_path_that_cannot_be_opened_names_its_row(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(f"path\na.png\n{path}\n")
    with pytest.raises(ConfigError, match=f"table.csv, row 2: .*{message}.*Correct the path, or drop the row"):
        list(find("folder", str(tmp_path / "table.csv"), []))
