import numpy as np
import pandas as pd
import pytest

from peftide.config import DataSettings
from peftide.data.datasets import read_dataset
from peftide.data.labels import NEGATIVE_WORDS, POSITIVE_WORDS
from peftide.data.proteins import read_proteins
from peftide.errors import UserError

SEQUENCES = ">a\nMKVA\n>b\nMKVC\n>c\nMKVD\n>d\nMKVE\n"


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    return write


@pytest.fixture
def pairs(write):
    """A dataset, or the text of the error, from rows of pairs over four sequences."""

    def pairs(rows, *, header="protein_a,protein_b,label", sequences=SEQUENCES, labelled=True, **settings):
        data = write("pairs.csv", header + "\n" + rows)
        source = write("s.fasta", sequences) if sequences else None
        return read_dataset(DataSettings(data=data, sequences=source, **settings), labelled=labelled)

    return pairs


@pytest.fixture
def proteins(write):
    """A dataset from a table of proteins."""

    def proteins(content, *, labelled=True, classes=None, kind=None, task="protein", **settings):
        settings = DataSettings(data=write("p.csv", content), task=task, **settings)
        return read_dataset(settings, labelled=labelled, classes=classes, kind=kind)

    return proteins


def labels_of(*labels):
    """A table of proteins with one label each, quoted."""
    letters = "ACDEFGHIKLMNPQRSTVWY"
    rows = [f'p{i},M{letters[i % 20]}{letters[i // 20]},"{label}"' for i, label in enumerate(labels)]
    return "id,sequence,label\n" + "\n".join(rows) + "\n"


def error_of(read, *arguments, **settings):
    with pytest.raises(UserError) as caught:
        read(*arguments, **settings)
    return str(caught.value)


# Pairs


def test_pairs_find_their_sequences_in_order_of_first_appearance(pairs):
    dataset = pairs("c,a,1\na,b,0\n")
    assert dataset.proteins.ids == ("c", "a", "b")
    assert dataset.proteins.sequences == ("MKVD", "MKVA", "MKVC")
    assert dataset.members_NK.tolist() == [[0, 1], [1, 2]]
    assert (dataset.targets.tolist(), dataset.targets.dtype, dataset.members_NK.dtype) == ([1, 0], "float32", "int64")
    assert (dataset.kind, dataset.classes, dataset.split_N) == ("binary", ("0", "1"), None)
    assert any("1 protein of 4 not used by any example" in note for note in dataset.notes)


def test_every_problem_of_a_file_is_listed_with_its_line(pairs):
    rows = "a,b,1\nb,a,0\na,a,1\na,x,0\nc,,1\nc,d,\nc,d,1,1\na,e,1\n"
    text = error_of(pairs, rows, sequences=SEQUENCES + ">e\nMK1\n>f\nM!\n")
    for expected in (
        "pairs.csv:3: 'b' and 'a': another label than at",
        "pairs.csv:4: 'a' is paired with itself",
        "pairs.csv:5: 'x' is not in",
        "pairs.csv:6: no value in column 'protein_b'",
        "pairs.csv:7: no value in column 'label'",
        "pairs.csv:8: 4 fields where the header has 3",
        "s.fasta:9: letters 1 of protein 'e' are not residues",
    ):
        assert expected in text
    assert "(7 problems)" in text


def test_each_kind_of_problem_is_shown_among_a_thousand_of_another(pairs):
    rows = "".join(f"a,x{i},1\n" for i in range(1000)) + "a,b,0\na,c,maybe\n"
    text = error_of(pairs, rows)
    assert "maybe" in text
    assert "more of the same kinds" in text
    assert len(text.splitlines()) == 52


def test_repeated_pairs_with_one_label_are_merged_in_either_order_and_counted(pairs):
    dataset = pairs("a,b,1\nc,d,0\nb,a,1\na,b,1\n")
    assert dataset.members_NK.tolist() == [[0, 1], [2, 3]]
    assert any("2 rows that repeat a pair" in note for note in dataset.notes)


def test_rows_to_predict_keep_order_and_repetitions_and_ignore_labels(pairs):
    dataset = pairs("a,b,1\nb,a,zero\nd,c,\na,b,0\n", labelled=False)
    assert dataset.members_NK.tolist() == [[0, 1], [1, 0], [2, 3], [0, 1]]
    assert (dataset.targets, dataset.split_N, dataset.classes) == (None, None, ())


