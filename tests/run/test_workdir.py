"""A workdir belongs to one config; runs of older versions go on as they began."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from codi_jax import trees
from codi_jax.run.workdir import (
    ADDED,
    FREE,
    FREE_IF_SAID,
    as_started,
    changed_rate,
    check_workdir,
    method_name,
    remove_leftovers,
    run_method,
    run_setting,
    saved_config,
    write_config,
)
from codi_jax.sampling.held_out import Setting
from codi_jax.typing import UserError
from configs import canny, inpaint, sr
from configs.base import base
from tests.sampling.unfinished import old_config
from tests.smallest import smallest


def write(workdir: Path, content: Any) -> Path:
    (workdir / "config.json").write_text(json.dumps(content))
    (workdir / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
    return workdir


def begun(config: Any, workdir: Path) -> None:
    """A workdir of ``config`` with a checkpoint; without one it belongs to no config."""
    write_config(config, workdir)
    (workdir / "checkpoints" / "4").mkdir(parents=True)


def keys(config: Any) -> set[str]:
    return {path.replace("/", ".") for path in trees.flatten(config)}


def test_each_new_key_has_what_older_runs_did() -> None:
    content = base().to_dict()
    # Whatever may differ needs no value of older runs. base() has no loss.
    added = {key for key in ADDED if not key.startswith("loss.")}
    assert keys(content) - keys(old_config(base())) - FREE == added - FREE


@pytest.mark.parametrize("method", ["codi", "finetune"])
def test_an_older_run_without_a_key_of_its_loss_goes_on(method: str, tmp_path: Path) -> None:
    config = smallest(method)
    content = config.to_dict()
    content["loss"].pop("lpips_weight", None)
    write(tmp_path, content)
    check_workdir(as_started(config, tmp_path), tmp_path)


def test_a_new_workdir_fits_any_config(tmp_path: Path) -> None:
    config = smallest()
    assert as_started(config, tmp_path) is config
    check_workdir(config, tmp_path)
    check_workdir(config, tmp_path / "nowhere")


def test_the_config_is_read_back(tmp_path: Path) -> None:
    """Tuples come back as lists, and that is no difference."""
    config = sr.get_config("tiny,fast_codi")
    begun(config, tmp_path / "deep" / "w")
    content = json.loads((tmp_path / "deep" / "w" / "config.json").read_text())
    assert content["eval"]["steps"] == [1, 2, 4] and content["loss"]["guidance_range"] == [2, 13]
    check_workdir(config, tmp_path / "deep" / "w")
    assert as_started(config, tmp_path / "deep" / "w") is config


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("batch_size", 16, r"batch_size \(8 there, 16 now\)"),
        ("seed", 1, r"seed \(0 there, 1 now\)"),
        ("model.trainable", "unet/.*", r"model\.trainable \('\(unet\|adapter\)/\.\*' there"),
        ("data.clean_share", 0.5, r"data\.clean_share \(0\.0 there, 0\.5 now\)"),
        ("model.unet.block_out_channels", (16,), r"block_out_channels \(\[8\] there, \[16\] now"),
        ("loss.dt", 3, r"loss\.dt \(20 there, 3 now\)"),
    ],
)
def test_another_config_is_refused(key: str, value: Any, said: str, tmp_path: Path) -> None:
    begun(smallest(), tmp_path)
    changed = smallest()
    changed.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=rf"{said}.*Use another --workdir, or the config"):
        check_workdir(changed, tmp_path)


def test_a_key_that_only_one_has_is_a_difference(tmp_path: Path) -> None:
    begun(smallest("finetune"), tmp_path)
    with pytest.raises(UserError, match=r"loss\.data_space \(None there, 'latent' now\)"):
        check_workdir(smallest("codi", method="finetune"), tmp_path)


def test_the_first_three_differences_are_named(tmp_path: Path) -> None:
    begun(smallest(), tmp_path)
    with pytest.raises(UserError) as error:
        check_workdir(smallest(batch_size=4, dtype="x", method="finetune", seed=5), tmp_path)
    said = str(error.value)
    assert "batch_size" in said and "dtype" in said and "method" in said
    assert "seed" not in said


def test_watching_is_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(smallest(), tmp_path)
    check_workdir(
        smallest(
            log_every=1,
            label="mine",
            tensorboard=True,
            eval__every=2,
            eval__steps=(1,),
            checkpoint__keep=9,
            mesh__fsdp=2,
            data__num_workers=3,
            data__max_corrupt=1,
            model__remat=True,
        ),
        tmp_path,
    )
    assert capsys.readouterr().err == ""
    assert keys(base().to_dict()) | set(base()) >= FREE | FREE_IF_SAID


def test_remedies_can_be_followed_and_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(smallest(), tmp_path)
    changed = smallest(steps=80, optim__learning_rate=1e-5, data__source="PHOTOS")
    check_workdir(changed, tmp_path)
    said = capsys.readouterr().err
    assert "goes on with another data.source ('skimage' there, 'PHOTOS' now)" in said
    assert "steps (8 there, 80 now)" in said and "optim.learning_rate" in said
    with pytest.raises(UserError, match=r"optim\.learning_rate .*1e-05 now"):
        check_workdir(changed, tmp_path, finished=True)


def test_what_is_free_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    assert [key for key in sorted(FREE | FREE_IF_SAID) if f"`{key}`" not in page] == []


def test_a_run_that_has_saved_nothing_holds_its_workdir_for_no_config(tmp_path: Path) -> None:
    """Out of memory at the first step: the batch may be lowered."""
    write_config(smallest(), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    check_workdir(smallest(batch_size=4, seed=3), tmp_path)
    assert as_started(smallest(), tmp_path) is not None and saved_config(tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "step", "said"),
    [
        ({"steps": 200, "optim__decay": "cosine"}, 100, "5e-05.*steps=100.*'cosine'.*have 0"),
        ({"steps": 200, "optim__decay": "cosine"}, 50, "8.536e-05.*have 5e-05"),
        ({"steps": 80, "optim__decay": "cosine"}, 80, "step 80: 0, .*have 9.549e-06"),
        ({"optim__learning_rate": 1e-5}, 60, "step 60: 1e-05, .* have 0.0001"),
        ({"optim__warmup_steps": 100}, 60, "step 60: 6.*e-05, .* have 0.0001"),
        ({"steps": 200}, 60, ""),
    ],
)
def test_a_changed_learning_rate_is_said_with_both(
    changes: dict[str, Any], step: int, said: str, tmp_path: Path
) -> None:
    old = smallest(steps=100, optim__decay=changes.get("optim__decay", "constant"))
    old.optim.learning_rate, old.optim.warmup_steps = 1e-4, 0
    new = old.copy_and_resolve_references()
    for key, value in changes.items():
        new.update_from_flattened_dict({key.replace("__", "."): value})
    begun(old, tmp_path)
    found = changed_rate(saved_config(tmp_path), new, step)
    assert re.search(said, found) if said else found == ""


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in (".config.json.12.tmp", "samples/.a.png.12.tmp", "config.json"):
        (tmp_path / name).write_text("")
    (tmp_path / ".model.tmp" / "unet").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "samples"]


def test_an_old_run_goes_on_as_it_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Configs have gained settings that change what is computed: they are turned off."""
    config = sr.get_config("tiny")
    config.data.clean_share = 0.3
    write(tmp_path, old_config(config))
    with pytest.raises(UserError, match="clean_share"):
        check_workdir(config, tmp_path)
    started = as_started(config, tmp_path)
    assert started.data.clean_share == 0.0 and config.data.clean_share == 0.3
    assert "older version: it goes on with data.clean_share=0.0" in capsys.readouterr().err
    check_workdir(started, tmp_path)


