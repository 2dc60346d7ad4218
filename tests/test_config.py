"""Configs: an error is one line that names the key, and old names of keys are read."""

import logging
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from restore import config as config_module
from restore.config import Settings, build, config_names, find_config, read_yaml
from restore.errors import RestoreError


class Inner(Settings):
    batch: int = Field(8, ge=1)


class Outer(Settings):
    total_steps: int
    rate: float = 0.1
    sizes: tuple[int, ...] = ()
    data: Inner = Inner()


def test_overrides_reach_nested_keys_and_keep_their_types() -> None:
    config = build(Outer, {"total_steps": 1}, where="c.yaml", overrides=["data.batch=2", "rate=1e-4"])
    assert config.data.batch == 2
    assert config.rate == 1e-4


def test_an_override_does_not_change_the_values_it_is_laid_over() -> None:
    values = {"total_steps": 1, "data": {"batch": 3}}
    build(Outer, values, where="c.yaml", overrides=["data.batch=2"])
    assert values["data"]["batch"] == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"total_steps": 1, "data": {"bacth": 1}}, "unknown key 'data.bacth'; did you mean 'data.batch'?"),
        ({"total_step": 1}, "'total_step"),
        (
            {"total_steps": 1, "data": {"batch": 0}},
            "data.batch = 0: must be at least 1",
        ),
        ({"total_steps": "many"}, "total_steps = 'many'"),
        ({}, "the key 'total_steps' is missing"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict, expected: str) -> None:
    with pytest.raises(RestoreError, match=r"^c\.yaml: ") as error:
        build(Outer, values, where="c.yaml")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("batch=1", "batch=1: unknown key 'batch'; did you mean 'data.batch'?"),
        ("rate.batch=1", "rate.batch=1: rate"),
        ("data.BATCH=1", "unknown key 'data.BATCH'; did you mean 'data.batch'?"),
        ("sizes=3", "sizes=3: sizes = 3: must be a list, such as [a, b]"),
        ("data=3", "data=3: data = 3: must be a mapping of keys to values"),
    ],
)
def test_a_wrong_override_is_named_in_the_words_of_yaml(override: str, expected: str) -> None:
    with pytest.raises(RestoreError) as error:
        build(Outer, {"total_steps": 1}, where="c.yaml", overrides=["total_steps=2", override])
    assert expected in str(error.value)
    assert "c.yaml" not in str(error.value), "the file is not to blame"


def test_spaces_around_a_key_do_not_matter() -> None:
    config = build(Outer, {"total_steps": 1}, where="c.yaml", overrides=[" data.batch =2", "rate = 0.5"])
    assert (config.data.batch, config.rate) == (2, 0.5)


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(RestoreError, match="key=value"):
        build(Outer, {"total_steps": 1}, where="c.yaml", overrides=["data.batch"])


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("a: [1, 2\nb: 3\n")
    with pytest.raises(RestoreError, match=r"c\.yaml.*line"):
        read_yaml(file)


def test_a_duplicate_key_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(RestoreError, match="duplicate key"):
        read_yaml(file)


def test_a_shipped_config_is_found_by_name_and_the_nearest_is_named() -> None:
    assert "photo" in config_names("train")
    assert find_config("photo", "train").name == "photo.yaml"
    with pytest.raises(RestoreError, match="did you mean 'photo'"):
        find_config("foto", "train")


class Network(Settings):
    RENAMED: ClassVar[dict[str, str]] = {"w": "width"}

    width: int = 8


class Deep(Network):
    RENAMED: ClassVar[dict[str, str]] = {"d": "depth", "what": "kind"}
    RENAMED_VALUES: ClassVar[dict[str, dict[str, str]]] = {"kind": {"dense": "full"}}

    depth: int = 2
    kind: str = "full"


class Run(Settings):
    RENAMED: ClassVar[dict[str, str]] = {"net": "network"}

    network: Deep = Deep()


@pytest.fixture
def warnings_(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    config_module._warn_renamed.cache_clear()
    caplog.set_level(logging.WARNING, "restore.config")
    return caplog


def test_old_names_are_read_as_the_new_ones_and_named_once(warnings_: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        run = build(Run, {"net": {"w": 3, "d": 4, "what": "dense"}}, where="c.yaml")
    assert run == Run(network=Deep(width=3, depth=4, kind="full"))
    assert [line.partition(";")[0] for line in warnings_.messages] == [
        "net.w is now called network.width",
        "net.d is now called network.depth",
        "net.what: dense is now called network.kind: full",
    ]


def test_overrides_have_old_names_too(warnings_: pytest.LogCaptureFixture) -> None:
    values = {"network": {"width": 3, "depth": 4}}
    run = build(Run, values, where="c.yaml", overrides=["net.w=5", "network.kind=dense"])
    assert run == Run(network=Deep(width=5, depth=4, kind="full"))
    assert build(Run, values, where="c.yaml", overrides=["net={d: 7}"]) == Run(network=Deep(depth=7))
    assert len(warnings_.messages) == 3


def test_current_names_are_not_remarked_upon(warnings_: pytest.LogCaptureFixture) -> None:
    build(Run, {"network": {"width": 3, "kind": "full"}}, where="c.yaml", overrides=["network.depth=1"])
    assert warnings_.messages == []


def test_a_key_under_both_names_is_refused() -> None:
    with pytest.raises(RestoreError, match=r"network\.w is the old name of network\.width; both are set"):
        build(Run, {"network": {"w": 3, "width": 3}}, where="c.yaml")
