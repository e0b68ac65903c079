"""The command line: what it accepts, what it says, how it ends."""

import io
import signal
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest

from peftide.cli import COMMANDS, main, parse
from peftide.config import DemoSettings, EmbedSettings, EvaluateSettings, PredictSettings, Settings, TrainSettings
from peftide.errors import UserError

TABLE_FLAGS = """--sequences --allow-self-pairs --column-a --column-b --column-cluster --column-id --column-sequence
    --column-label --column-split"""
MACHINE_FLAGS = "--device --precision --threads --token-budget --compile --cache-dir --cache-limit-gb"
TRAINING_FLAGS = f"""{TABLE_FLAGS} {MACHINE_FLAGS} --audit --strict --split-by --split-identity --split-seed --task
    --target --max-residues --long-proteins --val-fraction --test-fraction --head --head-width --head-dropout --pooling
    --state-layers --lora-rank --lora-alpha --lora-dropout --lora-matrices --lora-layers --epochs --batch-examples
    --pair-steps --learning-rate --weight-decay --warmup-fraction --clip-norm --patience --metric --class-weights
    --sampling --group-weight --seed --checkpoint-layers --memory"""
FLAGS = {
    "demo": "--out",
    "split": f"""{TABLE_FLAGS} --task --target --max-residues --long-proteins --out --by --identity --coverage
        --val-fraction --test-fraction --negatives --search --seed --threads""",
    "audit": f"""{TABLE_FLAGS} --task --target --max-residues --long-proteins --search --strict --json --threads""",
    "train": f"{TRAINING_FLAGS} --out --backbone --method --baselines --checkpoint-minutes --restart --shard",
    "plan": f"""{TABLE_FLAGS} {MACHINE_FLAGS} --split-by --split-identity --split-seed
        --json --task --target --max-residues --long-proteins --val-fraction --test-fraction --head
        --head-width --head-dropout --pooling --state-layers --backbones --methods --lora-rank --lora-alpha
        --lora-dropout --lora-matrices --lora-layers --epochs --batch-examples --pair-steps --seed
        --checkpoint-layers --memory""",
    "compare": f"{TRAINING_FLAGS} --baselines --out --backbones --methods --seeds",
    "sweep": f"{TRAINING_FLAGS} --out --backbone --method --vary --search --trials --keep-bundles",
    "evaluate": f"{TABLE_FLAGS} {MACHINE_FLAGS} --out --split",
    "predict": f"{TABLE_FLAGS} {MACHINE_FLAGS} --ray --out --threshold --min-confidence",
    "screen": f"""{MACHINE_FLAGS} --ray --out --against --top-k --min-probability --self-pairs --exact --column-id
        --column-sequence""",
    "report": "--out",
    "doctor": f"{MACHINE_FLAGS} --bundle --backbone",
    "embed": f"""{MACHINE_FLAGS} --ray --out --backbone --bundle --per-residue --pooling --state-layers --column-id
        --column-sequence --max-residues --long-proteins""",
}


def peftide(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "peftide", *words], capture_output=True, text=True, check=False)


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(words)
    return str(caught.value)


def read(words: str) -> Settings:
    return parse(words.split())[1]


def test_the_examples_of_the_documentation_are_understood() -> None:
    train = (
        "train pairs.tsv --sequences proteins.fasta --task pair --method lora --backbone swissprot-10m --out runs/ppi"
    )
    assert read(train) == TrainSettings(data="pairs.tsv", sequences="proteins.fasta", out="runs/ppi")
    assert read("predict runs/ppi new_pairs.tsv --sequences proteins.fasta --out scores.tsv") == PredictSettings(
        bundle="runs/ppi", data="new_pairs.tsv", sequences="proteins.fasta", out="scores.tsv"
    )
    assert read("embed proteins.fasta --backbone esm2-650m --out embeddings.h5 --per-residue") == EmbedSettings(
        data="proteins.fasta", backbone="esm2-650m", out="embeddings.h5", per_residue=True
    )
    assert read("evaluate runs/ppi pairs.tsv") == EvaluateSettings(bundle="runs/ppi", data="pairs.tsv")
    assert read("demo") == DemoSettings(out="runs/demo")


@pytest.mark.parametrize(
    "words",
    [
        "predict b d --out o --no-compile --threads 2",
        "predict --out o b --threads 2 d",
        "predict --threads=2 b --out=o d",
        "predict --out o --threads 2 -- b d",
        "predict --threads 1 b d --out o --threads 2",
    ],
)
def test_flags_may_stand_before_between_and_after_the_positional_arguments(words: str) -> None:
    assert read(words) == PredictSettings(bundle="b", data="d", out="o", threads=2)


def test_after_two_dashes_names_may_begin_with_a_dash() -> None:
    assert read("predict --out o -- -b --d") == PredictSettings(bundle="-b", data="--d", out="o")
    assert read("predict b --out o -- -d") == PredictSettings(bundle="b", data="-d", out="o")


