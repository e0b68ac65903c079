import pytest

from peftide.data.sequences import RESIDUES, clean_sequence, sequence_id
from peftide.data.symmetry import COARSE_GROUPS, SYMMETRY_CLASSES, read_symbols, symmetry_class


def test_every_residue_of_the_vocabulary_passes_unchanged():
    assert len(RESIDUES) == 25
    assert clean_sequence(RESIDUES) == (RESIDUES, "", False, False, False)


def test_lower_case_white_space_and_one_stop_are_cleaned_and_said():
    assert clean_sequence(" mk v\tl*\n") == ("MKVL", "", True, True, True)


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("MKJ", "J"),
        ("MK-V.", "-."),
        ("MK**", "*"),
        ("M*K", "*"),
        ("MK1", "1"),
        ("straße", "aerstß"),
        ("MK\u200bV", "\u200b"),
    ],
)
def test_what_is_no_residue_is_named_and_left_in_place(text, foreign):
    assert clean_sequence(text).foreign == foreign


def test_a_letter_beyond_ascii_is_never_made_a_residue():
    assert clean_sequence("\u017f").foreign == "\u017f"  # the long s, whose upper case is S


def test_the_id_of_a_sequence_depends_on_the_sequence_alone():
    assert sequence_id("MKV") == "06101e170c22fd1e"
    assert sequence_id("MKL") != sequence_id("MKV")


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        *(("C1", "C1"), ("c6", "C6"), ("C7", "C7-C9"), ("C9", "C7-C9"), ("C10", "C10-C17"), ("C17", "C10-C17")),
        *(("C18", "other"), ("D2", "D2"), ("D5", "D5"), ("D6", "D6-D12"), ("D12", "D6-D12"), ("D13", "other")),
        *(("h", "H"), ("I", "I"), ("Other", "other"), ("C7-C9", "C7-C9")),
        *(("C0", None), ("D1", None), ("C", None), ("C02", None), ("X", None), ("C-2", None), ("C99999", None)),
    ],
)
def test_a_point_group_has_the_class_of_the_paper(symbol, expected):
    assert symmetry_class(symbol) == expected


def test_there_are_seventeen_classes_and_other_each_in_one_coarse_group():
    grouped = [name for names in COARSE_GROUPS.values() for name in names]
    assert len(SYMMETRY_CLASSES) == 18
    assert tuple(grouped) == SYMMETRY_CLASSES
    assert COARSE_GROUPS["monomer"] == ("C1",)


@pytest.mark.parametrize("label", ["D3 C2", "D3,C2", "D3; C2", " D3\tC2 "])
def test_symbols_may_be_separated_by_space_comma_or_semicolon(label):
    assert read_symbols(label) == {"D3": "D3", "C2": "C2"}


def test_a_symbol_that_is_no_symmetry_is_kept_with_none():
    assert read_symbols("C2 dimer") == {"C2": "C2", "dimer": None}
