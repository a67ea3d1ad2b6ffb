"""The configuration: files, variables, overrides, paths, and errors that name key and value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tsp_core.config import (
    ClipConfig,
    Config,
    ExportConfig,
    IngestConfig,
    PretrainConfig,
    recipe_fields,
)
from tsp_core.config.io import load_config, parse_assignments, parse_config
from tsp_core.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path) -> object:
    def write(text: str, name: str = "config.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def sections() -> list[type[BaseModel]]:
    return [type(getattr(Config(), name)) for name in Config.model_fields if name not in SCALARS]


SCALARS = ("name", "root", "extensions")


@pytest.mark.parametrize("section", sections())
def test_every_field_has_a_default_and_a_description(section: type[BaseModel]) -> None:
    section()
    assert all(field.description for field in section.model_fields.values())


def test_defaults_are_the_papers() -> None:
    clip, training = ClipConfig(), PretrainConfig()
    assert (clip.length, clip.frame_rate, clip.crop_size) == (16, 15.0, 112)
    assert (clip.resize_height, clip.resize_width) == (128, 171)
    assert clip.seconds == pytest.approx(16 / 15)
    assert (training.epochs, training.batch_size, training.clips_per_segment) == (8, 32, 5)
    assert (training.stem_lr, training.layers_lr, training.heads_lr) == (0, 1e-4, 2e-3)
    assert (training.momentum, training.weight_decay) == (0.9, 5e-3)
    assert (training.milestones, training.gamma) == ((4, 6), 0.01)
    assert (training.warmup_epochs, training.warmup_factor) == (2, 1e-5)


def test_relative_paths_are_taken_from_the_files_folder(write, tmp_path: Path) -> None:
    config = load_config(
        write(
            "root: out\ningest: {videos: [clips/*.mp4, s3://bucket/x.mp4, /abs/y.mp4]}\n"
            "annotate: {annotations: {training: a.json}}\nencoder: {weights: w.pth}\n"
        )
    )
    assert config.root == str(tmp_path / "out")
    assert config.ingest.videos == (f"{tmp_path}/clips/*.mp4", "s3://bucket/x.mp4", "/abs/y.mp4")
    assert config.annotate.annotations == {"training": str(tmp_path / "a.json")}
    assert config.encoder.weights == str(tmp_path / "w.pth")


def test_paths_of_a_remote_file_are_taken_from_its_prefix() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/data/set/config.yaml", b"root: ../out")
    config = load_config("memory://data/set/config.yaml")
    assert config.root == "memory://data/out"


def test_names_of_weights_are_no_paths(write) -> None:
    for name in ("kinetics", "random:0", "r2plus1d_34-tsp_on_activitynet"):
        config = load_config(write(f"root: x\nencoder: {{weights: '{name}'}}"))
        assert config.encoder.weights == name


def test_paths_of_overrides_are_taken_from_the_working_directory(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("root: out")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load_config(path, assignments=["root=here", "ingest.videos=videos"])
    assert (config.root, config.ingest.videos) == (f"{elsewhere}/here", f"{elsewhere}/videos")
    config = load_config(path, overrides={"ingest": IngestConfig(videos=("a", "b"))})
    assert config.ingest.videos == (f"{elsewhere}/a", f"{elsewhere}/b")


def test_overrides_replace_given_keys_only(write) -> None:
    path = write("root: x\nexport: {stride: 4, formats: [npy]}")
    config = load_config(path, overrides={"export": ExportConfig(stride=8)})
    assert (config.export.stride, config.export.formats) == (8, ("npy",))
    config = load_config(path, overrides={"export": {"stride": 2}}, assignments=["export.stride=1"])
    assert (config.export.stride, config.export.formats) == (1, ("npy",))


def test_assignments_are_yaml_and_later_ones_win() -> None:
    values = parse_assignments(["a.b=1", "a.c=[x, y]", "a.b=true", "name=s3://u?x=1"])
    assert values == {"a": {"b": True, "c": ["x", "y"]}, "name": "s3://u?x=1"}


def test_variables_are_replaced(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSP_TEST_ROOT", "/from/environment")
    config = load_config(
        write("# ${TSP_TEST_ABSENT}\nroot: ${TSP_TEST_ROOT}/x\nname: ${TSP_TEST_ABSENT:-default}")
    )
    assert (config.root, config.name) == ("/from/environment/x", "default")
    with pytest.raises(ConfigError, match=r"config.yaml: \$\{TSP_TEST_ABSENT\}: .* is not set"):
        load_config(write("root: ${TSP_TEST_ABSENT}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root: x\nexprot: {}", r"exprot: unknown key; did you mean 'export'\?"),
        ("root: x\nexport: {strid: 2}", r"export\.strid: unknown key; did you mean 'stride'\?"),
        ("root: x\nexport: {qqq: 2}", r"export\.qqq: unknown key; known keys: checkpoint, stride"),
        ("root: x\nexport: {stride: 0}", r"export\.stride: 0: .*greater than or equal to 1"),
        ("root: x\nclip: {frame_rate: .nan}", r"clip\.frame_rate: nan: "),
        ("root: x\nencoder: {name: vgg}", r"encoder\.name: 'vgg': .*r2plus1d_34"),
        ("root: x\nname: ../up", r"name: '\.\./up': "),
        ("root: x\nclip: {crop_size: 200}", r"clip: crop_size 200 exceeds .* lower crop_size"),
        ("root: x\nexport: 3", r"export: 3: "),
        ("name: x", r"root: missing; set it"),
        ("", r"root: missing; set it"),
        ("- a\n- b", r"expected a mapping of sections .*, got list"),
        ("root: [", r"not valid YAML"),
        ("root: x\nclip: {length: 4", r"not valid YAML.*line 2"),
        ("1: x", r"expected a mapping of sections"),
    ],
)
def test_errors_name_file_key_value_and_fix(write, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)config\\.yaml.*{message}"):
        load_config(write(text))


@pytest.mark.parametrize("assignment", ["export.stride", "=3", "export..stride=1", "a=[1"])
def test_wrong_assignments_are_refused_by_name(write, assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"--set '.*'"):
        load_config(write("root: x"), assignments=[assignment])


def test_wrong_values_of_assignments_name_the_key(write) -> None:
    with pytest.raises(ConfigError, match=r"export\.stride: 'fast'"):
        load_config(write("root: x"), assignments=["export.stride=fast"])
    with pytest.raises(ConfigError, match=r"export: 5: "):
        load_config(write("root: x\nexport: {stride: 2}"), assignments=["export=5"])


def test_several_errors_are_told_at_once(write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write("root: x\nexport: {stride: 0}\ngvf: {pooling: sum}"))
    assert "export.stride" in str(caught.value)
    assert "gvf.pooling" in str(caught.value)


def test_absent_or_binary_files_are_refused(write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot read .* no such file"):
        load_config(str(tmp_path / "absent.yaml"))
    with pytest.raises(ConfigError, match=r"cannot read .* it is a folder"):
        load_config(str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"root: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(str(tmp_path / "binary.yaml"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Config.model_fields, "stride", "videos", "x"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_any_values_give_a_configuration_or_our_error(values: object) -> None:
    try:
        config = parse_config(values if isinstance(values, dict) else {"root": values}, source="s")
    except ConfigError:
        return
    assert config.root


@given(st.binary(max_size=60))
def test_any_bytes_give_a_configuration_or_our_error(data: bytes) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/any.yaml", data)
    try:
        config = load_config("memory://any.yaml")
    except ConfigError:
        return
    assert config.root


def test_runtime_fields_are_in_no_recipe() -> None:
    export = recipe_fields(ExportConfig())
    assert "stride" in export
    assert "batch_size" not in export
    assert "shard_size" not in export
    assert recipe_fields(ExportConfig(batch_size=1)) == recipe_fields(ExportConfig(batch_size=2))


def test_a_field_that_came_later_makes_nothing_stale() -> None:
    name = "valid_clips_per_segment"
    assert name not in recipe_fields(PretrainConfig())
    assert recipe_fields(PretrainConfig(valid_clips_per_segment=2))[name] == 2


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().name = "other"  # type: ignore[misc]