def test_self_pairs_are_accepted_with_the_flag(pairs):
    assert pairs("a,a,1\na,b,0\n", allow_self_pairs=True).members_NK.tolist() == [[0, 0], [0, 1]]


def test_sequences_may_stand_in_the_table_with_ids_made_from_them(pairs):
    dataset = pairs("mkva,MKVC,1\nMKVA,MKVD*,0\n", header="sequence_a,sequence_b,label", sequences=None)
    assert dataset.proteins.sequences == ("MKVA", "MKVC", "MKVD")
    assert dataset.members_NK.tolist() == [[0, 1], [0, 2]]
    assert all(len(name) == 16 for name in dataset.proteins.ids)
    assert any("1 sequence written in upper case" in note for note in dataset.notes)
    assert any("1 sequence freed of a trailing *" in note for note in dataset.notes)


def test_ids_beside_sequences_are_kept_and_must_agree(pairs):
    header = "protein_a,sequence_a,protein_b,sequence_b,label"
    assert pairs("a,MKV,b,MKL,1\nb,MKL,c,MK,0\n", header=header, sequences=None).proteins.ids == ("a", "b", "c")
    text = error_of(pairs, "a,MKV,b,MKL,1\nb,MKV,c,MK,0\n", header=header, sequences=None)
    assert "pairs.csv:3: 'b' has another sequence than at" in text


def test_named_columns_hold_ids_or_sequences_as_the_other_settings_say(pairs):
    settings = {"column_a": "x", "column_b": "y", "header": "x,y,label"}
    assert pairs("a,b,1\nc,d,0\n", **settings).proteins.ids == ("a", "b", "c", "d")
    assert pairs("MK,ML,1\nMV,MI,0\n", sequences=None, **settings).proteins.sequences == ("MK", "ML", "MV", "MI")


def test_ids_without_sequences_ask_for_the_file_of_sequences(pairs):
    assert "give the sequences with --sequences" in error_of(pairs, "a,b,1\nc,d,0\n", sequences=None)


def test_likely_columns_are_recognised_and_said(pairs):
    dataset = pairs("a,b,1\nc,d,0\n", header="Protein 1,Protein 2,Interaction")
    for expected in ("'Protein 1' is read as protein_a", "'Interaction' is read as label"):
        assert any(expected in note for note in dataset.notes)


def test_two_likely_columns_are_an_error_that_names_the_flag(pairs):
    text = error_of(pairs, "a,b,1,1\n", header="protein_a,protein_b,class,target")
    assert "class, target could each be the label; name one with --column-label" in text


def test_all_missing_columns_are_listed_with_what_there_is(pairs):
    text = error_of(pairs, "a,b,1\n", header="protein_a,partner,lable")
    assert "no column 'protein_b'; there are protein_a, partner, lable" in text
    assert "did you mean 'lable'" in text
    assert "--column-b" in text
    assert "there is no column 'labl'" in error_of(pairs, "a,b,1\n", column_label="labl")


def test_a_table_of_the_other_kind_is_told_its_task(pairs, proteins):
    single = error_of(pairs, "a,MKV,1\n", header="id,sequence,label", sequences=None)
    assert "one protein a row is for --task protein or --task symmetry" in single
    assert "--task" not in error_of(pairs, "a,1\n", header="partner,label")
    assert "two proteins a row are for --task pair" in error_of(proteins, "protein_a,protein_b,label\na,b,1\n")
    assert "--task" not in error_of(proteins, "partner,label\na,1\n")


def test_uniprot_headers_are_found_by_accession(pairs):
    dataset = pairs("P1,P2,1\nP1,P3,0\n", sequences=">sp|P1|A_HUMAN x\nMK\n>tr|P2|B\nML\n>P3\nMV\n")
    assert dataset.proteins.ids == ("P1", "P2", "P3")
    assert any("2 proteins such as 'P1' found by the accession" in note for note in dataset.notes)


def test_ids_that_look_like_nothing_stay_ids(pairs):
    dataset = pairs("NA,null,1\nNaN,NA,0\n", sequences=">NA\nMK\n>null\nML\n>NaN\nMV\n")
    assert dataset.proteins.ids == ("NA", "null", "NaN")


