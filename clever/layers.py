"""An experiment file, a profile and the command line's overrides laid over each other, every value with its place."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_origin

from clever.catalog import Locations
from clever.document import Document, Place, scalar
from clever.errors import RequestError
from clever.experiment import DATASETS, Evaluation, Fields, Profile, Seeds, experiments, read_experiment
from clever.fields import DERIVED, EVERY_RECIPE, READ_FROM, SECTIONS, Checks, Value, defaults, fields_of, recipes_of
from clever.names import Backbone, Method, unknown
from clever.recipes import TrainingRecipe
from clever.selection import POINT, Selections
from clever.spec import PretrainSpec

_SEEDS = re.compile("[1-9][0-9]{0,3}")


class Layers:
    """What holds for every point of one experiment's grid; raises RequestError with all mistakes at once."""

    def __init__(
        self,
        document: Document,
        profile_document: Document,
        profile: Profile,
        locations: Locations,
        settings: Sequence[str],
        seeds: str | None,
        built_in: str | None = None,
    ):
        self.document, self.profile, self.locations, self.built_in = document, profile, locations, built_in
        self.mistakes: list[str] = []
        self.overrides: list[str] = []
        # The fields are checked on the raw file, so that they are reported together with what the model finds.
        grid = _mapping(_mapping(document.value).get("grid"))
        self.zip = _mapping(grid.get("zip"))
        self.product = {key: values for key, values in grid.items() if key not in ("zip", "exclude")}
        self.axes = {key: values for key, values in {**self.product, **self.zip}.items() if isinstance(values, list)}
        self.chosen = _chosen(settings)
        self.recipes = self._recipes()
        self.checks = Checks(locations, self.mistakes)
        self.evaluations = self._evaluations()
        self.layers = self._layers(profile_document, settings)
        self.by_method = self._by_method(profile_document)
        self.by_experiment = self._by_experiment(profile_document)
        checked_axes = self._check_axes()
        self._check_complete()
        asked = self._parse_seeds(seeds)
        try:
            self.experiment = read_experiment(document)
            self.seeds = {**self.experiment.seeds.model_dump(), **asked}
            self.fixed = self._fixed()
            self.mistakes += Selections(document, self.experiment, checked_axes, self.fixed).mistakes()
        except RequestError as error:
            self.mistakes += error.messages
        refuse(self.mistakes)

    def values(self, section: str, evaluation: str = "") -> dict[str, Any]:
        """What is given for the fields of a section, and for an evaluation of that kind by its name, with the profile's
        data set in place of the file's.
        """
        found = self._found(section, evaluation)
        values = {key: value.value for key, value in found.items()}
        if section in DATASETS:
            values.setdefault("dataset", DATASETS[section])
        section = f"evaluate.{evaluation}" if (f"evaluate.{evaluation}", "dataset") in self.chosen else section
        return {key: self.dataset(value, section) if key == "dataset" else value for key, value in values.items()}

    def given(self, evaluation: Evaluation) -> Callable[[str], dict[str, Any]]:
        """The values of any section as the tasks of one evaluation have them."""
        return lambda section: self.values(section, evaluation.name if section == evaluation.task else "")

    def _found(self, section: str, evaluation: str = "") -> dict[str, Value]:
        """Whoever comes later wins; of one giver, what is for a single evaluation wins over what is for its kind."""
        found: dict[str, Value] = {}
        for layer in self.layers:
            found |= layer.get(section, {})
            found |= layer.get(f"evaluate.{evaluation}", {})
        return found

    def pretrain_values(self, coordinates: Mapping[str, Any]) -> dict[str, Any]:
        """The same for one point of the grid, with what the profile has for its method (or for what CLeVER is over) and,
        before that, for this experiment."""
        values = self.values("pretrain")
        method = coordinates.get("method", values.get("method"))
        if method == Method.CLEVER:
            method = coordinates.get("base", values.get("base", Method.DINO))
        own = {**self.by_method.get(method, {}), **self.by_experiment}
        return {**values, **{key: value.value for key, value in own.items() if ("pretrain", key) not in self.chosen}}

    def dataset(self, name: str, section: str = "pretrain") -> str:
        """The profile's data set in place of the paper's, unless ``--set`` named it."""
        return name if (section, "dataset") in self.chosen else self.profile.datasets.get(name, name)

    def backbone(self, name: Backbone) -> Backbone:
        """The profile's backbone in place of the paper's, unless ``--set`` named it."""
        return name if ("pretrain", "backbone") in self.chosen else self.profile.backbones.get(name, name)

    def describe(self, model: str, problem: Any) -> str:
        """A complaint about a whole specification, at the place of the field that it begins with."""
        message = problem["msg"].removeprefix("Value error, ")
        field = str(problem["loc"][0]) if problem["loc"] else message.split()[0]
        section = next((name for name, spec in SECTIONS.items() if spec.__name__ == model), "pretrain")
        found = (self._found(section, name) for name, task in self.evaluations.items() if task == section)
        value = next((each[field] for each in found if field in each), self._found(section).get(field))
        where = value.where if value else self.document.where(("grid", field))
        return f"{where}: {field + ': ' if problem['loc'] else ''}{message}"

    def _recipes(self) -> list[type[TrainingRecipe]]:
        """Of this experiment's methods and bases; all there are where one of them is unknown (reported elsewhere)."""
        methods, bases = self._words("method"), self._words("base")
        if not methods or not {*methods, *bases} <= {*Method}:
            return EVERY_RECIPE
        return recipes_of(map(Method, methods), bases or [Method.DINO])

    def _words(self, key: str) -> list[str]:
        """Every word that the experiment or ``--set`` gives for a field; what is no word is refused with the fields."""
        own = _mapping(_mapping(self.document.value).get("pretrain"))
        words = self.axes.get(key) or ([own[key]] if key in own else [])
        words = [*words, *(word for place, word in self.chosen.items() if place == ("pretrain", key))]
        return [word for word in words if isinstance(word, str)]

    def _evaluations(self) -> dict[str, str]:
        """The section of every evaluation that the file lists, by its name."""
        found: dict[str, str] = {}
        for index, entry in enumerate(self._listed()):
            task = str(_mapping(entry).get("task"))  # a list or a mapping is refused with the model
            name = str(_mapping(entry).get("name", task))
            if name in found:
                where = self.document.where(("evaluate", index))
                self.mistakes.append(f"{where}: two evaluations are called `{name}`: give each a `name` of its own")
            elif task in SECTIONS:
                found[name] = task
        return found

    def _listed(self) -> list[Any]:
        listed = _mapping(self.document.value).get("evaluate")
        return listed if isinstance(listed, list) else []

    def _layers(self, profile_document: Document, settings: Sequence[str]) -> list[dict[str, dict[str, Value]]]:
        """The values of every section, and of every evaluation under `evaluate.<name>`: the file's, the profile's and
        the command line's.
        """
        asked, document = self._parse_settings(settings), _mapping(self.document.value)
        file = {name: self._section(self.document, name, (name,), document.get(name)) for name in SECTIONS}
        scale = {
            name: self._section(profile_document, name, (name,), getattr(self.profile, name), EVERY_RECIPE)
            for name in SECTIONS
        }
        for index, entry in enumerate(self._listed()):
            name = str(_mapping(entry).get("name", _mapping(entry).get("task")))
            if section := self.evaluations.get(name):
                place: Place = ("evaluate", index, "fields")
                file[f"evaluate.{name}"] = self._section(self.document, section, place, _mapping(entry).get("fields"))
        for name, section in self.evaluations.items():
            place = ("evaluations", name)
            scale[f"evaluate.{name}"] = self._section(profile_document, section, place, self.profile.evaluations.get(name))
        layers = [file, scale, asked]
        for section in SECTIONS:
            if self._concerns(section):
                self._note_overrides(section, section, layers)
        for name, section in self.evaluations.items():
            self._note_overrides(f"evaluate.{name}", section, layers)
        return layers

    def _concerns(self, section: str) -> bool:
        """Whether the values of a section are read by any task of this experiment."""
        if section in ("pretrain", "probe", "perturbed"):  # a control is probed, and others read as the probe does
            return True
        return section in self.evaluations.values() or section in (READ_FROM.get(task) for task in self.evaluations.values())

    def _by_method(self, document: Document) -> dict[str, dict[str, Value]]:
        """The profile's values for single methods."""
        here = {*self._words("method"), *self._words("base")}
        result = {}
        for method, fields in self.profile.methods.items():
            place, recipes = ("methods", method), recipes_of([method], [Method.DINO])
            result[method] = self._overlay(document, place, fields, recipes, method if method in here else None)
        return result

    def _by_experiment(self, document: Document) -> dict[str, Value]:
        """The profile's values for this experiment, where it is a built-in one."""
        result: dict[str, Value] = {}
        for name, fields in self.profile.experiments.items():
            place, here = ("experiments", name), name == self.built_in
            if name not in experiments():
                self.mistakes.append(f"{document.where(place)}: {unknown('experiment', name, experiments())}")
            found = self._overlay(document, place, fields, EVERY_RECIPE, "this experiment" if here else None)
            result = found if here else result
        return result

    def _overlay(
        self, document: Document, place: Place, fields: Fields, recipes: list[type[TrainingRecipe]], whose: str | None
    ) -> dict[str, Value]:
        """Checked values of a profile for some pre-trainings; with words for ``whose``, they are noted as overrides."""
        result = {}
        for key, value in fields.items():
            where = document.where((*place, key))
            if key in (*POINT, "dataset") and not self._may_choose_backbone(place, key):
                self.mistakes.append(f"{where}: `{key}` says what is trained: a profile sets it for all experiments alike")
            elif checked := self.checks.value("pretrain", key, value, where, recipes):
                result[key] = checked
        told = ("backbone", *self.axes)  # elsewhere, or without effect
        heeded = [key for key in result if ("pretrain", key) not in self.chosen and key not in told]
        if whose is not None and heeded:
            self.overrides.append(f"for {whose}: " + ", ".join(f"{key} = {_word(result[key].value)}" for key in heeded))
        return result

    def _may_choose_backbone(self, place: Place, key: str) -> bool:
        """A single experiment may have another backbone than the others, since some evaluations need a ViT."""
        return key == "backbone" and place[0] == "experiments" and not (place[1] == self.built_in and key in self.axes)

    def _section(
        self,
        document: Document,
        section: str,
        place: Place,
        values: Any,
        recipes: list[type[TrainingRecipe]] | None = None,
    ) -> dict[str, Value]:
        result = {}
        for key, value in _mapping(values).items():
            checked = self.checks.value(section, key, value, document.where((*place, key)), recipes or self.recipes)
            if checked is not None:
                result[key] = checked
            elif document is self.document and place == ("pretrain",) and self._may_be_axis(key, value):
                self.mistakes[-1] += f"; several values are an axis of the grid: move `{key}` under `grid`"
        return result

    def _may_be_axis(self, key: str, value: Any) -> bool:
        info = fields_of("pretrain", self.recipes).get(key)
        return isinstance(value, list) and info is not None and get_origin(info.annotation) is not tuple

    def _parse_settings(self, settings: Sequence[str]) -> dict[str, dict[str, Value]]:
        result: dict[str, dict[str, Value]] = {}
        named = {f"evaluate.{name}": task for name, task in self.evaluations.items() if name != task}
        sections = {**{name: name for name in SECTIONS}, **named}
        for text in settings:
            where = f"--set {text}"
            path, equals, word = text.partition("=")
            place, dot, key = path.strip().rpartition(".")
            if not equals or not dot or place not in sections:
                self.mistakes.append(
                    f"{where}: expected SECTION.FIELD=VALUE with a section of {', '.join(sections)}, "
                    "as in --set pretrain.epochs=1"
                )
                continue
            if place == "pretrain" and key in self.axes:
                self.mistakes.append(f"{where}: `{key}` is an axis of the grid: change the experiment file instead")
                continue
            parts = [scalar(part.strip()) for part in word.strip(" []").split(",")]
            value = parts if "," in word else scalar(word.strip())
            checked = self.checks.value(sections[place], key, value, where, self.recipes)
            if checked is not None:
                result.setdefault(place, {})[key] = checked
        return result

    def _parse_seeds(self, text: str | None) -> dict[str, int]:
        """``3`` (pre-trainings) or ``pretrain=2,probe=5``."""
        result: dict[str, int] = {}
        for part in text.split(",") if text else ():
            name, equals, number = (word.strip() for word in part.partition("="))
            name, number = (name, number) if equals else ("pretrain", name)
            if name not in Seeds.model_fields or name in result or not _SEEDS.fullmatch(number):
                self.mistakes.append(f"--seeds {text}: expected N, or pretrain=N,probe=M with numbers from 1 to 9999")
                break
            result[name] = int(number)
        return result

    def _check_axes(self) -> dict[str, list[Any]]:
        """The axes, without values where these are not right."""
        own = _mapping(_mapping(self.document.value).get("pretrain"))
        result: dict[str, list[Any]] = dict.fromkeys(self.axes, [])
        for key, values in self.axes.items():
            place: Place = ("grid", "zip", key) if key in self.zip else ("grid", key)
            where, before = self.document.where(place), len(self.mistakes)
            if not values:
                self.mistakes.append(f"{where}: axis `{key}` has no values")
            if key in own:
                self.mistakes.append(f"{where}: `{key}` is an axis of the grid and given in `pretrain` too; keep one")
            if key in self.zip and key in self.product:
                self.mistakes.append(f"{where}: axis `{key}` is in `zip` and beside it; keep one")
            if key not in fields_of("pretrain", self.recipes):
                self.checks.value("pretrain", key, None, where, self.recipes)  # says once what its name should be
                continue
            for index, value in enumerate(values):
                where = self.document.where((*place, index))
                if key in self.product and value in values[:index]:
                    self.mistakes.append(f"{where}: `{value}` is given twice")
                self.checks.value("pretrain", key, value, where, self.recipes)
            result[key] = values if len(self.mistakes) == before else []
        return result

    def _check_complete(self) -> None:
        """Fields without a default must be given somewhere."""
        own = _mapping(self.document.value).get("pretrain")
        chosen = {key for section, key in self.chosen if section == "pretrain"}
        present = {*_mapping(own), *self.product, *self.zip, *self.profile.pretrain, *chosen}
        for key, info in PretrainSpec.model_fields.items():
            if isinstance(own, dict) and info.is_required() and key not in present | DERIVED:
                self.mistakes.append(f"{self.document.where(('pretrain',))}: `pretrain.{key}` is missing")

    def _note_overrides(self, place: str, section: str, layers: Sequence[dict[str, dict[str, Value]]]) -> None:
        """Say what the profile and the command line have changed in a section or, at another ``place``, in what one
        evaluation has."""
        fields = fields_of(section, self.recipes)
        own, *others = (layer.get(place, {}) for layer in layers)
        over = {key: value for layer in others for key, value in layer.items()}
        for key, value in over.items():
            if key not in fields or (section == "pretrain" and key in self.axes):
                continue  # without effect: another method's hyper-parameter, or the grid has its own values
            before = [own[key].value] if key in own else defaults(section, key, self.recipes)
            if any(default != value.value for default in before):
                self.overrides.append(f"{place}.{key} = {_word(value.value)}")

    def _fixed(self) -> dict[str, str]:
        """Coordinates that the whole experiment shares, in the words of the file or of ``--set``, never a profile's."""
        own = {key: value for key, value in self.experiment.pretrain.items() if key in self._found("pretrain")}
        own |= {key: word for (section, key), word in self.chosen.items() if section == "pretrain"}
        return {key: str(own[key]) for key in POINT if key in own}


def refuse(mistakes: Iterable[str]) -> None:
    if messages := list(dict.fromkeys(mistakes)):
        raise RequestError(*messages)


def _chosen(settings: Sequence[str]) -> dict[tuple[str, str], str]:
    """Section and field of every ``--set``, with the word given for it."""
    result = {}
    for text in settings:
        path, _, word = text.partition("=")
        section, _, key = path.strip().rpartition(".")
        result[section, key] = word.strip()
    return result


def _mapping(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
