import io

import polars as pl
import pytest

from sare_core.engine.terminal import PlainConsole
from sare_core.evaluation.intervals import Run, measure_runs
from sare_core.evaluation.latex import to_latex
from sare_core.evaluation.metrics import (
    FORENSYNTHS,
    FORENSYNTHS_EXTRA,
    GENIMAGE,
    METRICS,
    PREDICTION_SCHEMA,
    subset_metrics,
)
from sare_core.evaluation.paper import PAPER_TABLES
from sare_core.evaluation.tables import (
    TRIVIAL,
    ResultTable,
    marked,
    result_tables,
    summary_table,
    to_csv,
    to_markdown,
    to_terminal,
)

SARE = "sare · mini"
RIGHT, HALF = [(0, -1.0), (1, 1.0)], [(0, 1.0), (1, 2.0)]  # acc 1 and 1/2, both auc 1


def metrics(subsets: dict[str, list[tuple[int | None, float]]]) -> pl.DataFrame:
    rows = [(f"{s}-{i}", s, y, z, float(z > 0)) for s, pairs in subsets.items() for i, (y, z) in enumerate(pairs)]
    return subset_metrics(pl.DataFrame(rows, schema=PREDICTION_SCHEMA, orient="row"))


def all_right(names) -> pl.DataFrame:
    return metrics(dict.fromkeys(names, RIGHT))


def cells(table, detector: str) -> dict[str, str]:
    (row,) = [row for row in table.rows if row[0] == detector]
    return dict(zip(table.columns[1:], row[1:], strict=True))


def printed(table, width: int) -> str:
    console = PlainConsole(file=io.StringIO(), width=width)
    console.print(to_terminal(table, console.width))
    return console.file.getvalue()


def test_the_papers_averages_follow_from_its_cells_but_for_known_misprints():
    misprints = {(t.number, detector) for t in PAPER_TABLES.values() for detector in t.rows if t.misprinted(detector)}
    assert misprints == {(4, "DRCT")}
    table_4 = PAPER_TABLES["forensynths", "auc"]
    assert table_4.printed_average("DRCT") == 79.67
    assert table_4.cell_average("DRCT") == pytest.approx(80.58, abs=0.005)


def test_the_papers_tables_are_whole():
    assert {t.number: (t.measure, len(t.subsets), len(t.rows)) for t in PAPER_TABLES.values()} == {
        1: ("acc", 8, 7),
        2: ("auc", 8, 7),
        3: ("acc", 11, 7),
        4: ("auc", 11, 7),
    }
    for table in PAPER_TABLES.values():
        assert all(0 <= value <= 100 for row in table.rows.values() for value in row)
        assert all(len(row) == len(table.subsets) + 1 for row in table.rows.values())


def test_the_improvement_that_the_paper_states_in_its_text():
    for layout, measure, gain in [("genimage", "acc", 4.36), ("genimage", "auc", 2.49)]:
        table = PAPER_TABLES[layout, measure]
        assert table.printed_average("DRCT + SARE") - table.printed_average("DRCT") == pytest.approx(gain, abs=0.005)


def test_genimage_stands_beside_the_paper():
    runs = {SARE: metrics({**dict.fromkeys(GENIMAGE, RIGHT), "adm": HALF}), TRIVIAL: all_right(GENIMAGE)}
    acc, auc = result_tables("paper on genimage", runs, "genimage")
    assert (acc.title, auc.title) == ("paper on genimage: ACC (%)", "paper on genimage: AUC (%)")
    assert acc.columns == ["Detector", *GENIMAGE, "Avg", "Worst"]
    assert [row[0] for row in acc.rows] == [
        SARE,
        TRIVIAL,
        *(f"{name} (paper)" for name in PAPER_TABLES["genimage", "acc"].rows),
    ]
    assert cells(acc, SARE)["adm"] == "50.00" and cells(acc, SARE)["Avg"] == "93.75"
    assert cells(auc, SARE)["adm"] == "100.00"
    drct = " ".join(cells(acc, "DRCT (paper)").values())
    assert drct == "90.89 94.75 94.28 78.54 87.52 94.58 90.12 79.76 88.81 78.54"
    assert cells(auc, "DRCT + SARE (paper)")["Avg"] == "98.15"
    assert acc.notes == ["(paper): Table 1, all detectors trained on GenImage's SDv1.4."]


