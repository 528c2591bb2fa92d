"""One typed, validated configuration: a preset in YAML, with `--set section.key=value` on top.

Each room declares its own section (section.py says how); here they are put together and read.
"""

import difflib
from collections.abc import Iterable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, create_model, field_validator

from sare_core.config.captioning import CaptionSettings
from sare_core.config.detectors import DetectorSettings
from sare_core.config.evaluation import EvaluateSettings
from sare_core.config.plugins import load_plugins
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.config.section import Section
from sare_core.config.training import TrainSettings
from sare_core.errors import ConfigError
from sare_core.images.views import validate_view
from sare_core.index.adapters import layouts


class Settings(Section):
    """Everything that says what is computed. Where it is computed (work folder, device) is said on the command line."""

    note: str | None = None  # printed under every table: what a reader must know about these settings
    seed: int = Field(0, ge=0)  # of the noise of each image
    view: str = "raw"  # how a file is looked at, right after decoding: see sare_core.images.views
    # Whose train and val splits are worked on; null: all. A preset may say it by layout, {genimage: [sdv1.4]}: for data
    # in a layout that it does not name, all.
    train_subsets: tuple[str, ...] | None = None
    plugins: tuple[str, ...] = ()  # modules of the user's own: see config/plugins.py
    caption: CaptionSettings
    reconstruct: ReconstructSettings
    detector: SerializeAsAny[DetectorSettings]  # of the class that detector.detector names
    train: TrainSettings
    evaluate: EvaluateSettings

    @field_validator("view")
    @classmethod
    def known_view(cls, value: str) -> str:
        return validate_view(value)


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(Path(f.name).stem for f in files("sare_core.config.presets").iterdir() if f.name.endswith(".yaml"))


def listed(overrides: str | Iterable[str] | None) -> list[str]:
    """Overrides as a list: one alone is meant as it is. Raises ConfigError: not text."""
    found = [overrides] if isinstance(overrides, str) else list(overrides or ())
    if odd := [each for each in found if not isinstance(each, str)]:
        raise ConfigError(f"overrides: {odd[0]!r} is no text; write section.key=value.")
    return found


def load_settings(preset: str, overrides: str | Iterable[str] | None = None, layout: str | None = None) -> Settings:
    """Read a preset, by name or as the path of a YAML file, and apply `section.key=value` overrides, one or several.

    layout: of the training data, which `train_subsets` may depend on.
    Raises ConfigError: no such preset, not YAML, an unknown key (with the nearest known one), a value out of range.
    """
    if preset in preset_names():
        text = (files("sare_core.config.presets") / f"{preset}.yaml").read_text()
    elif Path(preset).suffix in {".yaml", ".yml"}:
        if not Path(preset).is_file():
            raise ConfigError(f"{preset}: no such settings file. The presets are {', '.join(preset_names())}.")
        try:
            text = Path(preset).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{preset}: not UTF-8 text ({error}).") from error
    else:
        raise ConfigError(
            f"no preset {preset!r}.{_nearest(preset, preset_names())} "
            f"The presets are {', '.join(preset_names())}; or give the path of a .yaml file."
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{preset}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{preset}: holds no settings; copy a preset and change it.")
    apply_overrides(values, listed(overrides))
    if isinstance(by_layout := values.get("train_subsets"), dict):
        if odd := sorted(str(name) for name in by_layout.keys() - set(layouts())):
            raise ConfigError(f"setting train_subsets: no layout {odd[0]!r}. The layouts are {', '.join(layouts())}.")
        values["train_subsets"] = by_layout.get(layout)
    return validated(values)


def validated(values: dict[str, Any]) -> Settings:
    """Settings of plain values. Raises ConfigError: an unknown or missing key, a value out of range."""
    model = _model(values)
    try:
        found = model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault, known_keys(model)) for fault in error.errors())) from None
    return Settings.model_construct(**dict(found))


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> None:
    """Write `section.key=value` overrides into plain values; `plugins+=module` adds to a list.

    Another detector has settings of its own: those in `values` that it does not know were the other's, and go, and so
    do shared ones of which its class has a default of its own. A preset may have others for it, `detectors: {name: …}`.
    Raises ConfigError: an override of no setting, with the nearest one; a value that is no YAML; `detectors` that are
    no settings.
    """
    before, first = _detector_name(values), ("plugins", "plugins+", "detector.detector")  # they say what is known
    of_others = values.pop("detectors", None) or {}
    if not isinstance(of_others, dict) or not all(isinstance(each, dict) for each in of_others.values()):
        raise ConfigError("setting detectors: write settings by the name of a detector, as {conv_b: {backbone: null}}.")

    def rank(override: str) -> int:
        key = override.partition("=")[0].strip()
        return first.index(key) if key in first else len(first)

    for override in sorted(overrides, key=rank):
        _override(values, override)
        if rank(override) == first.index("detector.detector") and _detector_name(values) != before:
            kind: Any = _model(values).model_fields["detector"].annotation
            shared, known = DetectorSettings.model_fields, kind.model_fields
            given = of_others.get(_detector_name(values), {})
            own = {key for key, field in shared.items() if known[key].default != field.default} | given.keys()
            own |= {kind.models[key] for key in own & kind.models.keys()}  # a revision is of the model that it was of
            kept = {key: value for key, value in values["detector"].items() if key in known and key not in own}
            values["detector"] = kept | given


def _detector_name(values: dict[str, Any]) -> str | None:
    section = values.get("detector")
    name = section.get("detector") if isinstance(section, dict) else None
    return name if isinstance(name, str) else None


def _model(values: dict[str, Any]) -> type[Settings]:
    """`Settings` with the settings of the detector that `values` name. Raises ConfigError: no such detector."""
    plugins = values.get("plugins")
    load_plugins(plugins if isinstance(plugins, list | tuple) else [])
    if (name := _detector_name(values)) is None:
        return Settings
    # By its name, since detectors know their settings and not the other way round.
    kind: Any = import_module("sare_core.detectors").detector_class(name)
    return create_model("Settings", __base__=Settings, detector=(kind.Settings, ...))


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """All dotted keys, as `--set` takes them."""
    keys = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals:
        raise ConfigError(f"--set {override}: write it as key=value, for example reconstruct.strength=0.7.")
    adds, key = key == "plugins+", "plugins" if key == "plugins+" else key
    if key != "plugins" and key not in (known := known_keys(_model(values))):
        raise ConfigError(f"--set {override}: no setting {key!r}.{_nearest(key, known)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not readable as YAML: {error}") from error
    *path, leaf = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: the preset's {part} holds no settings.")
    values[leaf] = [*(values.get(leaf) or []), value] if adds else value


def _explain(fault: Any, known: list[str]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    key = next((name for name in known if key.startswith(f"{name}.")), key)  # what follows is pydantic's, of a union
    if fault["type"] == "extra_forbidden":
        return f"no setting {key!r}.{_nearest(key, known)}"
    if key == "plugins":
        return (
            f"setting plugins: write a list, as plugins=[my_module], or --plugin my_module (given: {fault['input']!r})."
        )
    if fault["type"] == "missing":
        return f"setting {key} is missing."
    if fault["type"] == "value_error":  # of a section: settings that do not go together
        return f"{key}.{fault['msg'].removeprefix('Value error, ').rstrip('.')}."
    return f"setting {key}: {fault['msg']} (given: {fault['input']!r})."


def _nearest(word: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not matches:  # a right leaf in the wrong section is the likeliest slip
        leaf = word.rpartition(".")[2]
        matches = [key for key in known if key.rpartition(".")[2] == leaf][:1]
    return f" Did you mean {matches[0]!r}?" if matches else ""