def test_one_id_with_two_sequences_is_an_error_and_with_one_is_merged(pairs):
    text = error_of(pairs, "a,b,1\nc,d,0\n", sequences=SEQUENCES + ">a\nMKVW\n")
    assert "s.fasta:9: 'a' has another sequence than at" in text
    dataset = pairs("a,b,1\nc,d,0\n", sequences=SEQUENCES + ">a\nmkva*\n")
    assert any("1 row that repeat an id with the same sequence" in note for note in dataset.notes)


def test_a_protein_that_no_pair_names_cannot_stop_the_reading(pairs):
    assert len(pairs("a,b,1\nc,d,0\n", sequences=SEQUENCES + ">e\n123\n>f\n\n")) == 2


def test_empty_sequences_and_unprintable_ids_are_problems(pairs):
    assert "s.fasta:9: protein 'e' has no sequence" in error_of(pairs, "a,e,1\n", sequences=SEQUENCES + ">e\n*\n")
    text = error_of(pairs, "a\x07,b,1\nc,d,0\n", sequences=SEQUENCES + ">a\x07\nMK\n")
    assert "characters that cannot be printed" in text


def test_an_unknown_id_is_reported_once_with_its_nearest(pairs):
    text = error_of(pairs, "prot1,b,1\nprot1,c,0\nb,c,1\n", sequences=SEQUENCES + ">Prot1\nMK\n")
    assert "'prot1' is not in" in text
    assert "(nearest: 'Prot1') (and 1 more row)" in text
    assert "(1 problem)" in text


# Splits


def test_words_for_splits_are_understood_and_counted(pairs):
    rows = "a,b,1,Training\na,c,0,train\nb,c,1,dev\nb,d,0,valid\nc,d,1,testing\na,d,0,TEST\nx,a,0,unused\n"
    dataset = pairs(rows, header="protein_a,protein_b,label,split", sequences=SEQUENCES + ">x\nMK\n")
    assert dataset.split_N.tolist() == ["train", "train", "val", "val", "test", "test", "unused"]
    assert any("split 'dev' is read as val (1 row)" in note for note in dataset.notes)
    assert any("2 train, 2 val, 2 test, 1 unused" in note for note in dataset.notes)
    assert any("2 proteins in both train and val" in note for note in dataset.notes)


def test_other_splits_and_one_pair_in_two_splits_are_problems(pairs):
    rows = "a,b,1,train\na,c,0,train\nb,a,1,test\nb,c,0,both\n"
    text = error_of(pairs, rows, header="protein_a,protein_b,label,split")
    assert "pairs.csv:5: 'both' is not a split" in text
    assert "pairs.csv:4: 'b' and 'a': another split than at" in text


def test_a_class_without_an_example_in_a_split_is_an_error_that_names_both(pairs):
    rows = "a,b,1,train\na,c,0,train\nb,d,1,val\n"
    text = error_of(pairs, rows, header="protein_a,protein_b,label,split")
    assert "split val has no example of 0" in text


def test_a_column_called_set_is_a_split_only_if_it_holds_splits(proteins):
    table = "id,sequence,label,set\np,MK,1,{}\nq,ML,0,{}\n"
    assert proteins(table.format("train", "train")).split_N.tolist() == ["train", "train"]
    dataset = proteins(table.format("A", "B"))
    assert dataset.split_N is None
    assert any("column set is not read as split" in note for note in dataset.notes)
    text = error_of(proteins, table.format("train", "holdout"))
    assert "p.csv:3: 'holdout' is not a split" in text


# Proteins


def test_fasta_can_be_predicted_but_not_learned_from(write):
    settings = DataSettings(data=write("p.fasta", SEQUENCES + ">a\nMKVA\n"), task="protein")
    dataset = read_dataset(settings, labelled=False, kind="multiclass", classes=("x", "y", "z"))
    assert (dataset.kind, dataset.classes) == ("multiclass", ("x", "y", "z"))
    assert dataset.members_NK.tolist() == [[0], [1], [2], [3], [0]]
    assert "FASTA carries no labels" in error_of(read_dataset, settings)