def test_an_old_run_of_todays_defaults_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = sr.get_config("tiny")
    write(tmp_path, old_config(config))
    assert as_started(config, tmp_path) is config
    check_workdir(config, tmp_path)
    assert capsys.readouterr().err == ""


def test_an_old_run_of_another_config_is_still_refused(tmp_path: Path) -> None:
    write(tmp_path, old_config(smallest(seed=4)))
    config = smallest(data__clean_share=0.3)
    with pytest.raises(UserError, match=r"another config: seed \(4 there, 0 now\)\."):
        check_workdir(as_started(config, tmp_path), tmp_path)


def test_a_run_of_today_keeps_what_it_was_given(tmp_path: Path) -> None:
    """The keys are in its config.json: nothing is filled in."""
    config = smallest(data__clean_share=0.3)
    begun(config, tmp_path)
    assert as_started(config, tmp_path) is config
    with pytest.raises(UserError, match=r"clean_share \(0\.3 there, 0\.0 now\)"):
        check_workdir(smallest(), tmp_path)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"method": "codi", "label": "paper"}, "paper"),
        ({"method": "codi", "label": ""}, "codi"),
        ({"method": "finetune"}, "finetune"),
        ({}, ""),
    ],
)
def test_results_are_called_by_the_label_or_the_method(config: Any, name: str) -> None:
    assert method_name(config) == name


@pytest.mark.parametrize(
    ("variants", "label"), [("tiny", ""), ("cm_frozen", "cm_frozen"), ("paper", "paper")]
)
def test_presets_of_a_method_have_a_label(variants: str, label: str) -> None:
    config = sr.get_config(variants)
    assert config.label == label
    assert method_name(config) == (label or "codi")


def test_a_run_says_how_it_is_called(tmp_path: Path) -> None:
    assert run_method(str(write(tmp_path, smallest("pe_codi").to_dict()))) == "pe_codi"
    assert run_method(str(write(tmp_path, old_config(smallest("pe_codi"))))) == "codi"


def test_a_run_says_what_it_is_evaluated_on(tmp_path: Path) -> None:
    config = smallest(seed=3, data__eval_source="PHOTOS", eval__count=7, model__prompt="a cat")
    assert run_setting(str(write(tmp_path, config.to_dict()))) == Setting(
        source="PHOTOS",
        count=7,
        crop=32,
        degradation="realesrgan",
        seed=3,
        prompt="a cat",
    )
    config.data.eval_source = ""
    assert run_setting(str(write(tmp_path, config.to_dict()))).source == "skimage"


@pytest.mark.parametrize("module", [canny, inpaint])
def test_a_task_without_degradation_has_options_of_its_own(module: Any, tmp_path: Path) -> None:
    config = module.get_config("tiny")
    setting = run_setting(str(write(tmp_path, json.loads(json.dumps(config.to_dict())))))
    assert setting.degradation is None
    options = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in config.task_options.items()
    }
    assert setting.task_options == options


@pytest.mark.parametrize("content", [None, {"_class_name": "UNet2DConditionModel"}])
def test_other_folders_have_the_defaults(content: Any, tmp_path: Path) -> None:
    if content is not None:
        write(tmp_path, content)
    assert run_method(str(tmp_path)) == "" and run_setting(str(tmp_path)) == Setting()