def test_the_papers_average_needs_all_of_its_subsets():
    acc, _ = result_tables("t", {SARE: all_right(["adm", "sdv1.4"])}, "genimage")
    assert acc.columns == ["Detector", "sdv1.4", "adm", "Avg", "Worst"]
    assert cells(acc, "DRCT (paper)") == {"sdv1.4": "94.75", "adm": "78.54", "Avg": "–", "Worst": "78.54"}
    assert any("over 8 subsets, of which this run has 2" in note for note in acc.notes)


def test_forensynths_quotes_both_averages_of_the_misprint():
    acc, auc = result_tables("t", {SARE: all_right(FORENSYNTHS)}, "forensynths")
    assert cells(auc, "DRCT (paper)")["Avg"] == "79.67"
    (misprint,) = [note for note in auc.notes if note.startswith("DRCT")]
    assert "79.67" in misprint and "80.58" in misprint
    assert not any(note.startswith("DRCT") for note in acc.notes)


def test_forensynths_with_the_two_folders_that_the_paper_leaves_out():
    acc, _ = result_tables("t", {SARE: all_right(FORENSYNTHS + FORENSYNTHS_EXTRA)}, "forensynths")
    assert acc.columns[-5:] == ["stylegan2", "whichfaceisreal", "Avg", "Avg (paper's 11)", "Worst"]
    paper = cells(acc, "DRCT + SARE (paper)")
    assert [paper[column] for column in acc.columns[-5:]] == ["–", "–", "–", "70.97", "–"]
    assert cells(acc, SARE)["Avg (paper's 11)"] == "100.00"


@pytest.mark.parametrize(("paper", "names"), [(None, ["adm", "mine"]), ("genimage", ["mine"])])
def test_no_paper_rows_beside_other_images(paper, names):
    for table in result_tables("t", {SARE: all_right(names)}, paper):
        assert [row[0] for row in table.rows] == [SARE]
        assert table.notes == []


def test_undefined_numbers_and_the_average_that_lacks_them():
    acc, auc = result_tables("t", {SARE: metrics({"a": RIGHT, "b": [(1, 1.0)], "c": [(None, 1.0)]})}, None)
    assert cells(acc, SARE) == {"a": "100.00", "b": "100.00", "c": "–", "Avg": "100.00", "Worst": "100.00"}
    assert cells(auc, SARE) == {"a": "100.00", "b": "–", "c": "–", "Avg": "100.00", "Worst": "100.00"}
    assert acc.notes == [f"{SARE}: the average is over 2 of 3 subsets; the others lack labelled images."]
    assert auc.notes == [f"{SARE}: the average is over 1 of 3 subsets; the others lack both real and fake images."]


def test_a_detector_without_a_subset_has_a_gap_there():
    acc, _ = result_tables("t", {SARE: all_right(["a", "b"]), TRIVIAL: all_right(["b"])}, None)
    assert cells(acc, TRIVIAL) == {"a": "–", "b": "100.00", "Avg": "100.00", "Worst": "–"}


def test_markdown():
    tables = result_tables("t", {SARE: metrics({"a|b": HALF})}, None, notes=["The weights are random."])
    assert to_markdown(tables[:1]) == (
        "## t: ACC (%)\n"
        "\n"
        "| Detector | a\\|b | Avg |\n"
        "| --- | ---: | ---: |\n"
        "| sare · mini | 50.00 | 50.00 |\n"
        "\n"
        "- The weights are random.\n"
    )
    assert to_markdown(tables).count("The weights are random.") == 2


@pytest.mark.parametrize("width", [40, 80, 130])
def test_a_narrow_terminal_loses_no_number(width):
    runs = {SARE: all_right(FORENSYNTHS + FORENSYNTHS_EXTRA)}
    _, auc = result_tables("t", runs, "forensynths", notes=["The [weights] are random."])
    lines = printed(auc, width).splitlines()
    assert max(map(len, lines)) <= width
    for detector, *values in auc.rows:
        shown = " ".join(line[len(detector) :] for line in lines if line.startswith(detector + "  "))
        assert shown.split() == values
    assert "The [weights] are random." in " ".join(lines)


def test_csv_holds_every_metric_of_every_detector():
    runs = {SARE: metrics({"a": HALF, "b": [(1, 1.0), (None, 1.0)]}), TRIVIAL: all_right(["a"])}
    read = pl.read_csv(io.StringIO(to_csv(runs)))
    assert read.columns[:6] == ["detector", "subset", "n", "n_real", "n_fake", "n_unlabelled"]
    assert read.columns[6:] == [*METRICS, "matched_pairs", "acc_over", "auc_over"]
    assert read.select("detector", "subset").rows() == [
        (SARE, "a"),
        (SARE, "b"),
        (SARE, "mean"),
        (SARE, "worst"),
        (TRIVIAL, "a"),
        (TRIVIAL, "mean"),
    ]
    assert read.row(1)[2:6] == (1, 0, 1, 1)
    assert read.select("acc", "auc", "ap", "real_acc", "fake_acc").row(1) == (1.0, None, None, None, 1.0)
    assert read["acc"].to_list() == [0.5, 1.0, 0.75, 0.5, 1.0, 1.0]