def test_labels_of_proteins_may_come_with_ids_alone(proteins, write):
    dataset = proteins("accession,y\nb,1\na,0\n", sequences=write("s.csv", "Entry,Seq\na,MK\nb,ML\n"))
    assert (dataset.proteins.ids, dataset.proteins.sequences) == (("b", "a"), ("ML", "MK"))
    assert "give the sequences with --sequences" in error_of(proteins, "accession,y\nb,1\na,0\n")


def test_long_proteins_are_counted_or_refused_as_chosen(proteins):
    table = "id,sequence,label\np,MKVLA,1\nq,ML,0\n"
    assert any("1 protein of 2 longer than 3" in note for note in proteins(table, max_residues=3).notes)
    notes = proteins(table, max_residues=3, long_proteins="window").notes
    assert any("overlapping windows" in note for note in notes)
    text = error_of(proteins, table, max_residues=3, long_proteins="error")
    assert "p.csv:2: protein 'p' has 5 residues, more than --max-residues 3" in text


def test_one_protein_with_two_labels_is_a_problem(proteins):
    assert "p.csv:4: 'p': another label" in error_of(proteins, "id,sequence,label\np,MK,1\nq,ML,0\np,MK,0\n")


def test_settings_of_other_tasks_are_refused_by_name(proteins, pairs):
    text = error_of(proteins, "id,sequence,label\np,MK,1\n", column_a="x", allow_self_pairs=True, max_residues=0)
    for expected in ("--column-a is for task pair", "--allow-self-pairs is for", "--max-residues is 0"):
        assert expected in text
    assert "name two columns" in error_of(pairs, "a,b,1\n", column_a="protein_a", column_b="protein_a")
    assert "symmetry is multilabel" in error_of(proteins, "", task="symmetry", target="binary")
    assert "was trained for" in error_of(proteins, "", target="binary", kind="regression")


def test_read_proteins_gives_each_id_once_and_lists_all_problems(write):
    proteins, notes = read_proteins(write("s.fasta", ">a\nmkv\n>b\nML\n>a\nMKV\n"))
    assert (proteins.ids, proteins.sequences) == (("a", "b"), ("MKV", "ML"))
    assert any("1 row that repeat an id" in note for note in notes)
    text = error_of(read_proteins, write("s.fasta", ">a\nM-V\n>\nML\n>c\n\n>a\nMK\n"))
    for expected in (
        ":1: letters - of protein 'a'",
        ":3: a header without an id",
        ":5: protein 'c' has no",
        ":7: 'a' has",
    ):
        assert expected in text


def test_nucleotides_in_place_of_residues_are_said(write):
    _, notes = read_proteins(write("s.fasta", ">a\n" + "ACGT" * 10 + "\n"))
    assert any("if this is DNA or RNA" in note for note in notes)


# Labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("0", "1"), ("0", "1")),
        (("1", "-1"), ("-1", "1")),
        (("2", "1"), ("1", "2")),
        (("True", "False"), ("False", "True")),
        (("yes", "no"), ("no", "yes")),
        (("binder", "non-binder"), ("non-binder", "binder")),
        (("soluble", "insoluble"), ("insoluble", "soluble")),
        (("positive", "unlabelled"), ("unlabelled", "positive")),
        (("zinc", "iron"), ("iron", "zinc")),
    ],
)
def test_the_positive_one_of_two_labels_is_chosen_by_its_meaning(proteins, labels, classes):
    dataset = proteins(labels_of(*labels))
    assert (dataset.kind, dataset.classes) == ("binary", classes)
    assert [dataset.classes[int(target)] for target in dataset.targets] == list(labels)
    assert any(f"{classes[1]!r} is positive (1 of 2 rows)" in note for note in dataset.notes)


@pytest.mark.parametrize("case", [str, str.upper, str.title])
def test_a_word_for_yes_is_the_positive_one_beside_any_word_for_no(proteins, case):
    for positive in sorted(POSITIVE_WORDS):
        for negative in sorted(NEGATIVE_WORDS):
            label = case(positive), case(negative)
            dataset = proteins(labels_of(*label), kind="binary")
            assert [dataset.classes[int(target)] for target in dataset.targets] == list(label)
            assert dataset.targets.tolist() == [1, 0], label


