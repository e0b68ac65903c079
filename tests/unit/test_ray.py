"""embed and screen on a cluster of two workers: the results of one machine, also where a worker is killed."""

import importlib.util
import io
import socket
import subprocess
import sys
from collections import Counter

import pytest

import peftide
from conftest import random_sequence, write_examples
from peftide.config import EmbedSettings, ScreenSettings, TrainSettings, check_settings
from peftide.errors import UserError
from peftide.inference.ray_workers import worker_shares
from peftide.inference.screen import run_screen
from peftide.inference.screen_estimate import has_fast_integers

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'peftide[ray]'"
)

# Programs of their own, for what Ray leaves open when it ends is warned of. Every task that is begun is written down,
# and the first worker to begin the fatal one is killed.
CLUSTER = """
import io, os, signal, sys
from pathlib import Path
import ray
from rich.console import Console
from peftide.inference.work import Loaded

def killing(load, fatal, begun):
    def load_and_kill(*given):
        loaded = load(*given)
        def work(task, *, advance):
            killed = Path(begun + ".killed")
            with open(begun, "a") as stream:
                stream.write(f"{task.number}\\n")
            if task.number == fatal and not killed.exists():
                killed.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            return loaded.work(task, advance=advance)
        return Loaded(loaded.identity, work)
    return load_and_kill

own = dict(_node_ip_address="127.0.0.1", include_dashboard=False, object_store_memory=100_000_000)
ray.init(num_cpus=2, log_to_driver=False, **own)
"""

PROGRAM = """
from peftide.config import EmbedSettings
from peftide.data.portions import PortionSize
from peftide.inference import embed_file as module

data, backbone, out, begun = sys.argv[1:]
module.load_embedding = killing(module.load_embedding, 3, begun)
common = dict(data=data, backbone=backbone, device="cpu", precision="fp32", threads=1, cache_limit_gb=0.0)
module.embed_file(
    EmbedSettings(**common, out=out, ray="auto"), Console(file=io.StringIO()), portion=PortionSize(rows=5, residues=300)
)
"""


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_repeats_its_portion_alone_and_the_result_is_that_of_one_machine(esm_folder, tmp_path):
    from rich.console import Console

    from peftide.data.portions import PortionSize
    from peftide.inference.embed_file import embed_file

    fasta, begun = tmp_path / "proteins.fasta", tmp_path / "begun"
    lines = [f">Q{number:03d}\n{random_sequence(4 + (17 * number) % 71, seed=number)}\n" for number in range(60)]
    fasta.write_text("".join(lines))
    expected = tmp_path / "one.parquet"
    embed_file(
        EmbedSettings(
            data=str(fasta), out=str(expected), backbone=str(esm_folder), device="cpu", precision="fp32", threads=1,
            cache_limit_gb=0.0,
        ),
        Console(file=io.StringIO()),
        portion=PortionSize(rows=5, residues=300),
    )  # fmt: skip
    out = tmp_path / "many.parquet"
    words = [sys.executable, "-c", CLUSTER + PROGRAM, str(fasta), str(esm_folder), str(out), str(begun)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected.read_bytes()
    counts = Counter(begun.read_text().split())
    assert counts.pop("3") == 2
    assert len(counts) >= 10
    assert set(counts.values()) == {1}
    assert list(tmp_path.glob(".*.parts")) == []


SCREEN_PROGRAM = """
from peftide.config import ScreenSettings
from peftide.inference import screen, screen_workers

bundle, data, out, begun, options = sys.argv[1:]
screen_workers.load_bands = killing(screen_workers.load_bands, 1, begun)
common = dict(bundle=bundle, data=data, device="cpu", precision="fp32", threads=1)
screen.run_screen(
    ScreenSettings(**common, out=out, ray="auto", top_k=5), Console(file=io.StringIO()),
    estimate_from_pairs=0 if options == "estimated" else 10**9,
)
"""


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    "scores", ["exact", pytest.param("estimated", marks=pytest.mark.skipif(not has_fast_integers(), reason="no VNNI"))]
)
def test_a_screen_by_two_workers_one_of_them_killed_is_that_of_one_process(esm_folder, tmp_path, scores):
    from rich.console import Console

    data = write_examples(tmp_path, "pair")
    bundle, fasta, begun = tmp_path / "bundle", tmp_path / "proteome.fasta", tmp_path / "begun"
    common = {"device": "cpu", "precision": "fp32", "threads": 1}
    peftide.train(
        TrainSettings(
            **data, **common, out=str(bundle), backbone=str(esm_folder), method="head", head_width=16, epochs=2,
            batch_examples=8, baselines="none", cache_dir=str(tmp_path / "cache"),
        )
    )  # fmt: skip
    fasta.write_text("".join(f">Q{n:04d}\n{random_sequence(4 + (7 * n) % 29, seed=n)}\n" for n in range(1200)))
    one, many = tmp_path / "one.parquet", tmp_path / "many.parquet"
    run_screen(
        ScreenSettings(bundle=str(bundle), data=str(fasta), out=str(one), top_k=5, **common),
        Console(file=io.StringIO()),
        estimate_from_pairs=0 if scores == "estimated" else 10**9,
    )
    words = [sys.executable, "-c", CLUSTER + SCREEN_PROGRAM, *map(str, (bundle, fasta, many, begun, scores))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert many.read_bytes() == one.read_bytes()
    assert Counter(begun.read_text().split()) == {"0": 1, "1": 2, "2": 1}
    assert list(tmp_path.glob(".*.parts")) == []


def test_workers_take_a_gpu_each_or_the_cpus_that_threads_says():
    given = {"data": "", "out": "", "ray": "auto"}
    nodes = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}, {"memory": 1.0}]
    assert worker_shares(nodes, EmbedSettings(**given), "cuda") == (4, {"num_cpus": 1, "num_gpus": 1})
    assert worker_shares(nodes, EmbedSettings(**given), "cpu") == (3, {"num_cpus": 8})
    assert worker_shares(nodes, EmbedSettings(**given, threads=3), "cpu") == (7, {"num_cpus": 3})
    assert worker_shares([{"memory": 1.0}], EmbedSettings(**given), "cpu")[0] == 0


