"""What a sweep's YAML may say, and the one line that says what is wrong."""

import os
from pathlib import Path

import pytest
import yaml

from niah.errors import SpecError
from niah.sweep.config import Sweep, check_threads, load_sweep, parse_sweep
from tests.niah.fakes import sweep_of

ROOT = Path(__file__).parents[3]
ARM = {"name": "dense", "role": "baseline", "model": "perfect"}

INVALID: dict[str, tuple[dict[str, object], str]] = {
    "unknown field": ({"lenghts": [1024]}, "lenghts: no such field"),
    "a negative length": ({"lengths": [1024, -1]}, "lengths.1 = -1: "),
    "a length in words": ({"lengths": ["short"]}, "lengths.0 = 'short': should be a count of tok"),
    "a length in other digits": ({"lengths": ["١K"]}, "lengths.0 = '١K': should be a count"),
    "a length of no unit": ({"lengths": "4KB"}, "lengths.0 = '4KB': should be a count of tokens"),
    "a fractional length": ({"lengths": [1024.5]}, "lengths.0 = 1024.5: "),
    "no length": ({"lengths": []}, "lengths = []: should name one at least"),
    "no templates": ({"templates": []}, "templates = []: "),
    "a length twice": ({"lengths": ["1K", 1024]}, "lengths should not repeat 1024"),
    "a depth beyond the end": ({"depths": [0.5, 1.5]}, "depths.1 = 1.5: "),
    "a depth that is no number": ({"depths": [float("nan")]}, "depths.0 = nan: "),
    "one depth as a count": ({"depths": 1}, "depths = 1: should be a count of at least 2"),
    "no repeats": ({"repeats": 0}, "repeats = 0: "),
    "repeats in words": ({"repeats": "many"}, "repeats = 'many': "),
    "a share above one": ({"max_needle_share": 2}, "max_needle_share = 2: "),
    "a share as text": ({"spread": "0.1"}, "spread = '0.1': "),
    "yes as a number": ({"checkpoint_minutes": True}, "checkpoint_minutes = True: "),
    "yes among depths": ({"depths": [0, True]}, "depths.1 = True: "),
    "a residue as text": (
        {"needle_phase": {"modulus": 4, "residues": ["1"]}},
        "residues.0 = '1': ",
    ),
    "yes as text": ({"reuse": "yes"}, "reuse = 'yes': "),
    "an answer's tokens as text": (
        {"decoding": {"max_new_tokens": "5"}},
        "decoding.max_new_tokens = '5': ",
    ),
    "a role nobody has": ({"arms": [ARM | {"role": "best"}]}, "arms.0.role = 'best': "),
    "an arm without a model": ({"arms": [{"name": "a", "role": "baseline"}]}, "arms.0.model: "),
    "two arms of one name": ({"arms": [ARM, ARM]}, "arms should have different names"),
    "two baselines": ({"arms": [ARM, ARM | {"name": "b"}]}, "arms should hold one baseline"),
    "no arms": ({"arms": []}, "arms = []: "),
    "a name with a slash": ({"name": "a/b"}, "name = 'a/b': should be letters, digits"),
    "a phase without fields": ({"length_phase": 4}, "length_phase = 4: should be a mapping"),
    "a layout nobody knows": ({"layout": "spiral"}, "layout = 'spiral': "),
    "a template split nobody knows": ({"templates": ["seen"]}, "templates.0 = 'seen': "),
    "a control nobody knows": ({"controls": "no_model"}, "controls.0 = 'no_model': "),
    "a residue beyond its modulus": ({"length_phase": {"modulus": 4, "residues": [4]}}, "0 to 3"),
    "a modulus of one": ({"needle_phase": {"modulus": 1}}, "needle_phase.modulus = 1: "),
    "a nested unknown field": ({"decoding": {"top_p": 1}}, "decoding.top_p: no such field"),
    "no threads": ({"threads": 0}, "threads = 0: "),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_wrong_field_is_one_line_that_names_it(name: str) -> None:
    fields, expected = INVALID[name]
    with pytest.raises(SpecError) as raised:
        sweep_of(**fields)
    message = str(raised.value)
    assert expected in message
    assert "\n" not in message
    assert message.startswith("sweep: ")


@pytest.mark.parametrize(("lengths", "more"), [(["1.5K"], ""), (["1.5K", "x"], " (and 1 more)")])
def test_a_list_of_wrong_items_is_not_too_short_as_well(lengths: list[str], more: str) -> None:
    with pytest.raises(SpecError) as raised:
        sweep_of(lengths=lengths)
    assert str(raised.value).endswith(f"(K = 1024, M = 1024 K){more}")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "here: is empty, and should be a mapping of fields"),
        ([1], "here: holds [1], and should be a mapping of fields"),
        ({"stages": []}, "here: stages: is a training's configuration, for `niah train`"),
    ],
)
def test_what_is_no_sweep_is_told_so(data: object, told: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_sweep(data, "here")
    assert str(raised.value) == told


def test_a_missing_field_is_named() -> None:
    with pytest.raises(SpecError, match=r"^here: arms: Field required \(and 4 more\)$"):
        parse_sweep({"name": "a"}, "here")


@pytest.mark.parametrize("text", ["- 1", "just words", "", "a: [1", "a: !!python/object:os.x {}"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"sweep\.yaml: ") as raised:
        load_sweep(path)
    assert "\n" not in str(raised.value)


def test_binary_and_absent_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is not UTF-8 text"):
        load_sweep(path)
    with pytest.raises(SpecError, match="No such file"):
        load_sweep(tmp_path / "none.yaml")


def test_a_field_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("name: a\nrepeats: 2\nlengths: [1K]\nrepeats: 4\n", encoding="utf-8")
    with pytest.raises(SpecError, match="line 4: 'repeats' is given in line 2 already"):
        load_sweep(path)


def test_no_more_threads_than_a_few_for_each_core() -> None:
    check_threads(None)
    check_threads(os.cpu_count())
    with pytest.raises(SpecError, match=r"^threads = 100000: this machine has \d+ core"):
        check_threads(100_000)


def test_short_forms_are_resolved() -> None:
    assert sweep_of(lengths="1K").lengths == sweep_of(lengths=1024).lengths == (1024,)
    assert sweep_of(lengths=["1k", " 2m"]).lengths == (1024, 2 * 1024**2)
    sweep = sweep_of(lengths=["1K", "2M", 100], depths=5, length_phase={"modulus": 4})
    assert sweep.lengths == (1024, 2 * 1024**2, 100)
    assert sweep.depths == (0, 0.25, 0.5, 0.75, 1)
    assert sweep.corpora == ("tiny",)
    assert sweep.length_phase is not None
    assert sweep.length_phase.residues == (0, 1, 2, 3)


def test_what_is_written_down_is_read_back_equal() -> None:
    sweep = sweep_of(needle_phase={"modulus": 128, "residues": [0, 127]}, controls="no_needle")
    assert parse_sweep(yaml.safe_load(dump_sweep(sweep)), "again") == sweep


def write_sweep(folder: Path, **fields: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(dump_sweep(sweep_of(**fields)), encoding="utf-8")
    return path


def test_paths_of_texts_and_needles_begin_at_the_file_that_names_them(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        corpora=["kjv", "file:a.txt", "shuffled:file:sub/../a.txt"],
        families=["single_number", "file:n.jsonl?format=mrcr"],
    )
    sweep = load_sweep(path)
    assert sweep.corpora == ("kjv", f"file:{tmp_path}/a.txt", f"shuffled:file:{tmp_path}/a.txt")
    assert sweep.families == ("single_number", "file:n.jsonl?format=mrcr")
    assert sweep.folder == tmp_path
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.yaml").write_text(dump_sweep(sweep), encoding="utf-8")
    again = load_sweep(tmp_path / "run" / "spec.yaml")
    assert again.model_dump() == sweep.model_dump()


def test_two_spellings_of_a_text_are_one_text_twice(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="corpora should not repeat file:/"):
        load_sweep(write_sweep(tmp_path, corpora=["file:a.txt", "file:./a.txt"]))
    with pytest.raises(SpecError, match=r"repeat file:n\.jsonl, as file:\./n\.jsonl does"):
        load_sweep(write_sweep(tmp_path, families=["file:n.jsonl", "file:./n.jsonl"]))


SWEEPS = [path for path in (ROOT / "configs").glob("*.yaml") if "arms:" in path.read_text()]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_committed_sweeps_are_valid(path: Path) -> None:
    assert load_sweep(path).arms


def dump_sweep(sweep: Sweep) -> str:
    return yaml.safe_dump(sweep.model_dump(mode="json"), allow_unicode=True)


def test_the_demo_shows_every_field() -> None:
    written = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text(encoding="utf-8"))
    whole = load_sweep(ROOT / "configs" / "demo.yaml").model_dump()
    assert set(written) == set(whole)
    assert set(written["arms"][0]) == set(whole["arms"][0])