@pytest.mark.parametrize("word", ["NA", "N/A", "#N/A", "null", "NaN"])
def test_what_programs_write_for_nothing_is_no_label_and_no_sequence(proteins, word):
    text = error_of(proteins, labels_of("1", "0", word))
    assert f"p.csv:4: label {word!r} is no label; fill it in or remove the row" in text
    if "/" not in word:
        text = error_of(proteins, f"id,sequence,label\np,MK,1\nq,{word},0\nr, Sequence  unavailable,0\n")
        assert "p.csv:3: protein 'q' has no sequence" in text
        assert "p.csv:4: protein 'r' has no sequence" in text


def test_a_class_of_a_model_may_have_the_name_of_nothing(proteins):
    dataset = proteins(labels_of("NA", "ZN"), classes=("NA", "ZN"), kind="multiclass")
    assert dataset.targets.tolist() == [0, 1]


def test_numbers_with_decimal_commas_are_told_though_some_have_none(proteins):
    for labels in (("45,2", "50", "61,9", "37,5"), ("1,5", "2", "3", "1,3E-05")):
        assert "look like decimal commas" in error_of(proteins, labels_of(*labels))
    assert proteins(labels_of("1", "2", "3")).kind == "multiclass"


def test_spellings_of_one_truth_value_are_one_class(proteins):
    dataset = proteins(labels_of("1", "0", "1.0", "true", "No"))
    assert (dataset.kind, dataset.classes, dataset.targets.tolist()) == ("binary", ("0", "1"), [1, 0, 1, 1, 0])
    assert proteins(labels_of("1", "0", "-1")).kind == "multiclass"
    assert proteins(labels_of("T", "Y", "N")).kind == "multiclass"


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (("b", "a", "c"), "multiclass", ("a", "b", "c")),
        (("10", "9", "1"), "multiclass", ("1", "9", "10")),
        (("a;b", "b", "a"), "multilabel", ("a", "b")),
        (("x, inner", "x, outer", "y"), "multiclass", ("x, inner", "x, outer", "y")),
        (("0.5", "1", "2"), "regression", ()),
        (tuple(str(i) for i in range(21)), "regression", ()),
    ],
)
def test_the_kind_of_target_follows_from_the_labels(proteins, labels, kind, classes):
    dataset = proteins(labels_of(*labels))
    assert (dataset.kind, dataset.classes) == (kind, classes)


def test_targets_have_the_shape_and_values_of_their_kind(proteins):
    multiclass = proteins(labels_of("b", "a", "c")).targets
    assert (multiclass.tolist(), multiclass.dtype) == ([1, 0, 2], np.int64)
    multilabel = proteins(labels_of("a; b", "b", "a;;a")).targets
    assert (multilabel.tolist(), multilabel.dtype) == ([[1, 1], [0, 1], [1, 0]], np.float32)
    regression = proteins(labels_of("0.5", "-1e1", "2")).targets
    assert (regression.tolist(), regression.dtype) == ([0.5, -10, 2], np.float32)
    spaced = proteins(labels_of("a b", "b"), target="multilabel")
    assert (spaced.classes, spaced.targets.tolist()) == (("a", "b"), [[1, 1], [0, 1]])


@pytest.mark.parametrize(
    ("labels", "target", "expected"),
    [
        (("1", "nan", "0"), "auto", "p.csv:3: label 'nan' is no label"),
        (("0.5", "inf", "1"), "regression", "p.csv:3: label 'inf' is not a finite"),
        (("0.5", "1e300", "1"), "regression", "p.csv:3: label '1e300' is not a finite"),
        (("0.5", "high", "1_0"), "regression", "p.csv:4: label '1_0' is no number"),
        (("0,5", "0,7", "0,9"), "auto", "decimal commas"),
        (("a", "b", "c"), "binary", "3 different labels: a, b, c"),
        (("a", "a"), "auto", "every label is a"),
        (("a", "a"), "multiclass", "every label is 'a'"),
        (("a", ";", "b"), "multilabel", "p.csv:3: label ';' names no class"),
    ],
)
def test_labels_that_do_not_fit_are_problems(proteins, labels, target, expected):
    assert expected in error_of(proteins, labels_of(*labels), target=target)