def test_a_file_whose_name_looks_like_a_flag_is_told_where_to_stand(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-d.csv").write_text("")
    assert "-d.csv: no flag; as the name of a file it goes at the end, after --" in refused("train", "-d.csv")


@pytest.mark.parametrize("matrices", [["key,query"], ["key", "query"], ["key query"], ["key,", "query"]])
def test_a_list_is_separated_by_commas_or_spaces(matrices: list[str]) -> None:
    settings = parse(["train", "d", "--lora-matrices", *matrices, "--out", "o"])[1]
    assert settings == TrainSettings(data="d", out="o", lora_matrices=("key", "query"))


def test_a_switch_of_the_file_can_be_taken_back_by_its_negative_flag(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('data = "d"\nout = "o"\ncompile = true\n', "utf-8")
    assert parse(["train", "--config", str(path)])[1] == TrainSettings(data="d", out="o", compile=True)
    assert parse(["train", "--config", str(path), "--no-compile"])[1] == TrainSettings(data="d", out="o")


def test_only_the_flags_that_were_given_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('data = "d"\nout = "o"\nepochs = 3\nlora_matrices = ["query"]\n', "utf-8")
    expected = TrainSettings(data="e", out="o", epochs=3, lora_matrices=("query",), seed=0)
    assert parse(["train", "e", "--config", str(path), "--seed", "0"])[1] == expected


def test_a_setting_that_the_run_would_ignore_is_a_warning() -> None:
    command, _, warnings = parse(["train", "d", "--out", "o", "--method", "head", "--lora-rank", "4"])
    assert command == "train"
    assert warnings == ("lora_rank is ignored: method is head, not lora",)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("trian d --out o", "no command 'trian'; the nearest is train"),
        ("--trian", "no command '--trian'; the nearest is train"),
        ("my.tsv", "no command 'my.tsv'; see --help for those that there are"),
        ("train d --out o --learning-rte 1", "--learning-rte: the nearest is --learning-rate"),
        ("train d --out o --learning_rate=1", "--learning_rate: the nearest is --learning-rate"),
        ("train d --out o --learn 1", "--learn: the nearest is --learning-rate"),
        ("train d --out o --konfig x", "--konfig: the nearest is --config"),
        ("train d --out o --foo 1 --lora-rate 2", "(2 problems)"),
        ("train d e --out o", "'e': nothing is expected here"),
        ("train -- d --out o", "'--out': nothing is expected here"),
        ("train d --out", "argument --out: expected one argument"),
        ("train", "DATA is missing (table of examples"),
        ("train d", "--out is missing (folder of the bundle to write)"),
        ("predict --out o", "BUNDLE is missing"),
        ("evaluate b", "DATA is missing"),
        ("train d --out o --epochs many", "--epochs: must be a whole number at least 1, not 'many'"),
        ("train d --out o --lora-matrices key,keys", "feed-forward, not 'keys'"),
        ("train d --out o --config nowhere.toml", "nowhere.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_is_named_with_its_mend(words: str, problem: str) -> None:
    assert problem in refused(*words.split())


def test_a_mistake_ends_with_2_and_one_message_without_a_traceback() -> None:
    done = peftide("train", "d", "--out", "o", "--epochs", "0")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: these settings cannot be used (1 problem)\n  --epochs: must be a whole number at least 1, not 0\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is of Linux")
@pytest.mark.parametrize("is_buffered", [True, False])
def test_a_full_disk_under_what_is_printed_ends_with_2_and_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_buffered: bool
) -> None:
    rows = "".join(f"p{n},{'MKT' * (n + 2)},{n % 2}\n" for n in range(9))
    (tmp_path / "t.csv").write_text("id,sequence,label\n" + rows)
    words = ["split", str(tmp_path / "t.csv"), "--task", "protein", "--by", "protein", "--out", str(tmp_path / "s.tsv")]
    with (
        open("/dev/full", "wb", buffering=-1 if is_buffered else 0) as raw,
        io.TextIOWrapper(raw, write_through=not is_buffered) as full,
        redirect_stdout(full),
    ):
        assert main(words) == 2
    said = "error: what this command prints: cannot be written (No space left on device); make room there"
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes and SIGINT are those of POSIX")
def test_an_interrupt_ends_with_130_and_a_message_without_a_traceback(tmp_path: Path) -> None:
    import os

    pipe = tmp_path / "run.toml"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "peftide", "train", "--config", str(pipe)], stderr=subprocess.PIPE, text=True
    )
    with pipe.open("w"):  # opens when the command has begun to read its settings, which now never end
        said = None
        for _ in range(30):  # one that comes just before Python waits for the pipe is seen only when it wakes
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                _, said = process.communicate(timeout=5)
                break
    assert (process.returncode, said) == (130, "interrupted\n")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_peftide_alone_and_its_help_list_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in COMMANDS)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    import peftide as package

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"peftide {package.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_a_command_are_these_and_each_is_explained(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([command, "--help"])
    assert ended.value.code == 0
    listed = [line.split()[0].rstrip(",") for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert sorted(listed) == sorted(["--config", *FLAGS[command].split()])


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["train"]])
def test_no_heavy_library_is_loaded_to_show_help_or_to_refuse_settings(words: list[str]) -> None:
    code = f"""
import sys
from peftide.cli import main
try:
    main({words!r})
except SystemExit:
    pass
print("loaded:", sorted({{"torch", "numpy", "transformers", "peft", "pandas", "rich"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_list_may_be_given_piece_by_piece():
    settings = parse(["compare", "d.csv", "--out", "o", "--methods", "head", "--methods", "lora,full"])[1]
    assert settings.methods == ("head", "lora", "full")


def test_a_reader_that_has_read_enough_is_no_error():
    command = [sys.executable, "-c", "import sys; from peftide.cli import main; sys.exit(main(['--help']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
