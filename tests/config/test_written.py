"""What people write by hand: keys given twice, empty sections, single texts, comments."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest

from tsp_core.config import ExportConfig
from tsp_core.config.io import load_config
from tsp_core.config.yaml_text import expand_variables, parse_yaml
from tsp_core.errors import ConfigError


class Load(Protocol):
    def __call__(self, text: str, *assignments: str) -> Any: ...


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *assignments: str) -> Any:
        path = tmp_path / "config.yaml"
        path.write_text(f"root: x\n{text}")
        return load_config(str(path), assignments=assignments)

    return load


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("export: {stride: 2}\nclip:\nexport: {stride: 3}", "line 4: the key 'export' .*line 2"),
        ("export:\n  stride: 2\n  'stride': 2", r"line 4: the key 'stride' appears twice \(first"),
        (
            "study: {variants: {a: {}, b: {}, a: {}}}",
            r"line 2: the key 'a' appears twice \(.*\); keep one",
        ),
    ],
)
def test_a_key_given_twice_is_refused(load: Load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"config.yaml: {message}"):
        load(text)


def test_a_key_given_twice_in_an_assignment_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"--set 'export=.*': line 1: the key 'stride' appears"):
        load("", "export={stride: 1, stride: 2}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: &a {k: 1, l: 2}\nuser: {<<: *a, k: 3}", {"k": 3, "l": 2}),
        ("deep: {base: &a {<<: {k: 1}, k: 2}}\nuser: {<<: *a}", {"k": 2}),
        ("a: &a {k: 1}\nb: &b {l: 2}\nuser: {<<: *a, <<: *b}", {"k": 1, "l": 2}),
    ],
)
def test_a_key_may_replace_a_merged_one(text: str, expected: dict[str, int]) -> None:
    assert parse_yaml(text, "x")["user"] == expected


def test_a_section_without_keys_means_its_defaults(load: Load) -> None:
    config = load("ingest:\n  # names: path\n  proxy:\n    # enabled: true\nexport:\n")
    assert config == load("")
    assert load("export:\n", "export.stride=4").export.stride == 4
    study = load("study: {variants: {full: , tac: {pretrain: {heads: tac}, gvf: }}}").study
    assert study.variants == {"full": {}, "tac": {"pretrain": {"heads": "tac"}, "gvf": {}}}


@pytest.mark.parametrize("assignment", ["export=", "export=3"])
def test_a_value_instead_of_a_section_is_explained(load: Load, assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"export: (None|3): expected the section's keys below"):
        load("export: {stride: 4}", assignment)


def test_one_text_is_a_list_of_one(load: Load) -> None:
    config = load(
        "export: {formats: npy, subsets: test}\ningest: {extensions: mp4}\n"
        "index: {subsets: training}\nannotate: {classes: walk}"
    )
    assert (config.export.formats, config.export.subsets) == (("npy",), ("test",))
    assert (config.ingest.extensions, config.index.subsets) == (("mp4",), ("training",))
    assert config.annotate.classes == ("walk",)


def test_one_extension_is_a_list_of_one(load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    assert load("extensions: mine.py").extensions == (str(tmp_path / "mine.py"),)


def test_names_may_be_parted_by_commas(load: Load) -> None:
    config = load("", "export.formats=h5, npy", "evaluate.localizers=probes,heads")
    assert config.export.formats == ("h5", "npy")
    assert config.evaluate.localizers == ("probes", "heads")
    assert ExportConfig.model_validate({"formats": "h5,npy"}).formats == ("h5", "npy")
    with pytest.raises(ConfigError, match=r"export\.formats\.1: 'nyp': .* did you mean 'npy'"):
        load("", "export.formats=h5,nyp")


@pytest.mark.parametrize("key", ["annotate.classes", "index.subsets", "ingest.extensions"])
def test_texts_that_may_hold_a_comma_are_not_parted(load: Load, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: 'a,b': expected a list; write it as \[a, b\]"):
        load("", f"{key}=a,b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "annotate: {annotations: [a, b]}",
            r"annotate\.annotations: \[.*\]: expected one text or a mapping of texts",
        ),
        (
            "annotate: {annotations: {training: [a, b]}}",
            r"annotate\.annotations: expected one text or a mapping of texts",
        ),
        ("ingest: {videos: [1, 2]}", r"ingest\.videos: \[1, 2\]: expected one text or a list of"),
        ("export: {formats: {a: 1}}", r"export\.formats: expected a list, as in \[a, b\]"),
        ("name: 2024", r"name: 2024: expected a text; where it is one, write it in quotes"),
        ("annotate: {classes: [walk, run, walk]}", r"annotate\.classes: .*'walk' appears twice"),
        ("export: {formats: [h5, h5]}", r"export\.formats: .*'h5' appears twice; give each once"),
    ],
)
def test_one_line_names_the_key_and_its_forms(load: Load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("export: {stride: yes}", "export.stride: True"),
        ("clip: {frame_rate: on}", "clip.frame_rate: True"),
        ("pretrain: {seed: no}", "pretrain.seed: False"),
        ("pretrain: {milestones: [4, yes]}", r"pretrain.milestones: \[4, True\]"),
        ("runtime: {ray_resources: {gvf: {gpus: yes}}}", "runtime.ray_resources.gvf.gpus: True"),
    ],
)
def test_truth_values_are_no_numbers(load: Load, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: expected a number, not a truth value"):
        load(text)
    assert load("pretrain: {flip: no}").pretrain.flip is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1  # ${TSP_TEST_ABSENT}\n", "a: 1  # ${TSP_TEST_ABSENT}\n"),
        ("#${TSP_TEST_ABSENT}", "#${TSP_TEST_ABSENT}"),
        ("a: x#${TSP_TEST_ABSENT:-b}", "a: x#b"),
        ("a: 'x # ${TSP_TEST_ABSENT:-b}' # ${TSP_TEST_ABSENT}", "a: 'x # b' # ${TSP_TEST_ABSENT}"),
        ("a: 'it''s # ${TSP_TEST_ABSENT:-b}'", "a: 'it''s # b'"),
        (r'a: ["\" # ${TSP_TEST_ABSENT:-b}"]', r'a: ["\" # b"]'),
        ("a: it's ${TSP_TEST_ABSENT:-b} # 'x' ${Y}", "a: it's b # 'x' ${Y}"),
    ],
)
def test_variables_in_comments_are_left_alone(text: str, expected: str) -> None:
    assert expand_variables(text, "x") == expected