@pytest.mark.parametrize("label", ["mem\x1b[2Jbrane", "a\x07", "a\tb", "\x9b31m"])
def test_a_class_that_a_terminal_would_obey_is_a_problem(proteins, label):
    with pytest.raises(UserError, match=r"has characters that cannot be printed .*; write it without them"):
        proteins(labels_of(label, "soluble", label, "soluble"))


def test_a_class_may_have_any_letters_and_spaces(proteins):
    labels = ["inner\u00a0membrane", "\u03b2 \U0001f469\u200d\U0001f52c"]
    assert set(proteins(labels_of(*labels, *labels)).classes) == set(labels)
    several = proteins(labels_of("kinase\nbinder", "kinase", "binder motor"), target="multilabel")
    assert several.classes == ("binder", "kinase", "motor")


def test_labels_must_be_among_those_of_a_trained_model(proteins):
    dataset = proteins(labels_of("c", "a"), kind="multiclass", classes=("a", "b", "c"))
    assert (dataset.targets.tolist(), dataset.classes) == ([2, 0], ("a", "b", "c"))
    text = error_of(proteins, labels_of("a", "helixx"), kind="multiclass", classes=("a", "helix"))
    assert "p.csv:3: label 'helixx' is not a known class" in text
    assert "(nearest: 'helix')" in text
    assert proteins(labels_of("1", "1"), kind="binary", classes=("no", "yes")).targets.tolist() == [1, 1]
    assert "'maybe'" in error_of(proteins, labels_of("yes", "maybe"), kind="binary", classes=("no", "yes"))
    spaced = proteins(labels_of("a b", "c d"), kind="multilabel", classes=("a b", "c d"))
    assert spaced.targets.tolist() == [[1, 0], [0, 1]]


def test_symmetry_labels_become_the_classes_of_the_paper(proteins):
    dataset = proteins(labels_of("C2", "D3 C2", "C12", "i", "C30"), task="symmetry")
    taken = [[name for name, is_set in zip(dataset.classes, row, strict=True) if is_set] for row in dataset.targets]
    assert taken == [["C2"], ["C2", "D3"], ["C10-C17"], ["I"], ["other"]]
    assert (dataset.kind, len(dataset.classes)) == ("multilabel", 18)
    assert any("counted as class other: C30" in note for note in dataset.notes)
    assert "p.csv:3: 'dimer' is no symmetry" in error_of(proteins, labels_of("C2", "dimer C3"), task="symmetry")


def test_a_label_that_is_rare_among_several_may_miss_in_a_split(proteins):
    table = "id,sequence,label,split\np,MK,C2,train\nq,ML,D2,test\n"
    notes = proteins(table, task="symmetry").notes
    assert any("split train has no example of" in note and "D2" in note for note in notes)


def test_numeric_classes_are_the_same_however_they_are_written(tmp_path):
    pd.DataFrame({"sequence": ["MKV", "MKL", "MKI", "MKA"], "label": ["1", "2.0", "3", "2"]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    settings = DataSettings(data=str(tmp_path / "t.csv"), task="protein")
    dataset = read_dataset(settings, labelled=True, classes=("1.0", "2.0", "3.0"), kind="multiclass")
    assert dataset.targets.tolist() == [0, 1, 2, 1]


def test_a_typographic_minus_is_a_minus(tmp_path):
    numbers = [(-1) ** row * (row + 0.5) for row in range(30)]
    texts = [str(number).replace("-", "\N{MINUS SIGN}") for number in numbers]
    pd.DataFrame({"sequence": ["MKV" + "A" * row for row in range(30)], "label": texts}).to_csv(
        tmp_path / "t.csv", index=False
    )
    dataset = read_dataset(DataSettings(data=str(tmp_path / "t.csv"), task="protein"))
    assert dataset.kind == "regression"
    assert dataset.targets.tolist() == numbers
    assert any("U+2212" in note for note in dataset.notes)


def test_two_stray_quotes_in_a_tsv_do_not_swallow_a_row(tmp_path):
    lines = ["sequence\tname\tlabel", "MKV\ta\t0", 'MKL\t"alpha\t1', 'MKI\tbeta"\t0', "MKA\tb\t1"]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(UserError, match=r"t\.tsv:3: a cell that begins with a quote runs on to line 4"):
        read_dataset(DataSettings(data=str(tmp_path / "t.tsv"), task="protein"))
