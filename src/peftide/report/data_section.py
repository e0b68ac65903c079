"""Data and audit: sizes, class balance, what splits share, what was flagged, cleaned and assumed."""

from peftide.data.audit import Audit
from peftide.report.blocks import Block, Bullets, Cell, Column, Heading, Picture, Section, Table, Text, text_table
from peftide.report.facts import RunFacts
from peftide.report.figures import identity_bars
from peftide.report.wording import ABSENT, SPLIT_WORDS, capital, number, percent

MOST_CLASSES_SHOWN = 60


def data_section(facts: RunFacts) -> Section:
    """The section; without an audit only sizes and notes."""
    blocks: list[Block] = []
    if facts.audit is None:
        blocks += [_sizes(facts.data.examples), Text("The splits were not audited: it is not known what they share.")]
    else:
        blocks += _audited(facts.audit)
    if facts.data.notes:
        blocks += [Heading("What was read, cleaned and assumed"), Bullets(facts.data.notes)]
    return Section("Data and audit", tuple(blocks))


def _sizes(examples: dict[str, int]) -> Block:
    if not examples:
        return Text("The sizes of the splits were not recorded.")
    return text_table(("Split", "Examples"), tuple((SPLIT_WORDS.get(k, k), f"{n:,}") for k, n in examples.items()))


def _audited(audit: Audit) -> list[Block]:
    rows = [
        (SPLIT_WORDS.get(split.name, split.name), f"{split.num_examples:,}", f"{split.num_proteins:,}",
         f"{split.num_long_proteins:,}")
        for split in audit.splits
    ]  # fmt: skip
    if audit.num_unused:
        rows.append(("unused", f"{audit.num_unused:,}", ABSENT, ABSENT))
    columns = ("Split", "Examples", "Proteins", f"Longer than {audit.max_residues:,} residues")
    blocks: list[Block] = [text_table(columns, tuple(rows)), *_balance(audit), *_overlaps(audit), *_shortcuts(audit)]
    if audit.flags:
        blocks += [Heading("Flags"), Bullets(audit.flags)]
    if audit.remarks:
        blocks += [Heading("Remarks"), Bullets(audit.remarks)]
    repeated = f"Repeated examples: {audit.num_repeated:,}. Examples that occur again with another label: "
    return [*blocks, Text(f"{repeated}{audit.num_contradictory:,}.", is_note=True)]


def _balance(audit: Audit) -> list[Block]:
    """Examples of each class by split; the most common classes where they are very many."""
    names = list(dict.fromkeys(name for split in audit.splits for name in split.class_counts))
    if not names:
        return []
    totals = {name: sum(split.class_counts.get(name, 0) for split in audit.splits) for name in names}
    shown = [name for name in names if name in sorted(names, key=lambda name: -totals[name])[:MOST_CLASSES_SHOWN]]
    rows = []
    for name in shown:
        counts = [split.class_counts.get(name, 0) for split in audit.splits]
        shares = [n / max(split.num_examples, 1) for n, split in zip(counts, audit.splits, strict=True)]
        rows.append((Cell(name), *(Cell(f"{n:,}", percent(f)) for n, f in zip(counts, shares, strict=True))))
    left_out = len(names) - len(shown)
    return [
        Heading("Class balance"),
        Table(
            columns=(
                Column("Class", is_number=False),
                *(Column(capital(SPLIT_WORDS.get(s.name, s.name))) for s in audit.splits),
            ),
            rows=tuple(rows),
            caption=f"{left_out:,} rarer classes are not shown." if left_out else "",
        ),
    ]


def _overlaps(audit: Audit) -> list[Block]:
    if not audit.overlaps:
        return []
    columns = (
        *("Proteins of", "In all", "Same protein", "Same sequence, other id", "Close relative"),
        *("Leaked in all", "Same example"),
    )
    rows = tuple(
        (
            f"{SPLIT_WORDS.get(o.of, o.of)}, also in {SPLIT_WORDS.get(o.within, o.within)}",
            *(f"{n:,}" for n in (o.num_proteins, o.num_shared, o.num_identical)),
            "not searched" if o.num_similar is None else f"{o.num_similar:,}",
            percent(o.leaked_fraction),
            f"{o.num_repeated_examples:,}",
        )
        for o in audit.overlaps
    )
    searched = f"searched with {audit.homology_tool}" if audit.homology_tool else "not searched"
    caption = f"Close relative: 40 % identity or more over half of either sequence ({searched})."
    blocks: list[Block] = [Heading("What the splits share"), text_table(columns, rows, caption=caption)]
    histograms = [
        (f"{SPLIT_WORDS.get(o.of, o.of)} proteins against {SPLIT_WORDS.get(o.within, o.within)}", o.identity_histogram)
        for o in audit.overlaps
        if o.identity_histogram and o.within == "train"
    ]
    if histograms:
        caption = "Share (and number) of proteins by their identity to the most similar training protein."
        blocks.append(Picture(identity_bars([(capital(title), h) for title, h in histograms]), caption))
    return blocks


def _shortcuts(audit: Audit) -> list[Block]:
    if not audit.shortcuts:
        return []
    rows = tuple(
        (f"protein's {s.predictor} in training", number(s.auroc), "0.500", number(s.aupr), number(s.positive_fraction))
        for s in audit.shortcuts
    )
    return [
        Heading("What needs no biology"),
        text_table(
            ("A predictor that knows only each", "AUROC", "by chance", "AUPR", "by chance"),
            rows,
            caption="On the test. Far above chance, the labels can be guessed without looking at a sequence.",
        ),
    ]