@needs_ray
def test_an_address_at_which_nothing_listens_is_told_at_once(esm_folder, tmp_path):
    from rich.console import Console

    from peftide.inference.embed_file import embed_file

    fasta = tmp_path / "proteins.fasta"
    fasta.write_text(">A\nMKV\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        settings = EmbedSettings(
            data=str(fasta), out=str(tmp_path / "e.h5"), backbone=str(esm_folder), device="cpu", precision="fp32",
            threads=1, ray=f"127.0.0.1:{taken.getsockname()[1]}",
        )  # fmt: skip
        with pytest.raises(UserError, match=r"no connection \(.*refused.*say local for this machine alone"):
            embed_file(settings, Console(file=io.StringIO()))


def test_one_gpu_cannot_be_named_for_all_workers():
    with pytest.raises(UserError, match="gives each worker its own GPU"):
        check_settings(EmbedSettings(data="a", out="b", ray="auto", device="cuda:1"))


def test_the_cache_is_said_to_be_ignored_beside_ray():
    warnings = check_settings(EmbedSettings(data="a", out="b", ray="auto", cache_limit_gb=1.0))
    assert [warning.split()[0] for warning in warnings] == ["cache_limit_gb"]


def test_without_ray_the_error_says_what_to_install(esm_folder, tmp_path, monkeypatch):
    from rich.console import Console

    from peftide.inference.embed_file import embed_file

    fasta = tmp_path / "proteins.fasta"
    fasta.write_text(">A\nMKV\n")
    monkeypatch.setitem(sys.modules, "ray", None)  # as where there is none
    settings = EmbedSettings(
        data=str(fasta), out=str(tmp_path / "e.h5"), backbone=str(esm_folder), device="cpu", precision="fp32",
        threads=1, ray="auto",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"pip install 'peftide\[ray\]'"):
        embed_file(settings, Console(file=io.StringIO()))