def test_the_best_and_the_second_of_each_column_are_marked_and_the_papers_rows_are_not():
    runs = {SARE: metrics({"a_b": RIGHT}), "other": metrics({"a_b": HALF}), "again": metrics({"a_b": HALF})}
    acc, _ = result_tables("t", runs, None)
    table = marked(acc, 3)
    assert (table.best, table.second) == ({(0, 1), (0, 2)}, {(1, 1), (1, 2), (2, 1), (2, 2)})
    assert marked(acc, 1) == acc, "one number is the best of nothing"
    assert "| sare · mini | **100.00** | **100.00** |\n| other | <u>50.00</u> |" in to_markdown([table])
    latex = to_latex([table])
    assert r"sare $\cdot$ mini & \textbf{100.00} & \textbf{100.00} \\" in latex
    assert r"other & \underline{50.00} & \underline{50.00} \\" in latex
    assert r"Detector & a\_b & Avg \\" in latex and latex.count(r"\begin{tabular}{lrr}") == 1
    console = PlainConsole(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    console.print(to_terminal(table, 80))
    assert "\x1b[1m100.00" in console.file.getvalue() and "\x1b[4m50.00" in console.file.getvalue()


def test_latex_takes_any_name():
    acc, _ = result_tables("50 % & more", {"a{b}\\c#$^~": metrics({"x": RIGHT})}, None, notes=["two\nlines"])
    latex = to_latex([acc])
    assert r"\caption{50 \% \& more: ACC (\%)}" in latex
    assert r"a\{b\}\textbackslash{}c\#\$\textasciicircum{}\textasciitilde{} & 100.00" in latex
    assert latex.index(r"\end{tabular}") < latex.index("two lines\\par") < latex.index(r"\end{table}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Δ > 0, |x − x̂| < ±1 % …",
            r"$\Delta$ \textgreater{} 0, \textbar{}x $-$ \^{x}\textbar{} \textless{} $\pm$1 \% \ldots{}",
        ),
        ("R² – naïve Ångström, façade", r"R\textsuperscript{2} -- na\"{i}ve \r{A}ngstr\"{o}m, fa\c{c}ade"),
        ("中 ½", "[U+4E2D] [U+00BD]".replace("[", "{[}", 1)),
        ("[a]", "{[}a]"),
        ("*", "{*}"),
        ("\u0302", "[U+0302]".replace("[", "{[}")),
    ],
)
def test_latex_needs_nothing_but_pdflatex(text, shown):
    """[ and * at the head of a row would be an option of the \\\\ before it; < is ¡ in LaTeX's first fonts."""
    latex = to_latex([ResultTable(text, ["", text], [[text, "1"]], [text])])
    assert latex.isascii()
    assert rf"\caption{{{shown}}}" in latex and f"\n{shown} & 1 \\\\\n" in latex and f"\n{shown}\\par\n" in latex


def test_a_summary_names_what_it_shows_and_leaves_out_what_is_undefined():
    rows = [
        (f"{s}{i}", s, i % 2, float(z), 0.5) for s in ("sdv1.4", "sdv1.5", "adm") for i, z in enumerate((0, 1, 2, 3))
    ]
    found = measure_runs([Run(pl.DataFrame(rows, schema=PREDICTION_SCHEMA, orient="row"))], trained=["sdv1.4"])
    table = summary_table("t", found, ["acc", "val_acc", "auc", "cllr"], ["sdv1.4"], None)
    assert table.columns == ["Generator", "ACC", "AUC", "Cllr"], "no threshold is known"
    assert [row[0] for row in table.rows] == [
        *("sdv1.4 (trained)", "sdv1.5", "adm", "mean", "mean of unseen", "of these, no near-copies", "worst")
    ]
    auc = found.row(2, named=True)
    ends = f"{100 * auc['auc_low']:.1f}, {100 * auc['auc_high']:.1f}"
    assert table.rows[2][1:] == ["50.0", f"75.0 [{ends}]", f"{auc['cllr']:.3f}"]
    assert "at a score of 0.5" in table.notes[0] and "held-out" not in table.notes[0]
    beside = summary_table("t", found, ["auc"], [], found)
    assert beside.columns[-1] == "trivial" and beside.rows[2][-1] == "75.0"
