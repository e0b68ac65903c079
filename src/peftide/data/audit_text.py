"""An audit as text for the terminal."""

from collections.abc import Sequence

from peftide.data.audit import Audit
from peftide.data.leakage import Overlap


def render(audit: Audit) -> str:
    """The verdict, then what it rests on, in lines of plain text."""
    lines = [audit.verdict, ""]
    for split in audit.splits:
        classes = ", ".join(f"{name}: {count:,}" for name, count in split.class_counts.items() if count)
        long = f"; {split.num_long_proteins:,} longer than {audit.max_residues:,} residues"
        lines.append(
            f"{split.name:5}  {split.num_examples:,} examples, {split.num_proteins:,} proteins"
            f"{long if split.num_long_proteins else ''}{f' ({classes})' if classes else ''}"
        )
    if audit.num_unused:
        lines.append(f"unused {audit.num_unused:,} examples")
    for overlap in audit.overlaps:
        lines += ["", *_overlap_lines(overlap)]
    if audit.shortcuts:
        lines += ["", "what a predictor reaches on the test that sees no sequence, only training pairs:"]
        lines += [
            f"  {shortcut.predictor:10}  AUROC {shortcut.auroc:.3f} (0.500 by chance)   "
            f"AUPR {shortcut.aupr:.3f} ({shortcut.positive_fraction:.3f} by chance)"
            for shortcut in audit.shortcuts
        ]
        lines.append("  (a model that does not score clearly higher has learned nothing from the sequences)")
    lines += ["", f"repeated examples: {audit.num_repeated:,}; with contradictory labels: {audit.num_contradictory:,}"]
    lines += _section("flags", audit.flags)
    lines += _section("training will refuse the table for these, until they are mended", audit.refused)
    lines += _section("remarks", audit.remarks)
    return "\n".join(lines)


def _overlap_lines(overlap: Overlap) -> list[str]:
    searched = "not searched" if overlap.num_similar is None else f"{overlap.num_similar:,}"
    lines = [
        f"{overlap.of} against {overlap.within}: {overlap.leaked_fraction:.1%} of {overlap.num_proteins:,} leaked",
        f"  same protein {overlap.num_shared:,}; same sequence under another id {overlap.num_identical:,}; "
        f"relative of 40 % identity or more {searched}; same example {overlap.num_repeated_examples:,}",
    ]
    if overlap.identity_histogram is not None and overlap.leaked_fraction > 0:
        most = max(overlap.identity_histogram.values())
        lines.append(f"  best identity of each {overlap.of} protein to one of {overlap.within}:")
        lines += [
            f"    {name:>11}  {count:6,} {'#' * round(40 * count / max(most, 1))}".rstrip()
            for name, count in overlap.identity_histogram.items()
        ]
    return lines


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"  - {sentence}" for sentence in sentences)] if sentences else []
